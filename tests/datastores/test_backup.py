"""The program that backs up and restores the site, with a real PostgreSQL."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.backup_site import APPLICATION, BACKUP, MFA_KEY, OWNER, POSITION, BackupSite
from tests.support.s3_server import BUCKET, SECRET_ACCESS_KEY, S3Server, running_s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def site(tmp_path: Path) -> Iterator[BackupSite]:
    site = BackupSite(tmp_path)
    yield site
    site.close()


@pytest.fixture
def unpacked(site: BackupSite) -> Path:
    """An archive, extracted."""
    done = site.unpack(site.back_up())
    assert done.returncode == 0, done.stderr
    return site.folder / "unpacked"


def gpg(home: Path, *arguments: str) -> str:
    home.mkdir(mode=0o700, exist_ok=True)
    command = ["gpg", f"--homedir={home}", "--batch", "--quiet", "--pinentry-mode=loopback"]
    done = subprocess.run(
        [*command, "--passphrase=", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def recipient_and_identity(folder: Path, encryption: str) -> tuple[Path, Path]:
    """Make a key pair; return the files of the public and of the private key."""
    public, private = folder / "public", folder / "private"
    if encryption == "age":
        subprocess.run(["age-keygen", "-o", private], check=True, capture_output=True)
        shown = subprocess.run(["age-keygen", "-y", private], check=True, capture_output=True)
        public.write_bytes(shown.stdout)
    else:
        home = folder / "gnupg"
        gpg(home, "--quick-generate-key", "backup@example.com", "rsa2048", "encrypt")
        public.write_text(gpg(home, "--armor", "--export"))
        private.write_text(gpg(home, "--armor", "--export-secret-keys"))
        subprocess.run(["gpgconf", f"--homedir={home}", "--kill", "all"], check=True)
    return public, private


def test_archive_has_the_whole_site(site: BackupSite, unpacked: Path) -> None:
    manifest = json.loads((unpacked / "manifest.json").read_text())
    assert manifest["database"]["tables"] == {
        "public.alembic_version": 1,
        "public.audit_log": 0,
        "public.events": 500,
    }
    assert manifest["database"]["revision"] == "0016"
    assert manifest["database"]["owner"] == OWNER
    assert set(manifest["database"]["roles"]) == {OWNER, APPLICATION}
    assert manifest["stream"] == POSITION
    assert manifest["image"] == "backend:1"
    assert manifest["keys"] == {"MFA_KEY": hashlib.sha256(MFA_KEY.encode()).hexdigest()}
    release = "configuration/releases/0123456789abcdef"
    for name in ("backend.env", "release.env", "record.json"):
        assert (unpacked / release / name).is_file()
    assert (unpacked / "configuration/secrets/mfa_key").read_text() == "secret of the test\n"
    assert (unpacked / "configuration/tls/server.key").read_text() == "key\n"
    assert (unpacked / f"files{site.folder}/site.conf").read_text() == "server {}\n"
    calls = (site.folder / "calls").read_text().splitlines()
    assert calls[-6:] == ["backend:1", "python", "-m", "src.cli", "stream", "position"]


def test_only_its_owner_can_read_an_archive_and_nothing_else_remains(site: BackupSite) -> None:
    archive = site.back_up()
    assert archive.stat().st_mode & 0o777 == 0o600
    beside = Path(f"{archive}.sha256")
    assert sorted(site.archives.iterdir()) == [archive, beside]
    subprocess.run(["sha256sum", "--check", beside.name], cwd=site.archives, check=True)
    assert site.databases() == {""}


@pytest.mark.parametrize("encryption", ["age", "gpg"])
def test_encrypted_archive_needs_the_private_key(site: BackupSite, encryption: str) -> None:
    public, private = recipient_and_identity(site.folder, encryption)
    archive = site.back_up(encryption=encryption, recipient=str(public))
    assert archive.name.endswith(f".tar.{encryption}")
    assert b"secret of the test" not in archive.read_bytes()
    done = site.unpack(archive)
    assert done.returncode == 1
    assert "is encrypted: name the file of the private key" in done.stderr
    done = site.unpack(archive, "--identity", private)
    assert done.returncode == 0, done.stderr
    unpacked = site.folder / "unpacked/configuration/secrets/mfa_key"
    assert unpacked.read_text() == "secret of the test\n"


def test_another_private_key_is_refused(site: BackupSite, tmp_path: Path) -> None:
    public, _ = recipient_and_identity(tmp_path, "age")
    archive = site.back_up(encryption="age", recipient=str(public))
    other = tmp_path / "other"
    other.mkdir()
    _, private = recipient_and_identity(other, "age")
    done = site.unpack(archive, "--identity", private)
    assert done.returncode == 1
    assert "age ended with 1" in done.stderr


def test_unusable_public_key_leaves_no_archive(site: BackupSite) -> None:
    (site.folder / "public").write_text("age1nothing\n")
    done = site.run("run", encryption="age", recipient=str(site.folder / "public"))
    assert done.returncode == 1
    assert "age ended with 1" in done.stderr
    assert list(site.archives.iterdir()) == []


def test_result_is_a_metric(site: BackupSite) -> None:
    archive = site.back_up()
    succeeded = site.result()["succeeded"]
    metrics = (site.metrics / "ag-ui-backup.prom").read_text().splitlines()
    assert "ag_ui_backup_ok 1" in metrics
    assert f"ag_ui_backup_last_success_timestamp_seconds {succeeded}" in metrics
    assert f"ag_ui_backup_size_bytes {archive.stat().st_size}" in metrics
    assert "ag_ui_backup_archives 1" in metrics
    wrong = site.settings["database"] | {"port": 1}
    done = site.run("run", database=wrong)
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
    assert site.result()["outcome"] == "failed"
    metrics = (site.metrics / "ag-ui-backup.prom").read_text().splitlines()
    assert "ag_ui_backup_ok 0" in metrics
    assert f"ag_ui_backup_last_success_timestamp_seconds {succeeded}" in metrics


def test_dump_that_cannot_be_restored_is_no_backup(site: BackupSite) -> None:
    """The function finds its table by the search path, which a restore does not have."""
    site.sql(
        f"SET ROLE {OWNER};"  # noqa: S608 - a name of our own
        "CREATE FUNCTION doubled(n bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN (SELECT count(*) FROM alembic_version) * n; END $$;"
        "CREATE INDEX ON events (doubled(id));"
    )
    done = site.run("run")
    assert done.returncode == 1
    assert "pg_restore ended with 1" in done.stderr
    assert 'relation "alembic_version" does not exist' in done.stderr
    assert list(site.archives.iterdir()) == []
    assert site.databases() == {""}


def test_backup_without_redis_has_no_position(site: BackupSite) -> None:
    (site.folder / "programs/docker").write_text("#!/bin/sh\necho 'Redis is down' >&2; exit 4\n")
    site.unpack(site.back_up())
    manifest = json.loads((site.folder / "unpacked/manifest.json").read_text())
    assert manifest["stream"] is None


def name_of(days_ago: int) -> str:
    """Return the name of an archive that was made this many days ago, and an hour."""
    made = datetime.now(UTC) - timedelta(days=days_ago, hours=1)
    return f"ag-ui-hx-dev-server-{made:%Y%m%dT%H%M%SZ}.tar.age"


def test_old_archives_are_removed_by_number_and_age(site: BackupSite) -> None:
    names = [name_of(day) for day in range(1, 6)]
    for name in names:
        (site.archives / name).touch()
        (site.archives / f"{name}.sha256").touch()
    (site.archives / "notes.txt").touch()
    archive = site.back_up(keep=4)
    left = {path.name for path in site.archives.iterdir() if not path.name.endswith(".sha256")}
    assert left == {archive.name, "notes.txt", *names[:3]}
    site.run("run", keep=4, keep_days=2)
    left = {path.name for path in site.archives.iterdir() if not path.name.endswith(".sha256")}
    assert archive.name in left
    assert names[0] in left
    assert names[1] not in left


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with running_s3_server() as server:
        yield server


def target(site: BackupSite, s3: S3Server, **values: int) -> dict[str, Any]:
    """Return the setting `s3` for a prefix of the bucket."""
    config = site.folder / "rclone.conf"
    s3.configure_rclone(config)
    kept = {"keep": 0, "keep_days": 0} | values
    return {"target": f"s3://{BUCKET}/site/one", "config": str(config)} | kept


def test_archive_is_copied_to_s3(site: BackupSite, s3: S3Server) -> None:
    settings = target(site, s3)
    archive = site.back_up(s3=settings)
    assert s3.names() == {f"site/one/{archive.name}", f"site/one/{archive.name}.sha256"}
    assert s3.read(f"site/one/{archive.name}") == archive.read_bytes()
    listed = site.run("list", s3=settings)
    size = str(archive.stat().st_size)
    assert [line.split() for line in listed.stdout.splitlines()] == [
        [size, str(archive)],
        [size, f"s3://{BUCKET}/site/one/{archive.name}"],
    ]


def test_old_archives_in_s3_are_removed_by_number_and_age(site: BackupSite, s3: S3Server) -> None:
    names = [name_of(day) for day in range(1, 6)]
    others = {
        "site/one/notes.txt",
        f"site/one/{names[4].replace('hx-dev-server', 'hx-other-server')}",
        f"site/two/{names[4]}",
        names[4],
    }
    for name in (*others, *(f"site/one/{name}{end}" for name in names for end in ("", ".sha256"))):
        s3.put(name)

    def left() -> set[str]:
        found = {name for name in s3.names() if not name.endswith(".sha256")}
        assert others < found
        assert {f"{name}.sha256" for name in found - others} < s3.names()
        return {name.removeprefix("site/one/") for name in found - others}

    never = site.back_up(s3=target(site, s3))
    assert left() == {never.name, *names}
    made = site.back_up(s3=target(site, s3, keep=4))
    assert left() == {made.name, never.name, *names[:2]}
    aged = site.back_up(s3=target(site, s3, keep_days=2))
    assert left() == {aged.name, made.name, never.name, names[0]}
    assert s3.names() == others | {
        f"site/one/{name}{end}" for name in left() for end in ("", ".sha256")
    }


def test_failed_copy_to_s3_is_a_failed_backup(site: BackupSite, s3: S3Server) -> None:
    missing = target(site, s3) | {"target": "s3://another-bucket"}
    assert "NoSuchBucket" in site.run("run", s3=missing).stderr
    s3.refuse_logins()
    done = site.run("run", keep=1, s3=target(site, s3))
    assert done.returncode == 1
    [archive] = site.archives.glob("*.tar")
    assert f"{archive} was made, and could not be copied to s3://{BUCKET}/site/one" in done.stderr
    assert "Forbidden" in done.stderr
    assert SECRET_ACCESS_KEY not in done.stdout + done.stderr
    assert site.result()["outcome"] == "failed"


def test_each_target_gets_the_archive_although_another_fails(
    site: BackupSite, s3: S3Server
) -> None:
    done = site.run("run", rsync_target="/nonexistent/deep/folder/", s3=target(site, s3))
    assert done.returncode == 1
    assert "could not be copied to /nonexistent/deep/folder/ (rsync ended with" in done.stderr
    assert len(s3.names()) == 2


def test_remains_of_an_interrupted_backup_are_removed(site: BackupSite) -> None:
    (site.archives / ".staging-abc/database").mkdir(parents=True)
    (site.archives / ".ag-ui-hx-dev-server-20260101T000000Z.tar.partial").touch()
    site.sql(f"CREATE DATABASE {site.database}_backup_check OWNER {BACKUP}", "postgres")
    archive = site.back_up()
    assert sorted(site.archives.iterdir()) == [archive, Path(f"{archive}.sha256")]
    assert site.databases() == {""}


def test_archive_is_copied_with_rsync(site: BackupSite) -> None:
    target = site.folder / "mounted"
    target.mkdir()
    archive = site.back_up(rsync_target=f"{target}/")
    assert (target / archive.name).read_bytes() == archive.read_bytes()
    assert (target / f"{archive.name}.sha256").exists()
    done = site.run("run", rsync_target="/nonexistent/deep/folder/")
    assert done.returncode == 1
    assert "rsync ended with" in done.stderr


@pytest.mark.parametrize("is_summed", [True, False])
def test_damaged_archive_is_refused(site: BackupSite, *, is_summed: bool) -> None:
    archive = site.back_up()
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"secret of the test", b"forged of the test"))
    if not is_summed:
        Path(f"{archive}.sha256").unlink()
    done = site.unpack(archive)
    assert done.returncode == 1
    assert "is damaged" in done.stderr


def test_cut_archive_is_refused(site: BackupSite) -> None:
    archive = site.back_up()
    Path(f"{archive}.sha256").unlink()
    os.truncate(archive, archive.stat().st_size // 2)
    done = site.unpack(archive)
    assert done.returncode == 1
    assert "is not a whole archive" in done.stderr


def test_restored_database_replaces_the_present_one(site: BackupSite, unpacked: Path) -> None:
    assert unpacked.is_dir()
    site.sql("DELETE FROM events WHERE id > 100; INSERT INTO audit_log VALUES (1)")
    checked = json.loads(site.restore("check").stdout)
    assert checked["content"]
    assert not checked["restored"]
    for step in ("load", "exchange"):
        done = site.restore(step)
        assert done.returncode == 0, done.stderr
    assert json.loads(site.restore("check").stdout)["restored"]
    assert site.restore("finish").returncode == 0
    assert not json.loads(site.restore("check").stdout)["restored"]
    assert site.sql("SELECT count(*) FROM events") == ["500"]
    assert site.sql("SELECT count(*) FROM audit_log") == ["0"]
    assert site.databases() == {"", "_before_restore"}
    former = f"{site.database}_before_restore"
    assert site.sql("SELECT count(*) FROM audit_log", former) == ["1"]


def test_restored_database_has_the_same_rights(site: BackupSite, unpacked: Path) -> None:
    assert unpacked.is_dir()
    rights = "SELECT relname, relacl FROM pg_class WHERE relacl IS NOT NULL AND relname ~ '^(audit|events)' ORDER BY 1"
    before = site.sql(rights)
    assert site.restore("load").returncode == 0
    assert site.restore("exchange").returncode == 0
    assert site.sql(rights) == before
    assert before
    may = "SELECT has_database_privilege('{}', current_database(), 'CONNECT')"
    assert site.sql(may.format(APPLICATION)) == ["t"]
    assert site.sql(may.format("pg_monitor")) == ["f"]


def test_restore_to_a_server_without_the_database(site: BackupSite, unpacked: Path) -> None:
    assert unpacked.is_dir()
    site.sql(f"DROP DATABASE {site.database}", "postgres")
    assert json.loads(site.restore("check").stdout) == {
        "version": json.loads((unpacked / "manifest.json").read_text())["database"]["version"],
        "exists": False,
        "content": False,
        "restored": False,
    }
    for step in ("load", "exchange", "finish"):
        done = site.restore(step)
        assert done.returncode == 0, done.stderr
    assert site.databases() == {""}
    assert site.sql("SELECT count(*) FROM events") == ["500"]


def test_failing_restore_keeps_the_present_database(site: BackupSite, unpacked: Path) -> None:
    files = (unpacked / "database").glob("*.gz")
    data = max(files, key=lambda path: path.stat().st_size)
    os.truncate(data, data.stat().st_size // 2)
    done = site.restore("load")
    assert done.returncode == 1
    assert "pg_restore ended with 1" in done.stderr
    assert site.sql("SELECT count(*) FROM events") == ["500"]


def test_unfitting_servers_are_refused(site: BackupSite, unpacked: Path) -> None:
    done = site.restore("check", user=BACKUP)
    assert f"the tables of the dump belong to {OWNER}" in done.stderr
    manifest = json.loads((unpacked / "manifest.json").read_text())
    manifest["database"]["roles"].append("a_role_of_the_lost_server")
    (unpacked / "manifest.json").write_text(json.dumps(manifest))
    done = site.restore("check")
    assert "does not have: a_role_of_the_lost_server" in done.stderr
    manifest["database"]["version"] = 99
    (unpacked / "manifest.json").write_text(json.dumps(manifest))
    done = site.restore("check")
    assert "is from PostgreSQL 99" in done.stderr
    site.sql(f"ALTER ROLE {OWNER} NOCREATEDB", "postgres")
    manifest["database"]["version"] = 1
    (unpacked / "manifest.json").write_text(json.dumps(manifest))
    done = site.restore("check")
    assert "CREATEDB" in done.stderr
