"""Control one instance of the backend: start a release on trial, watch it, keep it, or go back."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_text_files import (
    write_atomically,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_units import (
    PERMANENT,
    TRIAL,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

POLL_SECONDS = 0.3
WATCH_POLL_SECONDS = 1.0
# Seconds within which an instance that has kept running must report healthy.
HEALTHY_AFTER_WATCH_SECONDS = 10.0
RESPONSE_TIMEOUT_SECONDS = 3
RESPONSE_MAX_BYTES = 1_000_000
READINESS_URL = re.compile(r"http://[^\s;'\"]+/health/ready")
ERROR_LEVELS = {"error", "critical"}
# Lines of a crash and log records that a message shows.
CRASH_LINES_MAX = 5
ERRORS_MAX = 2
# Ends the text of a unit under trial. systemd does not restart it after a failure, but starts the unit that goes back.
# After a clean exit, such as that of `docker stop`, it is restarted.
TRIAL_SETTINGS = """
[Unit]
OnFailure=ag-ui-recover@%i.service

[Service]
Restart=on-success
"""


def systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemctl and wait for it."""
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)


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
    except (OSError, ValueError):
        # A URL that is empty is a ValueError.
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

    def wait_until_healthy(self, url: str, timeout: float) -> str:
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


def watch(controls: Mapping[InstanceControl, str], seconds: float) -> str:
    """Watch healthy instances for a while.

    Args:
        controls: The instances, each with its invocation id when it was healthy.
        seconds: How long they must keep running. At the end they must be healthy.

    Returns:
        Why one of them did not keep running, in two lines with its last error; empty if all did.
    """
    began = time.monotonic()
    while True:
        elapsed = time.monotonic() - began
        for control, invocation in controls.items():
            is_same = control.instance.invocation() == invocation and control.trial.exists()
            if not is_same or not control.is_active():
                reason = f"it exited {elapsed:.0f} s after it was healthy"
                return control.describe_failure(reason)
        if elapsed >= seconds:
            break
        time.sleep(min(WATCH_POLL_SECONDS, seconds - elapsed))
    for control in controls:
        if reason := control.wait_until_healthy(HEALTHY_AFTER_WATCH_SECONDS):
            return control.describe_failure(reason)
    return ""


class InstanceControl:
    """The unit files of one instance: the permanent one, and the one under trial."""

    def __init__(
        self, unit: str, directory: Path = PERMANENT, trial_directory: Path = TRIAL
    ) -> None:
        """Note the time, because only later log entries belong to this attempt.

        Args:
            unit: Name of the unit of the instance, such as `ag-ui-backend@8002.service`.
            directory: Directory of the permanent units.
            trial_directory: Directory of the units under trial.
        """
        self.unit = unit
        name, _, rest = unit.partition("@")
        self.port = rest.removesuffix(".service")
        self.instance = Instance(unit, f"{name}-{self.port}")
        self.permanent = directory / unit
        self.trial = trial_directory / unit

    def start_trial(self, text: str, healthy_within: float) -> str:
        """Start the instance from a new unit that a reboot forgets, and that a failure removes.

        Args:
            text: Content of the unit.
            healthy_within: Seconds within which the ready instance must report healthy.

        Returns:
            Why the instance is not healthy; empty if it is.
        """
        with self._units_locked():
            write_atomically(self.trial, text + TRIAL_SETTINGS)
            systemctl("daemon-reload")
        reason = self.instance.start(self.readiness_url) or self.wait_until_healthy(healthy_within)
        if not reason and not self.trial.exists():
            # `recover` removed it, and the previous release is healthy.
            reason = "it exited before it was healthy"
        return reason

    def wait_until_healthy(self, timeout: float) -> str:
        """Wait for a healthy instance; return why it is not healthy after `timeout` seconds, else an empty string."""
        return self.instance.wait_until_healthy(self.readiness_url.removesuffix("/ready"), timeout)

    def is_active(self) -> bool:
        """Whether systemd reports the unit as active, which an instance is from its readiness on."""
        return systemctl("is-active", self.unit).returncode == 0

    def describe_failure(self, reason: str) -> str:
        """Return the reason and the last error of the instance, each on a line of its own."""
        last_error = self.instance.last_error() or "it logged none"
        return f"{self.unit} did not stay healthy: {reason}\nIts last error: {last_error}"

    def commit(self, text: str) -> bool:
        """Make a release permanent that has passed its trial; return whether it was not before.

        Args:
            text: Content of its unit.
        """
        with self._units_locked():
            is_tried, path = self.trial.exists(), self.permanent
            if not is_tried and path.exists() and path.read_text(encoding="utf-8") == text:
                return False
            write_atomically(path, text)
            self.trial.unlink(missing_ok=True)
            systemctl("daemon-reload")
        if not is_tried:
            # It failed after its trial, and `recover` started the previous release.
            systemctl("restart", self.unit)
        return True

    def roll_back(self) -> str:
        """End the trial: start the permanent unit, or stop the instance if there is none.

        Returns:
            What runs now; empty if there is no unit under trial, and nothing is wrong.
        """
        with self._units_locked():
            if self.trial.exists():
                return self._go_back()
            # After `recover`, systemd may be trying again to start the previous release.
            is_starting = systemctl("is-active", self.unit).stdout.strip() == "activating"
            return self.describe() if is_starting else ""

    def recover(self) -> str:
        """Go back if the instance has failed. systemd calls it when a unit under trial fails.

        systemd also does so when the former process fails as it is stopped for the trial, which then starts.

        Returns:
            What runs now; empty if the instance has not failed.
        """
        with self._units_locked():
            has_failed = systemctl("is-failed", self.unit).returncode == 0
            return self._go_back() if has_failed else ""

    def _go_back(self) -> str:
        tried = ""
        if self.trial.exists():
            tried = self.trial.read_text(encoding="utf-8").removesuffix(TRIAL_SETTINGS)
            self.trial.unlink()
        systemctl("daemon-reload")
        previous = systemctl("cat", self.unit)
        if previous.returncode != 0:
            systemctl("stop", self.unit)
            systemctl("reset-failed", self.unit)
        elif previous.stdout.endswith(tried) and self.is_active():
            return (
                "The instance keeps running: it is ready, and has no other release to go back to."
            )
        else:
            systemctl("restart", self.unit)
        return self.describe()

    def describe(self) -> str:
        """Return what an instance runs whose trial has ended."""
        if self.is_active():
            return "The instance runs its previous release again."
        if systemctl("cat", self.unit).returncode != 0:
            return "The instance is stopped: it has no other release to go back to."
        return f"Its previous release does not start either: see journalctl --unit {self.unit}."

    @contextmanager
    def _units_locked(self) -> Iterator[None]:
        """Wait until no other process changes the unit of an instance."""
        descriptor = os.open(self.permanent.parent, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @property
    def readiness_url(self) -> str:
        """The URL of the readiness probe in the unit that systemd uses."""
        for path in (self.trial, self.permanent):
            # Another process may end the trial.
            with suppress(FileNotFoundError):
                return (readiness_url(path.read_text(encoding="utf-8")) or "").replace(
                    "%i", self.port
                )
        return ""
