#!/usr/bin/python
"""Switch one instance to a release, and roll back if it does not become healthy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, TypedDict

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

DOCUMENTATION = r"""
---
module: ag_ui_instance
short_description: Switch one instance to a release, and roll back if it does not become healthy
description:
  - Writes the unit of the release to O(trial_directory), which overrides O(directory) and is emptied by a reboot,
    and restarts the instance. When the instance is ready and healthy, its unit is written to O(directory). A reboot
    or a crash at any time therefore starts the last healthy release.
  - If the instance fails, the module restarts it with the unit in O(directory), or stops it if there is none, and
    fails with the reason.
options:
  unit:
    description: Name of the unit of the instance, such as C(ag-ui-backend@8002.service).
    type: str
    required: true
  source:
    description: Unit file of the release.
    type: path
    required: true
  healthy_within:
    description: Seconds within which a ready instance must report healthy.
    type: int
    default: 30
  directory:
    description: Directory of the permanent units.
    type: path
    default: /etc/systemd/system
  trial_directory:
    description: Directory of the unit under trial. It must override O(directory), and a reboot must empty it.
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
  description: Why the instance did not become ready or healthy, from the response of its own health check.
  returned: failure
  type: str
last_error:
  description: The last error in the log of the instance, or the last lines of a crash; empty if there is none.
  returned: failure
  type: str
"""

POLL_SECONDS = 0.3
RESPONSE_TIMEOUT_SECONDS = 3
RESPONSE_MAX_BYTES = 1_000_000
READINESS_URL = re.compile(r"http://[^\s;'\"]+/health/ready")
ERROR_LEVELS = {"error", "critical"}
# Lines of a crash and log records that a message shows.
CRASH_LINES_MAX = 5
ERRORS_MAX = 2


class Options(TypedDict):
    """The options of the module."""

    unit: str
    source: str
    healthy_within: int
    directory: str
    trial_directory: str


def systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemctl and wait for it."""
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file atomically, so that a crash leaves either the old or the new content."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(0o644)
    temporary.replace(path)


