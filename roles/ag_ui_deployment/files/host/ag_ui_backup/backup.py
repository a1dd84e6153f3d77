"""Make one archive of the site, verify it, and remove old ones.

An archive appears under its name only after it was verified. A backup that is interrupted leaves files that the next
one removes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import archives, bucket, programs, status
from .archives import Member
from .errors import BackupError
from .postgresql import Server, count_query

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .settings import S3, Settings

PREFIX = "ag-ui-"
STAGING = ".staging-"
PARTIAL = ".partial"
_TIME = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(
    rf"{PREFIX}(?P<host>.+)-(?P<time>[0-9]{{8}}T[0-9]{{6}}Z)({'|'.join(map(re.escape, archives.SUFFIXES.values()))})"
)
# Keys of the backend without which stored data cannot be used; the manifest has their digests.
_KEYS = ("JWT_SECRET", "MFA_KEY", "AUDIT_KEY")
_ROLES = """
SELECT json_build_object(
  'owner', pg_get_userbyid(datdba),
  'encoding', pg_encoding_to_char(encoding),
  'size', pg_database_size(oid),
  'roles', (
    SELECT coalesce(json_agg(DISTINCT pg_get_userbyid(acl.grantee)), '[]')
      FROM pg_class, aclexplode(relacl) AS acl WHERE acl.grantee <> 0 AND relnamespace::regnamespace::text !~ '^pg_'
       AND relnamespace::regnamespace::text <> 'information_schema'),
  'revision', (SELECT max(version_num) FROM alembic_version)
) FROM pg_database WHERE datname = current_database()
"""


def run(settings: Settings) -> dict[str, Any]:
    """Make a backup and store its result; return the result.

    Raises:
        BackupError: It failed; the result says so too.
    """
    with _lock(settings):
        began = time.time()
        last = status.read(settings)
        result: dict[str, Any] = {"outcome": "failed", "reason": "it was interrupted"}
        result |= {key: last[key] for key in ("succeeded", "archive", "size") if key in last}
        try:
            archive = _make(settings)
            result |= {
                "outcome": "ok",
                "reason": "",
                "succeeded": round(time.time()),
                "archive": str(archive),
                "size": archive.stat().st_size,
            }
            _prune(settings)
            _copy_elsewhere(settings, archive)
        except (BackupError, OSError) as error:
            result |= {"outcome": "failed", "reason": str(error)}
            raise BackupError(str(error)) from error
        finally:
            result |= {
                "finished": round(time.time()),
                "seconds": round(time.time() - began, 1),
                "archives": len(kept(settings)),
            }
            status.write(settings, result)
    print(
        f"backup: {result['archive']}, {result['size']} bytes, in {result['seconds']} s", flush=True
    )
    return result


def kept(settings: Settings) -> list[Path]:
    """Return the archives on this host, newest first."""
    found = [path for path in settings.directory.glob(f"{PREFIX}*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: _time(path.name), reverse=True)


def obsolete(names: Iterable[str], keep: int, keep_days: int) -> list[str]:
    """Return which archives are too many or too old; the newest one never is.

    Args:
        names: Names of archives, which contain their time.
        keep: The number to keep; 0 for any number.
        keep_days: The age in days up to which they are kept; 0 for any age.
    """
    newest_first = sorted(names, key=_time, reverse=True)
    limit = (datetime.now(timezone.utc) - timedelta(days=keep_days)).strftime(_TIME)
    return [
        name
        for number, name in enumerate(newest_first[1:], start=1)
        if (keep and number >= keep) or (keep_days and _time(name) < limit)
    ]


def _time(name: str) -> str:
    found = _NAME.fullmatch(name)
    return found["time"] if found else ""


@contextmanager
def _lock(settings: Settings) -> Iterator[None]:
    with (settings.state / "backup.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BackupError("another backup is running; wait for it") from error
        yield


def _make(settings: Settings) -> Path:
    _remove_remains(settings)
    name = f"{PREFIX}{settings.host}-{datetime.now(timezone.utc).strftime(_TIME)}"
    target = settings.directory / (name + archives.SUFFIXES[settings.encryption])
    partial = target.with_name(f".{target.name}{PARTIAL}")
    with tempfile.TemporaryDirectory(prefix=STAGING, dir=settings.directory) as staging:
        try:
            manifest, members = _collect(settings, name, Path(staging))
            with _timed("archive written and read again"):
                digest = archives.write(
                    partial, members, manifest, settings.encryption, settings.recipient
                )
            _verify(settings, manifest["database"], Path(staging) / "database")
            status.write_atomically(Path(f"{target}.sha256"), f"{digest}  {target.name}\n", 0o600)
            partial.replace(target)
            _sync(settings.directory)
        finally:
            partial.unlink(missing_ok=True)
    return target


def _collect(settings: Settings, name: str, staging: Path) -> tuple[dict[str, Any], list[Member]]:
    """Dump the database and list all files of the archive; return its manifest and the files."""
    release = settings.configuration / "current"
    environment = _environment(release / "release.env")
    # Before the database: everything that was acknowledged by then is in the dump.
    stream = _stream_position(settings, environment.get("AG_UI_IMAGE", ""))
    database = _dump(settings, staging / "database")
    members = [*_below(staging / "database", "database"), *_configuration(settings, release)]
    backend = _environment(release / "backend.env")
    manifest = {
        "format": archives.FORMAT,
        "name": name,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "host": settings.host,
        "image": environment.get("AG_UI_IMAGE", ""),
        "release": environment.get("AG_UI_RELEASE", ""),
        "database": database,
        "stream": stream,
        "keys": {
            key: hashlib.sha256(backend[key].encode()).hexdigest()
            for key in _KEYS
            if key in backend
        },
        "files": archives.described(members),
    }
    return manifest, members


def _dump(settings: Settings, directory: Path) -> dict[str, Any]:
    server = Server(settings.database)
    version = server.version()
    with server.snapshot() as snapshot:
        exported = snapshot.ask("SELECT pg_export_snapshot()")
        facts: dict[str, Any] = json.loads(snapshot.ask(_ROLES.replace("\n", " ")))
        tables: dict[str, int] = json.loads(snapshot.ask(count_query(server.tables())))
        with _timed(f"{sum(tables.values())} rows of {len(tables)} tables dumped"):
            server.dump(directory, exported, version)
    client = int(server.program("pg_dump", version).parent.parent.name)
    return {
        **facts,
        "name": settings.database.name,
        "version": version,
        "client": client,
        "tables": tables,
    }


def _verify(settings: Settings, database: Mapping[str, Any], dump: Path) -> None:
    """Restore the dump into a scratch database, which is dropped afterwards."""
    server = Server(settings.database)
    scratch = f"{settings.database.name}_backup_check"
    with _timed("restored into a scratch database"):
        server.create_empty(scratch)
        try:
            server.restore(dump, scratch, database["client"], "--no-privileges")
            compare(server.counts(scratch), database["tables"])
        finally:
            server.drop(scratch)


def compare(found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Compare the rows of a restored database with those of the dumped one.

    Raises:
        BackupError: They differ.
    """
    differing = [
        f"{table} has {found.get(table, 'no')} rows instead of {expected.get(table, 'no')}"
        for table in sorted(found.keys() | expected.keys())
        if found.get(table) != expected.get(table)
    ]
    if differing:
        raise BackupError(f"the restored database differs: {'; '.join(differing)}")


