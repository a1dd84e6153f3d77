#!/usr/bin/python
"""Verify a certificate and its key as clients of the site would."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_certificates import (  # type: ignore[import-not-found]
    parse,
)

DOCUMENTATION = r"""
---
module: ag_ui_certificate
short_description: Verify a certificate, its chain and its key
description:
  - >-
    Checks that the key belongs to the certificate, and that a client that trusts only the
    authorities accepts the certificate now for each of the names.
  - Rejects keys and signatures that clients reject as too weak, or do not support. Warns if the certificate expires
    within 14 days.
  - Changes nothing. Run it on the controller, before the files are copied to a host. Requires openssl.
options:
  certificate:
    description: The certificate chain in PEM, the server's certificate first.
    type: str
    required: true
  key:
    description: The private key in PEM, without a passphrase.
    type: str
    required: true
  ca:
    description: CA certificates in PEM. If it is empty, those of the system are used.
    type: str
    default: ""
  names:
    description: Host names and IPv4 addresses that the certificate must be valid for.
    type: list
    elements: str
    required: true
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Verify the certificate and its key
  hx_citadel.shield_ag_ui.ag_ui_certificate:
    certificate: "{{ lookup('ansible.builtin.file', 'server.crt') }}"
    key: "{{ lookup('ansible.builtin.file', 'server.key') }}"
    names: [ag-ui.example.com]
  delegate_to: localhost
"""

RETURN = r"""
problems:
  description: The problems, each with its remedy; empty if there are none.
  returned: success
  type: list
  elements: str
