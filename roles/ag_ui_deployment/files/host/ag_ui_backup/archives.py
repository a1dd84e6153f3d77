"""Write and read archives: a tar file, encrypted to a public key, whose first member is the manifest.

The manifest has the size and the SHA-256 of every other member. Beside each archive, `ARCHIVE.sha256` has the sum of
the archive itself in the format of sha256sum.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from . import programs
from .errors import BackupError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FORMAT = 1
MANIFEST = "manifest.json"
SUFFIXES = {"age": ".tar.age", "gpg": ".tar.gpg", "none": ".tar"}
_CHUNK = 1 << 20


class Member(NamedTuple):
    """A file of an archive: its name there, and where its content is."""

    name: str
    path: Path


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    summed = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            summed.update(chunk)
    return summed.hexdigest()


def described(members: Iterable[Member]) -> dict[str, dict[str, Any]]:
    """Return the size and the sum of each member, for the manifest."""
    return {name: {"size": path.stat().st_size, "sha256": digest(path)} for name, path in members}


def write(
    target: Path,
    members: Iterable[Member],
    manifest: Mapping[str, Any],
    encryption: str,
    recipient: Path | None,
) -> str:
    """Write an archive and read it again.

    Args:
        target: The file to write.
        members: The members.
        manifest: The manifest.
        encryption: `age`, `gpg` or `none`.
        recipient: The file of the public key.

    Returns:
        The SHA-256 of the archive.

    Raises:
        BackupError: A member has changed since the manifest was made, or the archive cannot be written or read.
    """
    text = json.dumps(manifest, indent=1).encode()
    with target.open("xb") as file:
        with (
            _encrypted(file, encryption, recipient) as sink,
            tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            tar.addfile(_info(MANIFEST, len(text)), io.BytesIO(text))
            for name, path in members:
                _add(tar, name, path, manifest["files"][name]["sha256"])
        file.flush()
        os.fsync(file.fileno())
    written: str = sink.digest.hexdigest()
    if digest(target) != written:
        raise BackupError(f"{target} does not have the content that was written; check the disk")
    return written


def unpack(archive: Path, identity: Path | None, directory: Path) -> dict[str, Any]:
    """Decrypt an archive and extract it into an empty directory; return its manifest.

    Args:
        archive: The archive.
        identity: The file of the private key; None if the archive is not encrypted.
        directory: Where to extract it. Its files can be read by their owner only.

    Raises:
        BackupError: The archive is damaged, not made by this program, or cannot be decrypted.
    """
    _check_sum(archive)
    sums: dict[str, str] = {}
    with _decrypted(archive, identity) as source:
        try:
            with tarfile.open(fileobj=source, mode="r|") as tar:
                for info in tar:
                    sums[info.name] = _extract(tar, info, directory)
        except (tarfile.TarError, EOFError) as error:
            raise BackupError(f"{archive} is not a whole archive ({error})") from error
    return _checked_manifest(archive, directory, sums)


def _checked_manifest(archive: Path, directory: Path, sums: Mapping[str, str]) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        expected = {name: file["sha256"] for name, file in manifest["files"].items()}
        version = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupError(f"{archive} has no manifest: it is no archive of a backup") from error
    if version != FORMAT:
        raise BackupError(
            f"{archive} has format {version}, and this version of the role reads format {FORMAT}. "
            f"Restore it with the version of the role that wrote it, or a later one."
        )
    found = {name: sha256 for name, sha256 in sums.items() if name != MANIFEST}
    damaged = sorted(
        name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
    )
    if damaged:
        raise BackupError(f"{archive} is damaged: {', '.join(damaged)} do not have their checksums")
    return manifest


def _check_sum(archive: Path) -> None:
    """Compare an archive with the file beside it, if there is one."""
    beside = Path(f"{archive}.sha256")
    if not archive.is_file():
        raise BackupError(f"there is no file {archive}")
    if beside.exists() and beside.read_text(encoding="ascii").split()[:1] != [digest(archive)]:
        raise BackupError(f"{archive} is damaged: it does not have the checksum in {beside}")


class _Digesting:
    """Writes to a file and sums what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)


