"""The settings of the backup, a JSON file that the role writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BackupError

DEFAULT_FILE = Path("/etc/ag-ui/backup/settings.json")


@dataclass(frozen=True)
class Database:
    """A database and a login; the password is in a file of the format of `.pgpass`."""

    host: str
    port: int
    name: str
    user: str
    sslmode: str
    passfile: Path
    ca: Path | None = None

    @classmethod
    def of(cls, values: dict[str, Any]) -> Database:
        """Read the values of a JSON object."""
        ca = values.get("ca")
        return cls(
            host=values["host"],
            port=int(values["port"]),
            name=values["name"],
            user=values["user"],
            sslmode=values["sslmode"],
            passfile=Path(values["passfile"]),
            ca=Path(ca) if ca else None,
        )


@dataclass(frozen=True)
class S3:
    """A place in a bucket of S3.

    Attributes:
        target: `s3://BUCKET/PREFIX`.
        config: The configuration file of rclone.
        keep: The number of archives of this host that are kept there; 0 for any number.
        keep_days: The age in days up to which they are kept; 0 for any age.
    """

    target: str
    config: Path
    keep: int
    keep_days: int

    @classmethod
    def of(cls, values: dict[str, Any]) -> S3:
        """Read the values of a JSON object."""
        return cls(
            target=values["target"],
            config=Path(values["config"]),
            keep=int(values["keep"]),
            keep_days=int(values["keep_days"]),
        )


@dataclass(frozen=True)
class Settings:
    """What is backed up, and where to.

    Attributes:
        host: The name of this host in the inventory.
        directory: The directory of the archives.
        database: The database, with a role that may read all of it and create databases.
        encryption: `age`, `gpg` or `none`.
        recipient: The file of the public key.
        keep: The number of archives that are kept.
        keep_days: The age in days up to which they are kept; 0 for any age.
        rsync_target: Where rsync copies each archive; empty for nowhere.
        s3: Where rclone copies each archive; None for nowhere.
        metrics: The directory of the text files of Prometheus' node exporter.
        configuration: The directory of the deployment's configuration.
        files: Further files to include.
        state: The directory of the lock and of the result of the last backup.
        user: User and group ids of the backend's container, `UID:GID`.
    """

    host: str
    directory: Path
    database: Database
    encryption: str
    recipient: Path | None
    keep: int
    keep_days: int
    rsync_target: str
    s3: S3 | None
    metrics: Path
    configuration: Path
    files: tuple[Path, ...]
    state: Path
    user: str

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read the file.

        Raises:
            BackupError: It is missing or invalid.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            recipient = values["recipient"]
            return cls(
                host=values["host"],
                directory=Path(values["directory"]),
                database=Database.of(values["database"]),
                encryption=values["encryption"],
                recipient=Path(recipient) if recipient else None,
                keep=int(values["keep"]),
                keep_days=int(values["keep_days"]),
                rsync_target=values["rsync_target"],
                s3=S3.of(values["s3"]) if values["s3"] else None,
                metrics=Path(values["metrics"]),
                configuration=Path(values["configuration"]),
                files=tuple(map(Path, values["files"])),
                state=Path(values["state"]),
                user=values["user"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BackupError(
                f"{path} cannot be read ({error!r}). Deploy, which writes it, and run this as root."
            ) from error
