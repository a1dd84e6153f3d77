#!/usr/bin/python
"""Switch one instance to a release, and roll it back if it does not become healthy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

DOCUMENTATION = r"""
---
module: ag_ui_instance
short_description: Switch one instance to a release, and switch it back if it does not become healthy
description:
  - The unit of the release is tried from a directory that systemd prefers and a reboot empties. Only a
    unit whose instance has become ready and healthy replaces the one that is kept, so that a reboot or
    a crash at any moment starts the last good release.
  - An instance that fails is put back to the unit that is kept, or stopped where there is none.
options:
  unit:
    description: Name of the unit of the instance.
    type: str
    required: true
  source:
    description: Unit file of the release.
    type: path
    required: true
  healthy_within:
    description: Seconds that an instance that is ready may take to report healthy.
    type: int
    default: 30
  directory:
    description: Where the units are kept.
    type: path
    default: /etc/systemd/system
  trial_directory:
    description: Where a unit is tried; systemd prefers it to C(directory), and a reboot empties it.
    type: path
    default: /run/systemd/system.control
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Switch an instance
  hx_citadel.shield_ag_ui.ag_ui_instance:
    unit: ag-ui-backend@8002.service
    source: /etc/ag-ui/releases/0123456789abcdef/ag-ui-backend@.service
"""

RETURN = r"""
reason:
  description: Why the instance did not become healthy, in the words of its own check.
  returned: failure
  type: str
last_error:
  description: The last error in the log of the instance; empty if it logged none.
  returned: failure
  type: str
"""

POLL_SECONDS = 0.3
ANSWER_WITHIN = 3
ANSWER_MAX_BYTES = 1_000_000
READINESS = re.compile(r"http://[^\s;'\"]+/health/ready")
ERROR_LEVELS = {"error", "critical"}
PLAIN_LINES_SHOWN = 5
ERRORS_SHOWN = 2


def systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemctl and wait for it."""
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)


def write(path: Path, text: str) -> None:
    """Replace a file atomically, so that a crash leaves either the old or the new content."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.chmod(0o644)
    fresh.replace(path)


def ask(url: str) -> tuple[int, dict[str, Any]]:
    """Send a GET request.

    Args:
        url: URL of the instance; proxies are not used.

    Returns:
        Status and JSON object of the response. The object is empty if the body is not one; the status
        is 0 if there was no response.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=ANSWER_WITHIN) as answer:
            status, body = answer.status, answer.read(ANSWER_MAX_BYTES)
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read(ANSWER_MAX_BYTES)
    except OSError:
        return 0, {}
    try:
        document = json.loads(body)
    except ValueError:
        return status, {}
    return status, document if isinstance(document, dict) else {}


def health_reason(document: dict[str, Any]) -> str:
    """Return name and detail of each failed check in a response of /health."""
    checks = document.get("checks", {})
    failing = [
        f"{name}: {check.get('detail', 'no detail')}"
        for name, check in checks.items()
        if check.get("status") != "ok"
    ]
    return "; ".join(failing) or f"/health says {document.get('status', 'nothing')}"