class _Encrypting:
    """Writes to a program that encrypts; sums what the program wrote."""

    def __init__(self, sink: _Digesting, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self.digest = sink.digest

    def write(self, data: bytes) -> int:
        return self._pipe.write(data)


@contextmanager
def _encrypted(file: IO[bytes], encryption: str, recipient: Path | None) -> Iterator[Any]:
    sink = _Digesting(file)
    if encryption == "none":
        yield sink
        return
    with ExitStack() as stack:
        command: list[str | Path]
        if encryption == "age":
            command = ["age", "--encrypt", "--recipients-file", str(recipient)]
        else:
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="ag-ui-gpg-"))
            options = (
                "--batch",
                "--no-options",
                "--quiet",
                "--compress-algo=none",
                "--trust-model=always",
            )
            command = [
                "gpg",
                f"--homedir={home}",
                *options,
                "--recipient-file",
                str(recipient),
                "--encrypt",
            ]
        process = stack.enter_context(programs.running(command, subprocess.PIPE))
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        copier = threading.Thread(target=_copy, args=(process.stdout, sink), daemon=True)
        copier.start()
        broken = False
        try:
            yield _Encrypting(sink, process.stdin)
            process.stdin.close()
        except BrokenPipeError:
            broken = True
        finally:
            with suppress(OSError):
                process.stdin.close()
        copier.join()
        errors = process.stderr.read().decode(errors="replace")
        if process.wait() != 0 or broken:
            raise programs.failed(command[0], process.returncode, errors)


@contextmanager
def _decrypted(archive: Path, identity: Path | None) -> Iterator[IO[bytes]]:
    suffix = next((name for name, end in SUFFIXES.items() if archive.name.endswith(end)), None)
    if suffix is None:
        raise BackupError(f"{archive} must end with one of {', '.join(SUFFIXES.values())}")
    if suffix == "none":
        with archive.open("rb") as file:
            yield file
        return
    if identity is None:
        raise BackupError(f"{archive} is encrypted: name the file of the private key")
    with ExitStack() as stack:
        command: list[str | Path]
        if suffix == "age":
            command = ["age", "--decrypt", "--identity", identity, archive]
        else:
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="ag-ui-gpg-"))
            gpg = ["gpg", f"--homedir={home}", "--batch", "--no-options", "--quiet"]
            programs.run([*gpg, "--import", identity])
            stack.callback(_stop_agent, home)
            command = [*gpg, "--decrypt", archive]
        process = stack.enter_context(programs.running(command, subprocess.DEVNULL))
        assert process.stdout is not None
        assert process.stderr is not None
        failure: BackupError | None = None
        try:
            yield process.stdout
            # The end of a tar file is padded; the program must write all of it.
            while process.stdout.read(_CHUNK):
                pass
        except BackupError as error:
            # If decryption has failed, that is the cause.
            failure = error
            process.stdout.close()
        errors = process.stderr.read().decode(errors="replace")
        if process.wait() != 0 and errors.strip():
            raise programs.failed(command[0], process.returncode, errors) from failure
        if failure is not None:
            raise failure


def _stop_agent(home: str) -> None:
    subprocess.run(
        ["gpgconf", f"--homedir={home}", "--kill", "all"], check=False, capture_output=True
    )


def _copy(source: IO[bytes], sink: _Digesting) -> None:
    while chunk := source.read(_CHUNK):
        sink.write(chunk)


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o600
    return info


class _Summing:
    """Reads a file and sums what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def _add(tar: tarfile.TarFile, name: str, path: Path, expected: str) -> None:
    with path.open("rb") as file:
        source = _Summing(file)
        tar.addfile(_info(name, os.fstat(file.fileno()).st_size), source)
    if source.digest.hexdigest() != expected:
        raise BackupError(f"{path} has changed during the backup; repeat it")


def _extract(tar: tarfile.TarFile, info: tarfile.TarInfo, directory: Path) -> str:
    """Write one member and return its sum. Only regular files below the directory are accepted."""
    parts = PurePosixPath(info.name).parts
    if not info.isreg() or not parts or parts[0] == "/" or ".." in parts:
        raise BackupError(f"the archive has {info.name!r}, which no backup contains")
    target = directory.joinpath(*parts)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    source = tar.extractfile(info)
    assert source is not None
    summed = hashlib.sha256()
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while chunk := source.read(_CHUNK):
            summed.update(chunk)
            file.write(chunk)
    return summed.hexdigest()