def _stream_position(settings: Settings, image: str) -> dict[str, Any] | None:
    """Return the position of the consumer group in the stream; None if Redis does not answer."""
    if not image:
        raise BackupError(f"{settings.configuration}/current names no image: deploy first")
    command = [
        *("docker", "run", "--rm", "--pull=never", "--network=host", "--read-only"),
        *("--cap-drop=ALL", "--security-opt=no-new-privileges", f"--user={settings.user}"),
        f"--volume={settings.configuration}/current/backend.env:/app/.env:ro",
        *(image, "python", "-m", "src.cli", "stream", "position"),
    ]
    try:
        position: dict[str, Any] = json.loads(programs.run(command))
    except (BackupError, ValueError) as error:
        print(f"backup: without the position in the stream: {error}", flush=True)
        return None
    return position


def _configuration(settings: Settings, release: Path) -> Iterator[Member]:
    """Yield the files of the configuration, the current release, and those of nginx and systemd."""
    for folder in ("secrets", "tls"):
        yield from _below(settings.configuration / folder, f"configuration/{folder}")
    yield from _below(release.resolve(), f"configuration/releases/{release.resolve().name}")
    for path in settings.files:
        if path.is_file():
            yield Member(f"files/{str(path).lstrip('/')}", path)


def _below(directory: Path, name: str) -> Iterator[Member]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield Member(f"{name}/{path.relative_to(directory)}", path)