class Instance:
    """The systemd unit of one instance."""

    def __init__(self, unit: str, log_identifier: str) -> None:
        """Note the time, because only later log entries belong to this attempt.

        Args:
            unit: Name of the unit.
            log_identifier: Its SyslogIdentifier.
        """
        self.unit = unit
        self.log_identifier = log_identifier
        self.begun = time.time()

    def start(self, url: str) -> str:
        """Restart the unit and wait until it is ready; return the reason if it is not, else an empty string."""
        reason, former, is_new = "", self.invocation(), False
        with subprocess.Popen(
            ["systemctl", "restart", self.unit],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as restart:
            while restart.poll() is None:
                # Until systemd has stopped the previous process, that one answers.
                is_new = is_new or self.invocation() != former
                status, document = ask(url) if is_new else (0, {})
                if status not in {0, 200}:
                    reason = str(document.get("detail") or f"{url} answers {status}")
                time.sleep(POLL_SECONDS)
        if restart.returncode == 0:
            return ""
        return reason or f"it ended, or did not answer {url} in time"

    def invocation(self) -> str:
        """Return the invocation id of the unit, which is different for each start."""
        return systemctl("show", "--property=InvocationID", "--value", self.unit).stdout.strip()

    def wait_until_healthy(self, url: str, within: int) -> str:
        """Poll `url` for up to `within` seconds; return the reason if it is not healthy, else an empty string."""
        deadline = time.monotonic() + within
        while True:
            status, document = ask(url)
            if document.get("status") == "healthy":
                return ""
            if time.monotonic() >= deadline:
                return health_reason(document) if status else f"nothing answers {url}"
            time.sleep(POLL_SECONDS)

    def last_error(self) -> str:
        """Return the last errors logged since this object was created, or the last lines of a crash."""
        read = subprocess.run(
            [
                *("journalctl", "--identifier", self.log_identifier, "--output", "cat"),
                *("--since", f"@{int(self.begun)}", "--lines", "1000", "--no-pager"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        # `docker stop` prints the name of the container, which is the identifier too.
        lines = [line for line in read.stdout.splitlines() if line.strip() != self.log_identifier]
        return last_error_of(lines)


def error_in(record: dict[str, Any]) -> str:
    """Format a log record as event and cause; of a traceback only the last line."""
    cause = str(record.get("error") or record.get("exception") or "").strip()
    said = str(record.get("event", "")).strip()
    return ": ".join(text.splitlines()[-1] for text in (said, cause) if text)


def last_error_of(lines: list[str]) -> str:
    """Find the last errors in a log.

    It returns more than one, because a server that cannot start logs the cause first and the failed
    start after it.

    Args:
        lines: Lines of the log, oldest first. Lines that are not JSON come from a crash.

    Returns:
        One error or line of a crash per line; empty if there is none.
    """
    plain: list[str] = []
    errors: list[str] = []
    for line in reversed([line for line in lines if line.strip()]):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            if plain or len(errors) == ERRORS_SHOWN:
                break
            if record.get("level") in ERROR_LEVELS:
                errors.insert(0, error_in(record))
        elif not errors and len(plain) < PLAIN_LINES_SHOWN:
            plain.insert(0, line.strip())
    return "\n".join(plain or errors)


def readiness_url(unit_text: str) -> str | None:
    """Find the URL of the readiness probe in the text of a unit; `%i` is not replaced."""
    found = READINESS.search(unit_text)
    return found[0] if found else None


class Switch:
    """The unit files of one instance: the permanent one, and the one under trial."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        """Read the unit file of the release; `wanted` has the parameters of the module."""
        self.unit: str = wanted["unit"]
        port = self.unit.partition("@")[2].removesuffix(".service")
        self.instance = Instance(self.unit, f"{self.unit.partition('@')[0]}-{port}")
        self.kept = Path(wanted["directory"], self.unit)
        self.tried = Path(wanted["trial_directory"], self.unit)
        self.text = Path(wanted["source"]).read_text(encoding="utf-8")
        self.url = (readiness_url(self.text) or "").replace("%i", port)
        self.healthy_within: int = wanted["healthy_within"]
        self.ready = False

    def reload(self) -> None:
        """Make systemd reload its unit files."""
        systemctl("daemon-reload")

    def attempt(self) -> str:
        """Start the instance from the new unit; return why it is not healthy, else an empty string."""
        write(self.tried, self.text)
        self.reload()
        reason = self.instance.start(self.url)
        self.ready = not reason
        return reason or self.instance.wait_until_healthy(
            self.url.removesuffix("/ready"), self.healthy_within
        )

    def keep(self) -> None:
        """Make the new unit permanent, and end the trial."""
        write(self.kept, self.text)
        self.tried.unlink()
        self.reload()

    def put_back(self) -> str:
        """Roll back to the permanent unit, or stop the instance if there is none; describe the result."""
        self.tried.unlink(missing_ok=True)
        self.reload()
        before = systemctl("cat", self.unit)
        no_other = before.returncode != 0 or before.stdout.endswith(self.text)
        if no_other and before.returncode == 0 and self.ready:
            return (
                "The instance goes on running: it is ready, and has no other release to go back to."
            )
        if no_other:
            systemctl("stop", self.unit)
            systemctl("reset-failed", self.unit)
            return "The instance is stopped: it has no other release to go back to."
        if systemctl("restart", self.unit).returncode == 0:
            return "The instance runs its release of before again."
        return f"Its release of before does not start either: see journalctl --unit {self.unit}."


def main() -> None:
    """Switch the instance; if that fails, roll back and fail with the reason."""
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "source": {"type": "path", "required": True},
            "healthy_within": {"type": "int", "default": 30},
            "directory": {"type": "path", "default": "/etc/systemd/system"},
            "trial_directory": {"type": "path", "default": "/run/systemd/system.control"},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True)
    switch = Switch(module.params)
    reason = switch.attempt()
    if not reason:
        switch.keep()
        module.exit_json(changed=True)
    last_error = switch.instance.last_error()
    module.fail_json(
        msg=f"{switch.unit} did not become healthy: {reason}\n"
        f"Its last error: {last_error or 'it logged none'}\n{switch.put_back()}",
        reason=reason,
        last_error=last_error,
    )


if __name__ == "__main__":
    main()