def get_json(url: str) -> tuple[int, dict[str, Any]]:
    """Send a GET request.

    Args:
        url: URL of the instance; proxies are not used.

    Returns:
        Status and JSON object of the response. The object is empty if the body is not one; the status
        is 0 if there was no response.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=RESPONSE_TIMEOUT_SECONDS) as response:
            status, body = response.status, response.read(RESPONSE_MAX_BYTES)
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read(RESPONSE_MAX_BYTES)
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
    failed = [
        f"{name}: {check.get('detail', 'no detail')}"
        for name, check in checks.items()
        if check.get("status") != "ok"
    ]
    return "; ".join(failed) or f"/health reports {document.get('status', 'no status')}"


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
        self.started_at = time.time()

    def start(self, url: str) -> str:
        """Restart the unit and wait until it is ready; return the reason if it is not, else an empty string."""
        reason, previous, is_new = "", self.invocation(), False
        with subprocess.Popen(
            ["systemctl", "restart", self.unit],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as restart:
            while restart.poll() is None:
                # Until systemd has stopped the previous process, that one answers.
                is_new = is_new or self.invocation() != previous
                status, document = get_json(url) if is_new else (0, {})
                if status not in {0, 200}:
                    reason = str(document.get("detail") or f"{url} returns {status}")
                time.sleep(POLL_SECONDS)
        if restart.returncode == 0:
            return ""
        return reason or f"it exited, or {url} did not respond in time"

    def invocation(self) -> str:
        """Return the invocation id of the unit, which is different for each start."""
        return systemctl("show", "--property=InvocationID", "--value", self.unit).stdout.strip()

    def wait_until_healthy(self, url: str, timeout: int) -> str:
        """Poll `url` for up to `timeout` seconds; return the reason if it is not healthy, else an empty string."""
        deadline = time.monotonic() + timeout
        while True:
            status, document = get_json(url)
            if document.get("status") == "healthy":
                return ""
            if time.monotonic() >= deadline:
                return health_reason(document) if status else f"{url} does not respond"
            time.sleep(POLL_SECONDS)

    def last_error(self) -> str:
        """Return the last errors logged since this object was created, or the last lines of a crash."""
        journal = subprocess.run(
            [
                *("journalctl", "--identifier", self.log_identifier, "--output", "cat"),
                *("--since", f"@{int(self.started_at)}", "--lines", "1000", "--no-pager"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        # `docker stop` prints the name of the container, which is the identifier too.
        lines = [
            line for line in journal.stdout.splitlines() if line.strip() != self.log_identifier
        ]
        return last_error_of(lines)


def format_error(record: dict[str, Any]) -> str:
    """Format a log record as event and cause; of a traceback only the last line."""
    cause = str(record.get("error") or record.get("exception") or "").strip()
    event = str(record.get("event", "")).strip()
    return ": ".join(text.splitlines()[-1] for text in (event, cause) if text)


def last_error_of(lines: list[str]) -> str:
    """Find the last errors in a log.

    It returns more than one, because a server that cannot start logs the cause first and the failed
    start after it.

    Args:
        lines: Lines of the log, oldest first. Lines that are not JSON come from a crash.

    Returns:
        One error or line of a crash per line; empty if there is none.
    """
    crash: list[str] = []
    errors: list[str] = []
    for line in reversed([line for line in lines if line.strip()]):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            if crash or len(errors) == ERRORS_MAX:
                break
            if record.get("level") in ERROR_LEVELS:
                errors.insert(0, format_error(record))
        elif not errors and len(crash) < CRASH_LINES_MAX:
            crash.insert(0, line.strip())
    return "\n".join(crash or errors)


def readiness_url(unit_text: str) -> str | None:
    """Find the URL of the readiness probe in the text of a unit; `%i` is not replaced."""
    match = READINESS_URL.search(unit_text)
    return match[0] if match else None


class Deployment:
    """The unit files of one instance: the permanent one, and the one under trial."""

    def __init__(self, params: Options) -> None:
        """Read the unit file of the release; `params` are the options of the module."""
        self.unit: str = params["unit"]
        port = self.unit.partition("@")[2].removesuffix(".service")
        self.instance = Instance(self.unit, f"{self.unit.partition('@')[0]}-{port}")
        self.permanent = Path(params["directory"], self.unit)
        self.trial = Path(params["trial_directory"], self.unit)
        self.text = Path(params["source"]).read_text(encoding="utf-8")
        self.url = (readiness_url(self.text) or "").replace("%i", port)
        self.healthy_within: int = params["healthy_within"]
        self.ready = False

    def reload(self) -> None:
        """Make systemd reload its unit files."""
        systemctl("daemon-reload")

    def start_trial(self) -> str:
        """Start the instance from the new unit; return why it is not healthy, else an empty string."""
        write_atomically(self.trial, self.text)
        self.reload()
        reason = self.instance.start(self.url)
        self.ready = not reason
        return reason or self.instance.wait_until_healthy(
            self.url.removesuffix("/ready"), self.healthy_within
        )

    def commit(self) -> None:
        """Make the new unit permanent, and end the trial."""
        write_atomically(self.permanent, self.text)
        self.trial.unlink()
        self.reload()

    def roll_back(self) -> str:
        """Roll back to the permanent unit, or stop the instance if there is none; describe the result."""
        self.trial.unlink(missing_ok=True)
        self.reload()
        previous = systemctl("cat", self.unit)
        has_previous = previous.returncode == 0 and not previous.stdout.endswith(self.text)
        if not has_previous and previous.returncode == 0 and self.ready:
            return (
                "The instance keeps running: it is ready, and has no other release to go back to."
            )
        if not has_previous:
            systemctl("stop", self.unit)
            systemctl("reset-failed", self.unit)
            return "The instance is stopped: it has no other release to go back to."
        if systemctl("restart", self.unit).returncode == 0:
            return "The instance runs its previous release again."
        return f"Its previous release does not start either: see journalctl --unit {self.unit}."


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
    deployment = Deployment(module.params)
    reason = deployment.start_trial()
    if not reason:
        deployment.commit()
        module.exit_json(changed=True)
    last_error = deployment.instance.last_error()
    module.fail_json(
        msg=f"{deployment.unit} did not become healthy: {reason}\n"
        f"Its last error: {last_error or 'it logged none'}\n{deployment.roll_back()}",
        reason=reason,
        last_error=last_error,
    )


if __name__ == "__main__":
    main()