def _environment(path: Path) -> dict[str, str]:
    """Read an environment file of the role; values can be in single quotes."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BackupError(f"{path} cannot be read ({error.strerror}): deploy first") from error
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name: _unquoted(value) for name, _, value in pairs}


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == "'":
        return value[1:-1].replace("\\'", "'").replace("\\\\", "\\")
    return value


def _prune(settings: Settings) -> None:
    names = [path.name for path in kept(settings)]
    for name in obsolete(names, settings.keep, settings.keep_days):
        for path in (settings.directory / name, settings.directory / f"{name}.sha256"):
            path.unlink(missing_ok=True)
        print(f"backup: removed {name}", flush=True)


def _copy_elsewhere(settings: Settings, archive: Path) -> None:
    """Copy the archive to each target, also if it cannot be copied to another one."""
    failures = []
    for copy in (_copy_with_rsync, _copy_to_s3):
        try:
            copy(settings, archive)
        except BackupError as error:
            failures.append(str(error))
    if failures:
        raise BackupError(
            f"{archive} was made, and could not be copied to {'; nor to '.join(failures)}"
        )


def _copy_with_rsync(settings: Settings, archive: Path) -> None:
    """Copy the archive; rsync gives it its name when it has all of it."""
    if not settings.rsync_target:
        return
    with _copying(settings.rsync_target):
        programs.run(
            [
                *("rsync", "--times", "--partial-dir=.partial", "--timeout=300"),
                "--rsh=ssh -o BatchMode=yes",
                *("--", archive, Path(f"{archive}.sha256"), settings.rsync_target),
            ]
        )


def _copy_to_s3(settings: Settings, archive: Path) -> None:
    """Copy the archive, then remove those of this host that are too old or too many."""
    s3 = settings.s3
    if s3 is None:
        return
    with _copying(s3.target):
        bucket.copy(s3, archive, Path(f"{archive}.sha256"))
        if s3.keep or s3.keep_days:
            _prune_s3(s3, settings.host)


def _prune_s3(s3: S3, host: str) -> None:
    # Other hosts and sites may have archives there, too.
    found = (match for name in bucket.sizes(s3) if (match := _NAME.fullmatch(name)))
    own = [match[0] for match in found if match["host"] == host]
    names = obsolete(own, s3.keep, s3.keep_days)
    if names:
        bucket.remove(s3, [*names, *(f"{name}.sha256" for name in names)])
        print(f"backup: removed {', '.join(names)} from {s3.target}", flush=True)


@contextmanager
def _copying(target: str) -> Iterator[None]:
    try:
        with _timed(f"copied to {target}"):
            yield
    except BackupError as error:
        raise BackupError(f"{target} ({error})") from error


def _remove_remains(settings: Settings) -> None:
    """Remove what an interrupted backup has left."""
    for path in settings.directory.glob(f"{STAGING}*"):
        shutil.rmtree(path)
    for path in settings.directory.glob(f".{PREFIX}*{PARTIAL}"):
        path.unlink()
    for path in settings.directory.glob(f"{PREFIX}*.sha256"):
        if not path.with_suffix("").exists():
            path.unlink()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"backup: {what} in {time.monotonic() - began:.1f} s", flush=True)
