#!/usr/bin/python
"""Obtain a certificate by certbot, which then renews it, or delete it from certbot."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, TypedDict

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_certificates import (  # type: ignore[import-not-found]
    Certificate,
    parse,
)

DOCUMENTATION = r"""
---
module: ag_ui_acme
short_description: Obtain a certificate from an ACME server by certbot
description:
  - Runs certbot with the webroot method if certbot does not have a certificate for these domains from this server,
    or if it expires soon. Otherwise it connects to nothing.
  - The timer of certbot renews the certificate and runs O(hook). In a run of this module the hook finds
    E(AG_UI_DEPLOYMENT), and leaves the installation to the caller.
options:
  name:
    description: Name of the certificate at certbot.
    type: str
    required: true
  configuration:
    description: Configuration directory of certbot.
    type: path
    default: /etc/letsencrypt
  state:
    description: Whether certbot has the certificate and renews it.
    type: str
    choices: [present, absent]
    default: present
  domains:
    description: Host names of the certificate.
    type: list
    elements: str
    default: []
  directory:
    description: Directory URL of the ACME server; empty for the default of certbot.
    type: str
    default: ""
  email:
    description: E-mail address of the account; empty for an account without one.
    type: str
    default: ""
  ca:
    description: File with CA certificates (PEM) to trust besides those of the system.
    type: path
  webroot:
    description: Directory that the web server serves on port 80. Required to obtain a certificate, as are O(hook) and O(stamp).
    type: path
  hook:
    description: Program that certbot runs after a renewal.
    type: path
  stamp:
    description: File in which the module keeps O(directory) of the certificate.
    type: path
  files:
    description: Files and directories to remove with the certificate, if O(state=absent).
    type: list
    elements: path
    default: []
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Obtain the certificate
  hx_citadel.shield_ag_ui.ag_ui_acme:
    name: ag-ui
    domains: [ag-ui.example.com]
    webroot: /var/lib/ag-ui/acme
    hook: /etc/ag-ui/certificate-hook
    stamp: /var/lib/ag-ui/acme-directory
"""

RETURN = r"""
output:
  description: The output of certbot.
  returned: if it ran
  type: str
