"""The playbooks of backup and restore refuse wrong variables and archives before they change anything."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.playbook import TOP, run_playbook
from tests.support.s3_server import (
    ACCESS_KEY_ID,
    BUCKET,
    REGION,
    SECRET_ACCESS_KEY,
    S3Server,
    running_s3_server,
)
from tests.support.site_playbook import REQUIRED_VARIABLES, inventory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.playbook import Run

PASSWORD = {"ag_ui_backup_database_password": "a-password-of-the-backup"}
UNENCRYPTED = {"ag_ui_backup_encryption": "none"}
NEWEST = max(
    path.name.split("_")[0]
    for path in TOP.glob("roles/ag_ui_deployment/files/backend/migrations/versions/*.py")
)
MFA_KEY = "m" * 48


def play(folder: Path, playbook: str, variables: dict[str, Any]) -> Run:
    hosts = inventory(folder, REQUIRED_VARIABLES | variables, None)
    return run_playbook(
        *("--check", "--inventory", hosts),
        *("--extra-vars", json.dumps({"ansible_become": False})),
        f"playbooks/{playbook}.yml",
    )


def assert_refused(done: Run, *words: str) -> None:
    """Assert that a run failed with these words before the tasks that change hosts."""
    assert done.code != 0, done.output
    assert [word for word in words if word not in done.message] == [], done.output
    assert sum(done.changes.values()) == 0
    assert not [task for task in done.tasks if "Install" in task or "Stop" in task], done.tasks


def archive(folder: Path, **changes: Any) -> Path:
    """Write an archive without a database; `changes` replace parts of the manifest."""
    content = b"a secret\n"
    name = "configuration/secrets/audit_key"
    manifest = {
        "format": 1,
        "name": "ag-ui-test",
        "image": "backend:1",
        "database": {"revision": NEWEST},
        "keys": {"AUDIT_KEY": hashlib.sha256(content.strip()).hexdigest()},
        "files": {name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}},
    }
    path = folder / "ag-ui-test.tar"
    with tarfile.open(path, "w") as tar:
        members = {"manifest.json": json.dumps(manifest | changes).encode(), name: content}
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_backup_needs_a_password_and_a_public_key(tmp_path: Path) -> None:
    assert_refused(play(tmp_path, "backup", {}), "ag_ui_backup_database_password is missing")
    done = play(tmp_path, "backup", PASSWORD)
    assert_refused(done, "needs ag_ui_backup_recipient, the public key that age-keygen prints")
    done = play(tmp_path, "backup", PASSWORD | {"ag_ui_backup_encryption": "gpg"})
    assert_refused(done, "the path of a file on the controller with the exported public key")


def test_a_schedule_needs_a_public_key_too(tmp_path: Path) -> None:
    done = play(tmp_path, "deploy", PASSWORD | {"ag_ui_backup_schedule": "daily"})
    assert_refused(done, "set ag_ui_backup_encryption to none", "ag_ui_backup_recipient")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ag_ui_backup_keep": 0}, "ag_ui_backup_keep is 0: it must lie between 1 and"),
        ({"ag_ui_backup_directory": "backups"}, "ag_ui_backup_directory is"),
        ({"ag_ui_backup_rsync_target": "--delete host:"}, "ag_ui_backup_rsync_target is"),
        ({"ag_ui_backup_encryption": "zip"}, "ag_ui_backup_encryption"),
        (
            {"ag_ui_backup_s3_target": "backups/site"},
            "it must be s3://bucket or s3://bucket/prefix",
        ),
        ({"ag_ui_backup_s3_endpoint": "nas:9000"}, "ag_ui_backup_s3_endpoint is"),
        ({"ag_ui_backup_s3_region": ""}, "ag_ui_backup_s3_region is missing"),
        ({"ag_ui_backup_s3_target": "s3://backups"}, "ag_ui_backup_s3_access_key_id is missing"),
        ({"ag_ui_backup_s3_target": "s3://b"}, "ag_ui_backup_s3_secret_access_key is missing"),
        (
            UNENCRYPTED | {"ag_ui_backup_s3_secret_access_key": "has%s(percent)"},
            "of rclone cannot have",
        ),
        (
            UNENCRYPTED | {"ag_ui_backup_s3_secret_access_key": "back\\slash"},
            "of rclone cannot have",
        ),
        ({"ag_ui_backup_s3_keep": -1}, "ag_ui_backup_s3_keep is -1: it must lie between 0 and"),
        ({"ag_ui_backup_s3_keep_days": -1}, "ag_ui_backup_s3_keep_days is -1"),
    ],
    ids=lambda it: next(iter(it)) if isinstance(it, dict) else "",
)
def test_invalid_values_are_named(tmp_path: Path, variables: dict[str, Any], words: str) -> None:
    assert_refused(play(tmp_path, "backup", PASSWORD | variables), words)


def test_restore_needs_an_archive_and_its_key(tmp_path: Path) -> None:
    done = play(tmp_path, "restore", {})
    assert_refused(done, "Set -e ag_ui_restore_archive to the path")
    done = play(tmp_path, "restore", {"ag_ui_restore_archive": "/nonexistent/a.tar"})
    assert_refused(done, "there is no file /nonexistent/a.tar")
    encrypted = tmp_path / "a.tar.age"
    encrypted.touch()
    done = play(tmp_path, "restore", {"ag_ui_restore_archive": str(encrypted)})
    assert_refused(done, "is encrypted. Set -e ag_ui_restore_identity")


def test_restore_refuses_a_damaged_archive(tmp_path: Path) -> None:
    path = archive(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"a secret", b"a sEcret"))
    done = play(tmp_path, "restore", {"ag_ui_restore_archive": str(path)})
    assert_refused(done, "is damaged: configuration/secrets/audit_key")


def test_restore_refuses_a_later_schema(tmp_path: Path) -> None:
    path = archive(tmp_path, database={"revision": "9999"})
    done = play(tmp_path, "restore", {"ag_ui_restore_archive": str(path)})
    assert_refused(done, "has the schema 9999", f"knows {NEWEST}")


@pytest.mark.parametrize(
    ("variables", "is_refused"),
    [
        ({}, True),
        ({"ag_ui_mfa_key": "n" * 48}, True),
        ({"ag_ui_mfa_key": MFA_KEY}, False),
        (
            {
                "ag_ui_mfa_key": "n" * 48,
                "ag_ui_environment": {"MFA_PREVIOUS_KEYS": f"{'o' * 48},{MFA_KEY}"},
            },
            False,
        ),
    ],
    ids=["not set", "another", "the same", "an earlier one"],
)
def test_restore_needs_the_keys_of_the_inventory(
    tmp_path: Path, variables: dict[str, Any], *, is_refused: bool
) -> None:
    """The key that signs the audit log is in the archive; that of second factors is not."""
    keys = {
        "AUDIT_KEY": hashlib.sha256(b"a secret").hexdigest(),
        "MFA_KEY": hashlib.sha256(MFA_KEY.encode()).hexdigest(),
    }
    path = archive(tmp_path, keys=keys)
    done = play(tmp_path, "restore", variables | {"ag_ui_restore_archive": str(path)})
    assert ("Second factors could not be read" in done.message) == is_refused, done.output
    assert ("audit_key" in done.message) is False


def test_restore_refuses_a_part_of_the_group(tmp_path: Path) -> None:
    path = archive(tmp_path)
    second = {"ag_ui_restore_archive": str(path)}
    hosts = inventory(tmp_path, REQUIRED_VARIABLES | second, None)
    text = hosts.read_text()
    hosts.write_text(text.replace("hosts:\n", "hosts:\n        hx-other-server: {}\n", 1))
    done = run_playbook(
        *("--check", "--inventory", hosts, "--limit", "hx-dev-server"),
        *("--extra-vars", json.dumps({"ansible_become": False})),
        "playbooks/restore.yml",
    )
    assert_refused(done, "hx-other-server would go on with other secrets")


def test_no_plain_archive_stays_on_the_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    path = archive(tmp_path, database={"revision": "9999"})
    assert play(tmp_path, "restore", {"ag_ui_restore_archive": str(path)}).code != 0
    left = subprocess.run(
        ["grep", "--recursive", "--files-with-matches", "a secret", tmp_path / "tmp"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert left.stdout == ""


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with running_s3_server() as server:
        yield server


def restore_from_s3(folder: Path, s3: S3Server, name: str, **variables: Any) -> Run:
    """Run the restore of an archive in the bucket, which ends at the check of its schema at the latest."""
    server = {
        "ag_ui_backup_s3_endpoint": s3.url,
        "ag_ui_backup_s3_region": REGION,
        "ag_ui_backup_s3_access_key_id": ACCESS_KEY_ID,
        "ag_ui_backup_s3_secret_access_key": SECRET_ACCESS_KEY,
        "ag_ui_backup_destination": str(folder / "fetched"),
        "ag_ui_restore_archive": f"s3://{BUCKET}/site/{name}",
    }
    return play(folder, "restore", server | variables)


def test_restore_fetches_an_archive_from_s3(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    path = archive(tmp_path, database={"revision": "9999"})
    s3.put(f"site/{path.name}", path.read_bytes())
    s3.put(
        f"site/{path.name}.sha256", f"{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
    )
    s3.put(f"site/{path.name}.other")
    done = restore_from_s3(tmp_path, s3, path.name)
    assert_refused(done, "has the schema 9999")
    fetched = sorted((tmp_path / "fetched").iterdir())
    assert [one.name for one in fetched] == [path.name, f"{path.name}.sha256"]
    assert fetched[0].read_bytes() == path.read_bytes()
    assert SECRET_ACCESS_KEY not in done.output
    assert list((tmp_path / "tmp").rglob("ag-ui-*")) == []


def test_restore_refuses_an_archive_that_cannot_be_fetched(tmp_path: Path, s3: S3Server) -> None:
    s3.put("site/ag-ui-test.tar")
    done = restore_from_s3(tmp_path, s3, "ag-ui-other.tar")
    assert_refused(done, "could not be fetched: there are only ag-ui-test.tar")
    done = restore_from_s3(tmp_path, s3, "ag-ui-test.tar", ag_ui_backup_destination="")
    assert_refused(done, "set -e ag_ui_backup_destination")
    s3.refuse_logins()
    done = restore_from_s3(tmp_path, s3, "ag-ui-test.tar")
    assert_refused(done, "could not be fetched: ", "InvalidAccessKeyId")
    assert SECRET_ACCESS_KEY not in done.output
