#!/usr/bin/python
"""Verify a certificate and its key as clients of the site would."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

DOCUMENTATION = r"""
---
module: ag_ui_certificate
short_description: Check a certificate, its chain and its key before they are copied
description:
  - >-
    Changes nothing. Checks that the key is the certificate's, and that a client which knows only the
    authorities takes the certificate today for each of the names.
options:
  certificate:
    description: The chain in PEM, the server's certificate first.
    type: str
    required: true
  key:
    description: The private key in PEM.
    type: str
    required: true
  ca:
    description: Authorities in PEM; without them those of the system count.
    type: str
    default: ""
  names:
    description: Names and IPv4 addresses that the certificate has to be for.
    type: list
    elements: str
    required: true
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Check the pair on the controller
  hx_citadel.shield_ag_ui.ag_ui_certificate:
    certificate: "{{ lookup('ansible.builtin.file', 'server.crt') }}"
    key: "{{ lookup('ansible.builtin.file', 'server.key') }}"
    names: [ag-ui.example.com]
  delegate_to: localhost
"""

RETURN = r"""
problems:
  description: What is wrong, one sentence each, with the remedy; none if nothing is.
  returned: success
  type: list
"""

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
ADDRESS = re.compile(r"[0-9.]+")
VERIFY_ERROR = re.compile(r"^error (\d+) at (\d+) depth lookup: ?(.+)$", re.MULTILINE)
# OpenSSL's X509_V_ERR_* codes for an incomplete or untrusted chain.
NO_ISSUER = {2, 18, 19, 20, 21}


class Openssl(NamedTuple):
    """Result of a call of `openssl`."""

    ok: bool
    output: str
    errors: str


def openssl(*arguments: str, text: str = "") -> Openssl:
    """Run `openssl` with the text on standard input."""
    done = subprocess.run(
        ["openssl", *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return Openssl(done.returncode == 0, done.stdout, done.stderr)


def key_problem(certificates: list[str], key: str) -> str:
    """Check that the key belongs to the first certificate.

    Args:
        certificates: The chain in PEM, the server's certificate first.
        key: Private key in PEM.

    Returns:
        The problem with its remedy; empty if there is none.
    """
    public = openssl("pkey", "-pubout", "-passin", "pass:", text=key)
    if not public.ok:
        return "ag_ui_tls_key is no private key in PEM without a passphrase. Provide one, encrypted by ansible-vault."
    keys = [openssl("x509", "-noout", "-pubkey", text=one).output for one in certificates]
    if public.output == keys[0]:
        return ""
    if public.output in keys:
        return (
            "ag_ui_tls_certificate does not begin with the certificate of ag_ui_tls_key. Put the server's "
            "certificate first, and the intermediate ones behind it."
        )
    return "ag_ui_tls_key is not the key of ag_ui_tls_certificate. Provide the two that belong together."


def roots(certificates: list[str]) -> list[str]:
    """Return the root certificates, whose issuer is their subject; clients trust only roots."""
    found = []
    for one in certificates:
        said = openssl("x509", "-noout", "-subject_hash", "-issuer_hash", text=one).output.split()
        if len(set(said)) == 1:
            found.append(one)
    return found


class Chain:
    """Writes the files for `openssl verify` and runs it."""

    def __init__(self, folder: Path, certificates: list[str], authorities: list[str]) -> None:
        leaf, *rest = certificates
        self.leaf = folder / "leaf.pem"
        self.leaf.write_text(leaf + "\n", encoding="ascii")
        self.options = ["-purpose", "sslserver"]
        for option, texts in (("-untrusted", rest), ("-CAfile", authorities)):
            if texts:
                path = folder / f"{option}.pem"
                path.write_text("\n".join(texts) + "\n", encoding="ascii")
                self.options += [option, str(path)]
        if authorities:
            self.options += ["-no-CApath", "-no-CAstore"]

    def error(self, *options: str) -> tuple[int, str]:
        """Verify with further options; return the code and the text of the first error, or `(0, "")`."""
        checked = openssl("verify", *self.options, *options, str(self.leaf))
        if checked.ok:
            return 0, ""
        found = VERIFY_ERROR.search(checked.output + checked.errors)
        return (int(found[1]), found[3]) if found else (-1, checked.errors.strip())


def chain_problems(chain: Chain, names: list[str], trusted: str) -> list[str]:
    """Find out why a client would reject the certificate.

    Args:
        chain: The certificate, its intermediates and the authorities.
        names: Host names and IPv4 addresses that the certificate must be valid for.
        trusted: Description of the trusted authorities, for the message.

    Returns:
        The problems with their remedies; empty if there are none.
    """
    number, words = chain.error()
    if number in NO_ISSUER:
        return [
            (
                f"ag_ui_tls_certificate does not lead to {trusted} ({words}). Put the intermediate certificates "
                "behind the server's in that file, or set ag_ui_tls_ca to a file with the authority that "
                "clients trust."
            )
        ]
    if number:
        ends = openssl("x509", "-noout", "-dates", "-in", str(chain.leaf)).output.split("\n")
        return [
            f"ag_ui_tls_certificate is refused: {words} ({', '.join(filter(None, ends))}). Provide a valid one."
        ]
    san = openssl("x509", "-noout", "-ext", "subjectAltName", "-in", str(chain.leaf)).output
    wrong = [
        name
        for name in names
        if ("DNS:" not in san and "IP Address:" not in san)
        or chain.error("-verify_ip" if ADDRESS.fullmatch(name) else "-verify_hostname", name)[0]
    ]
    if not wrong:
        return []
    has = re.findall(r"(?:DNS|IP Address):([^,\s]+)", san)
    return [
        (
            f"ag_ui_tls_certificate is not for {', '.join(wrong)} (it is for {', '.join(has) or 'no name'}). "
            "Provide one for ag_ui_server_name and ag_ui_server_aliases, or correct these."
        )
    ]


def problems_of(certificate: str, key: str, ca: str, names: list[str]) -> list[str]:
    """Check the certificate, its chain and its key.

    Args:
        certificate: The chain in PEM, the server's certificate first.
        key: Private key in PEM.
        ca: Authorities in PEM; empty to use those of the system.
        names: Host names and IPv4 addresses that the certificate must be valid for.

    Returns:
        The problems with their remedies; empty if there are none.
    """
    if not shutil.which("openssl"):
        return ["ag_ui_tls_certificate cannot be checked: install openssl on the controller."]
    certificates = PEM.findall(certificate)
    if not certificates or not all(openssl("x509", "-noout", text=one).ok for one in certificates):
        return [
            "ag_ui_tls_certificate holds no certificates in PEM, or one that is damaged. Provide them."
        ]
    authorities = roots(PEM.findall(ca))
    if ca and not authorities:
        return [
            "ag_ui_tls_ca holds no authority: its certificates have other issuers. Provide the root."
        ]
    found = [key_problem(certificates, key)]
    with tempfile.TemporaryDirectory(prefix="ag-ui-") as folder:
        chain = Chain(Path(folder), certificates, authorities)
        trusted = (
            "an authority of ag_ui_tls_ca" if ca else "an authority of the controller's system"
        )
        found += chain_problems(chain, names, trusted)
    return list(filter(None, found))


def main() -> None:
    """Check the pair and return the problems."""
    module = AnsibleModule(
        argument_spec={
            "certificate": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": True},
            "ca": {"type": "str", "default": ""},
            "names": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    asked = module.params
    problems = problems_of(asked["certificate"], asked["key"], asked["ca"], asked["names"])
    module.exit_json(changed=False, problems=problems)


if __name__ == "__main__":
    main()