"""

SYSTEM_CA = Path("/etc/ssl/certs/ca-certificates.crt")
TIMEOUT_SECONDS = 600
# Certbot itself renews a certificate in its last 30 days.
RENEWAL_SECONDS = 30 * 24 * 3600


class Options(TypedDict):
    """The options of the module."""

    name: str
    configuration: str
    state: str
    domains: list[str]
    directory: str
    email: str
    ca: str | None
    webroot: str | None
    hook: str | None
    stamp: str | None
    files: list[str]


class CertbotError(Exception):
    """Certbot fails; the message is its output."""


class Lineage(NamedTuple):
    """What certbot has under the name of the certificate."""

    server: str
    certificate: Certificate


def with_hidden_error(output: str) -> str:
    """Add the error of the ACME server that certbot before 2.2 on Python 3.11 hides behind one of its own.

    Debian 12 has this version. The log has both (https://github.com/certbot/certbot/issues/9539).
    """
    log = re.search(r"the logfile (\S+)", output)
    if log is None or "can't set attribute" not in output or not Path(log[1]).is_file():
        return output
    errors = re.findall(
        r"^acme\.messages\.Error: (.+)$", Path(log[1]).read_text(errors="replace"), re.MULTILINE
    )
    return f"{output}\nThe ACME server said: {errors[-1]}" if errors else output


class Certbot:
    """Runs certbot for one certificate."""

    def __init__(self, configuration: str, name: str) -> None:
        self.name = name
        self.settings = Path(configuration) / "renewal" / f"{name}.conf"
        self.live = Path(configuration) / "live" / name
        self.archive = Path(configuration) / "archive" / name

    def lineage(self) -> Lineage | None:
        """Return what certbot has; None if that is nothing, or incomplete after an interruption."""
        try:
            settings = self.settings.read_text(encoding="utf-8")
            certificate = parse((self.live / "fullchain.pem").read_text(encoding="ascii"))
        except OSError:
            return None
        server = re.search(r"^server = (\S+)$", settings, re.MULTILINE)
        return Lineage(server[1], certificate) if server and certificate else None

    def exists(self) -> bool:
        """Whether there is anything under the name, also if it is incomplete."""
        return any(os.path.lexists(path) for path in (self.settings, self.live, self.archive))

    def discard(self) -> None:
        """Remove an incomplete certificate: certbot would choose another name beside it."""
        self.settings.unlink(missing_ok=True)
        shutil.rmtree(self.live, ignore_errors=True)
        shutil.rmtree(self.archive, ignore_errors=True)

    def run(self, *arguments: str, ca: str | None = None) -> str:
        """Run certbot, and return its output.

        Args:
            arguments: The command of certbot and its options.
            ca: File with CA certificates to trust besides those of the system.

        Raises:
            CertbotError: Certbot fails.
        """
        command = ["certbot", *arguments, "--non-interactive", "--cert-name", self.name]
        environment = os.environ | {"AG_UI_DEPLOYMENT": "1", "LC_ALL": "C.UTF-8"}
        with tempfile.NamedTemporaryFile(prefix="ag-ui-", suffix=".crt") as bundle:
            if ca:
                for path in (SYSTEM_CA, Path(ca)):
                    bundle.write(path.read_bytes() if path.exists() else b"")
                bundle.flush()
                environment["REQUESTS_CA_BUNDLE"] = bundle.name
            try:
                done = subprocess.run(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    check=False,
                    timeout=TIMEOUT_SECONDS,
                )
            except OSError as error:
                raise CertbotError(f"certbot does not start: {error}") from error
            except subprocess.TimeoutExpired as error:
                raise CertbotError(f"certbot did not end within {TIMEOUT_SECONDS} s") from error
        if done.returncode:
            raise CertbotError(
                with_hidden_error(done.stdout.strip()) or f"certbot exited with {done.returncode}"
            )
        return done.stdout.strip()


def has_other_server(lineage: Lineage, directory: str, stamp: Path) -> bool:
    """Whether the certificate is from another ACME server.

    Args:
        lineage: What certbot has.
        directory: Directory URL of the server; empty for the default of certbot, which only certbot knows.
        stamp: File with the directory of the certificate.
    """
    if directory:
        return lineage.server != directory
    return stamp.exists() and stamp.read_text(encoding="utf-8") != ""


def expires_soon(certificate: Certificate) -> bool:
    """Whether certbot should be asked to renew: in the last third of the validity, and at most 30 days before its end."""
    third = (certificate.expires - certificate.begins) / 3
    return time.time() > certificate.expires - min(RENEWAL_SECONDS, third)


def obtaining(params: Options, *, renew: bool) -> list[str]:
    """Return the arguments with which certbot obtains the certificate.

    Args:
        params: Options of the module.
        renew: Whether to replace a certificate that does not expire soon.
    """
    arguments = ["certonly", "--agree-tos", "--webroot", "--webroot-path", str(params["webroot"])]
    arguments += ["--key-type", "ecdsa", "--deploy-hook", str(params["hook"])]
    arguments += ["--renew-with-new-domains"]
    arguments += ["--force-renewal" if renew else "--keep-until-expiring"]
    for domain in params["domains"]:
        arguments += ["--domain", domain]
    if params["directory"]:
        arguments += ["--server", params["directory"]]
    if params["email"]:
        return [*arguments, "--email", params["email"], "--no-eff-email"]
    return [*arguments, "--register-unsafely-without-email"]


def make_present(module: AnsibleModule, certbot: Certbot) -> None:
    """Obtain the certificate if it is necessary."""
    params: Options = module.params
    stamp = Path(str(params["stamp"]))
    lineage = certbot.lineage()
    renew = lineage is not None and has_other_server(lineage, params["directory"], stamp)
    fits = (
        lineage is not None
        and not renew
        and set(lineage.certificate.names) == {name.lower() for name in params["domains"]}
    )
    is_current = lineage is not None and fits and not expires_soon(lineage.certificate)
    if is_current or module.check_mode:
        module.exit_json(changed=not is_current)
    if lineage is None:
        certbot.discard()
    try:
        output = certbot.run(*obtaining(params, renew=renew), ca=params["ca"])
    except CertbotError as error:
        if lineage is None or not fits or lineage.certificate.expires < time.time():
            raise
        # The certificate is still valid, and the timer of certbot tries again.
        module.warn(f"certbot could not renew the certificate, which expires soon:\n{error}")
        module.exit_json(changed=False, output=str(error))
    stamp.write_text(params["directory"], encoding="utf-8")
    module.exit_json(changed=certbot.lineage() != lineage, output=output)


def make_absent(module: AnsibleModule, certbot: Certbot) -> None:
    """Delete the certificate from certbot, so that it is not renewed any more, and what it needed."""
    files = [path for path in map(Path, module.params["files"]) if os.path.lexists(path)]
    changed = bool(files) or certbot.exists()
    if module.check_mode or not changed:
        module.exit_json(changed=changed)
    output = certbot.run("delete") if certbot.lineage() and shutil.which("certbot") else ""
    certbot.discard()
    for path in files:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    module.exit_json(changed=True, output=output)


def main() -> None:
    """Obtain or delete the certificate."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "configuration": {"type": "path", "default": "/etc/letsencrypt"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "domains": {"type": "list", "elements": "str", "default": []},
            "directory": {"type": "str", "default": ""},
            "email": {"type": "str", "default": ""},
            "ca": {"type": "path"},
            "webroot": {"type": "path"},
            "hook": {"type": "path"},
            "stamp": {"type": "path"},
            "files": {"type": "list", "elements": "path", "default": []},
        },
        required_if=[("state", "present", ["domains", "webroot", "hook", "stamp"])],
        supports_check_mode=True,
    )
    params: Options = module.params
    certbot = Certbot(params["configuration"], params["name"])
    try:
        if params["state"] == "present":
            make_present(module, certbot)
        else:
            make_absent(module, certbot)
    except CertbotError as error:
        module.fail_json(
            msg=f"certbot failed, so nginx goes on with the certificate that it has:\n{error}\n"
            "docs/operations.md, section TLS certificates, has the causes. Correct it, and deploy again."
        )


if __name__ == "__main__":
    main()