"""

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
IPV4_ADDRESS = re.compile(r"[0-9.]+")
VERIFY_ERROR = re.compile(r"^error (\d+) at (\d+) depth lookup: ?(.+)$", re.MULTILINE)
# OpenSSL's X509_V_ERR_* codes for an incomplete or untrusted chain.
NO_ISSUER = {2, 18, 19, 20, 21}
# Those for a key or a digest that is too weak: EE_KEY_TOO_SMALL, CA_KEY_TOO_SMALL, CA_MD_TOO_WEAK.
TOO_WEAK = {66, 67, 68}
# 112 bits: RSA keys from 2048 bits, and digests from SHA-224. OpenSSL in Debian and Ubuntu requires this of servers.
AUTH_LEVEL = "2"
# Browsers support no others.
CURVES = {"prime256v1", "secp384r1"}
WARNING_DAYS = 14


class OpensslResult(NamedTuple):
    """Result of a call of `openssl`."""

    ok: bool
    output: str
    errors: str


def openssl(*arguments: str, text: str = "") -> OpensslResult:
    """Run `openssl` with the text on standard input."""
    completed = subprocess.run(
        ["openssl", *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return OpensslResult(completed.returncode == 0, completed.stdout, completed.stderr)


def key_problem(certificates: list[str], key: str) -> str:
    """Check that the key belongs to the first certificate.

    Args:
        certificates: The chain in PEM, the server's certificate first.
        key: Private key in PEM.

    Returns:
        The problem with its remedy; empty if there is none.
    """
    public_key = openssl("pkey", "-pubout", "-passin", "pass:", text=key)
    if not public_key.ok:
        return "ag_ui_tls_key is no private key in PEM without a passphrase. Provide one, encrypted by ansible-vault."
    keys = [openssl("x509", "-noout", "-pubkey", text=pem).output for pem in certificates]
    if public_key.output == keys[0]:
        return ""
    if public_key.output in keys:
        return (
            "ag_ui_tls_certificate does not begin with the certificate of ag_ui_tls_key. Put the server's "
            "certificate first, and the intermediate ones behind it."
        )
    return "ag_ui_tls_key is not the key of ag_ui_tls_certificate. Provide the two that belong together."


def root_certificates(certificates: list[str]) -> list[str]:
    """Return the root certificates, whose issuer is their subject; clients trust only roots."""
    roots = []
    for pem in certificates:
        hashes = openssl("x509", "-noout", "-subject_hash", "-issuer_hash", text=pem).output.split()
        if len(set(hashes)) == 1:
            roots.append(pem)
    return roots


def leaf_problems(certificate: str) -> list[str]:
    """Find out whether browsers cannot use the certificate, although it is valid.

    Args:
        certificate: The server's certificate in PEM.

    Returns:
        The problems, each with its remedy; empty if there are none.
    """
    text = openssl("x509", "-noout", "-text", text=certificate).output
    algorithm = re.search(r"Public Key Algorithm: (\S+)", text)
    curve = re.search(r"ASN1 OID: (\S+)", text)
    problems = []
    kind = f"{algorithm[1] if algorithm else 'unknown'}{f' on {curve[1]}' if curve else ''}"
    if not (
        algorithm
        and (
            algorithm[1] == "rsaEncryption"
            or (algorithm[1] == "id-ecPublicKey" and curve and curve[1] in CURVES)
        )
    ):
        problems.append(
            f"ag_ui_tls_certificate has a key that browsers do not support ({kind}). Provide one with an RSA key, or "
            "with an elliptic curve key on P-256 or P-384."
        )
    # nginx would have to send a response of OCSP with it, which the site does not.
    if "status_request" in text:
        problems.append(
            "ag_ui_tls_certificate requires OCSP stapling (must-staple), which the site does not do. Provide one without."
        )
    return problems


class Chain:
    """Writes the files for `openssl verify` and runs it."""

    def __init__(self, directory: Path, certificates: list[str], authorities: list[str]) -> None:
        leaf, *intermediates = certificates
        self.leaf = directory / "leaf.pem"
        self.leaf.write_text(leaf + "\n", encoding="ascii")
        self.options = ["-purpose", "sslserver", "-auth_level", AUTH_LEVEL]
        for option, texts in (("-untrusted", intermediates), ("-CAfile", authorities)):
            if texts:
                path = directory / f"{option}.pem"
                path.write_text("\n".join(texts) + "\n", encoding="ascii")
                self.options += [option, str(path)]
        if authorities:
            self.options += ["-no-CApath", "-no-CAstore"]

    def error(self, *options: str) -> tuple[int, str]:
        """Verify with further options; return the code and the text of the first error, or `(0, "")`."""
        result = openssl("verify", *self.options, *options, str(self.leaf))
        if result.ok:
            return 0, ""
        error = VERIFY_ERROR.search(result.output + result.errors)
        return (int(error[1]), error[3]) if error else (-1, result.errors.strip())


def chain_problems(chain: Chain, names: list[str], trusted: str) -> list[str]:
    """Find out why a client would reject the certificate.

    Args:
        chain: The certificate, its intermediates and the authorities.
        names: Host names and IPv4 addresses that the certificate must be valid for.
        trusted: Description of the trusted authorities, for the message.

    Returns:
        The problems, each with its remedy; empty if there are none.
    """
    code, error = chain.error()
    if code in NO_ISSUER:
        return [
            (
                f"ag_ui_tls_certificate does not lead to {trusted} ({error}). Put the intermediate certificates "
                "behind the server's in that file, or set ag_ui_tls_ca to a file with the authority that "
                "clients trust."
            )
        ]
    if code in TOO_WEAK:
        return [
            (
                f"ag_ui_tls_certificate is too weak for clients: {error}. Provide one whose keys have at least 2048 bits "
                "(RSA), and whose signatures use SHA-256."
            )
        ]
    if code:
        dates = openssl("x509", "-noout", "-dates", "-in", str(chain.leaf)).output.split("\n")
        return [
            f"ag_ui_tls_certificate is refused: {error} ({', '.join(filter(None, dates))}). Provide a valid one."
        ]
    san = openssl("x509", "-noout", "-ext", "subjectAltName", "-in", str(chain.leaf)).output
    unmatched = [
        name
        for name in names
        if ("DNS:" not in san and "IP Address:" not in san)
        or chain.error("-verify_ip" if IPV4_ADDRESS.fullmatch(name) else "-verify_hostname", name)[
            0
        ]
    ]
    if not unmatched:
        return []
    san_names = re.findall(r"(?:DNS|IP Address):([^,\s]+)", san)
    return [
        (
            f"ag_ui_tls_certificate is not for {', '.join(unmatched)} (it is for {', '.join(san_names) or 'no name'}). "
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
        The problems, each with its remedy; empty if there are none.
    """
    if not shutil.which("openssl"):
        return ["ag_ui_tls_certificate cannot be checked: install openssl on the controller."]
    certificates = PEM.findall(certificate)
    if not certificates or not all(openssl("x509", "-noout", text=pem).ok for pem in certificates):
        return [
            "ag_ui_tls_certificate holds no certificates in PEM, or one that is damaged. Provide them."
        ]
    authorities = root_certificates(PEM.findall(ca))
    if ca and not authorities:
        return [
            "ag_ui_tls_ca holds no authority: its certificates have other issuers. Provide the root."
        ]
    problems = [key_problem(certificates, key), *leaf_problems(certificates[0])]
    with tempfile.TemporaryDirectory(prefix="ag-ui-") as directory:
        chain = Chain(Path(directory), certificates, authorities)
        trusted = (
            "an authority of ag_ui_tls_ca" if ca else "an authority of the controller's system"
        )
        problems += chain_problems(chain, names, trusted)
    return list(filter(None, problems))


def main() -> None:
    """Verify the certificate and its key, and return the problems."""
    module = AnsibleModule(
        argument_spec={
            "certificate": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": True},
            "ca": {"type": "str", "default": ""},
            "names": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    problems = problems_of(params["certificate"], params["key"], params["ca"], params["names"])
    certificate = parse(params["certificate"])
    if (
        certificate
        and not problems
        and certificate.expires < time.time() + WARNING_DAYS * 24 * 3600
    ):
        date = time.strftime("%Y-%m-%d", time.gmtime(certificate.expires))
        module.warn(f"ag_ui_tls_certificate expires on {date}. Provide a new one before then.")
    module.exit_json(changed=False, problems=problems)


if __name__ == "__main__":
    main()
