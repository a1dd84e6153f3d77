"""An S3 server with one bucket, for tests of the backup."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3  # type: ignore[import-untyped]
import requests
from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUCKET = "backups"
ACCESS_KEY_ID, SECRET_ACCESS_KEY = "id-of-the-key", "secret/of+the=key"
REGION = "eu-central-1"


@dataclass
class S3Server:
    """The server; it accepts every login until `refuse_logins`."""

    url: str

    def __post_init__(self) -> None:
        """Create the bucket."""
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
        )
        self._client.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
        )

    def names(self) -> set[str]:
        """Return the names of the objects in the bucket."""
        listed = self._client.list_objects_v2(Bucket=BUCKET)
        return {one["Key"] for one in listed.get("Contents", [])}

    def read(self, name: str) -> bytes:
        """Return the content of an object."""
        content: bytes = self._client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return content

    def put(self, name: str, content: bytes = b"") -> None:
        """Create an object."""
        self._client.put_object(Bucket=BUCKET, Key=name, Body=content)

    def refuse_logins(self) -> None:
        """Refuse all requests from now on: no user has an access key."""
        requests.post(f"{self.url}/moto-api/reset-auth", data=b"0", timeout=10).raise_for_status()

    def configure_rclone(self, file: Path) -> None:
        """Write a configuration file as the role does."""
        file.write_text(
            "[backup]\ntype = s3\nprovider = Other\nenv_auth = false\n"
            f"endpoint = {self.url}\nregion = {REGION}\naccess_key_id = {ACCESS_KEY_ID}\n"
            f"secret_access_key = {SECRET_ACCESS_KEY}\nno_check_bucket = true\n"
        )


@contextmanager
def running_s3_server() -> Iterator[S3Server]:
    """Run a server for the duration of the block."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    try:
        yield S3Server(url)
    finally:
        # Also for tests that follow in this process.
        requests.post(f"{url}/moto-api/reset-auth", data=b"Infinity", timeout=10)
        requests.post(f"{url}/moto-api/reset", timeout=10)
        server.stop()
