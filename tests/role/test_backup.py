"""What the role writes for the backup, and which keys a restore misses."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from plugins.filter.ag_ui_backup import missing_keys
from tests.support.role_templates import ROLE, inventory, render
from tests.support.site_playbook import REQUIRED_VARIABLES

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = 'with:a\\colon\' and "quotes" #'
RECIPIENT = f"age1{'q' * 58}"
KEYS = [{"setting": "MFA_KEY", "secret": "mfa_key", "previous": "MFA_PREVIOUS_KEYS"}]
HOSTS: dict[str, dict[str, dict[str, Any]]] = {"alone": {"alone-1": {}}}
VARIABLES = {
    "ag_ui_backup_database_password": PASSWORD,
    "ag_ui_backup_recipient": RECIPIENT,
    "ag_ui_backup_rsync_target": "/mnt/backups",
    "ag_ui_backup_schedule": "*-*-* 03:15:00",
}


S3 = {
    "ag_ui_backup_s3_target": "s3://backups/site",
    "ag_ui_backup_s3_endpoint": "https://s3.example:9000",
    "ag_ui_backup_s3_access_key_id": "AKIA",
    "ag_ui_backup_s3_secret_access_key": "a+secret/of=the#key;",
}


def written(folder: Path, name: str, **variables: object) -> str:
    """Return a file of /etc/ag-ui/backup as the role writes it."""
    template = folder / "template.j2"
    template.write_text(f"{{{{ __ag_ui_backup_files['{name}'] }}}}")
    output = folder / "output"
    output.mkdir()
    render(output, str(template), inventory(HOSTS, REQUIRED_VARIABLES | VARIABLES | variables))
    return (output / "alone-1").read_text()


def test_password_file_escapes_the_password(tmp_path: Path) -> None:
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    assert written(tmp_path, "pgpass").rstrip("\n") == f"*:*:*:shield_backup:{escaped}"


def test_program_reads_the_settings(tmp_path: Path) -> None:
    """`list` needs all settings, and prints the archives in the directory."""
    settings = json.loads(written(tmp_path, "settings.json"))
    assert settings["database"]["user"] == "shield_backup"
    assert settings["recipient"] == "/etc/ag-ui/backup/recipient"
    settings["directory"] = str(tmp_path)
    (tmp_path / "ag-ui-alone-1-20260101T000000Z.tar.age").touch()
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "ag_ui_backup", "--settings", tmp_path / "settings.json", "list"],
        cwd=ROLE / "files/host",
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0", str(tmp_path / "ag-ui-alone-1-20260101T000000Z.tar.age")]


def test_rclone_reads_its_configuration(tmp_path: Path) -> None:
    config = tmp_path / "rclone.conf"
    config.write_text(written(tmp_path, "rclone.conf", **S3))
    shown = subprocess.run(
        ["rclone", f"--config={config}", "config", "dump"],
        capture_output=True,
        text=True,
        check=True,
    )
    values = json.loads(shown.stdout)["backup"]
    assert values["endpoint"] == "https://s3.example:9000"
    assert values["access_key_id"] == "AKIA"
    assert values["secret_access_key"] == "a+secret/of=the#key;"


def test_settings_have_no_secret_of_s3(tmp_path: Path) -> None:
    text = written(tmp_path, "settings.json", **S3)
    assert json.loads(text)["s3"] == {
        "target": "s3://backups/site",
        "config": "/etc/ag-ui/backup/rclone.conf",
        "keep": 0,
        "keep_days": 0,
    }
    assert "a+secret" not in text


def test_key_of_a_former_target_does_not_stay_on_the_host(tmp_path: Path) -> None:
    assert written(tmp_path, "rclone.conf", **S3 | {"ag_ui_backup_s3_target": ""}).strip() == ""


def test_recipient_is_written(tmp_path: Path) -> None:
    assert written(tmp_path, "recipient").strip() == RECIPIENT


def test_unit_may_write_to_a_mounted_target(tmp_path: Path) -> None:
    hosts = inventory(HOSTS, REQUIRED_VARIABLES | VARIABLES)
    text = (render(tmp_path, "ag-ui-backup.service.j2", hosts) / "alone-1").read_text()
    assert "ReadWritePaths=/mnt/backups\n" in text
    assert "ExecStart=/usr/local/sbin/ag-ui-backup run\n" in text


def test_command_is_executable() -> None:
    assert (ROLE / "files/host/ag-ui-backup").stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize(
    ("given", "environment", "files", "is_missing"),
    [
        ("", {}, {"configuration/secrets/mfa_key": {}}, False),
        ("", {}, {}, True),
        ("key", {}, {}, False),
        ("another", {}, {}, True),
        ("another", {}, {"configuration/secrets/mfa_key": {}}, True),
        ("another", {"MFA_PREVIOUS_KEYS": "old,key"}, {}, False),
    ],
)
def test_missing_keys(
    given: str, environment: dict[str, str], files: dict[str, Any], *, is_missing: bool
) -> None:
    manifest = {"keys": {"MFA_KEY": hashlib.sha256(b"key").hexdigest()}, "files": files}
    found = missing_keys(KEYS, manifest, {"mfa_key": given}, environment)
    assert bool(found) == is_missing
    assert all(message.startswith("ag_ui_mfa_key ") for message in found)


def test_backup_without_a_key_misses_none() -> None:
    assert missing_keys(KEYS, {"keys": {}, "files": {}}, {"mfa_key": ""}, {}) == []
