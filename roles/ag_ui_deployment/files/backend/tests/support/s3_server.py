"""An S3 server with one bucket for uploads."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3  # type: ignore[import-untyped]
import httpx
from moto.server import ThreadedMotoServer

BUCKET = "documents"
PREFIX = "site/uploads"
TARGET = f"s3://{BUCKET}/{PREFIX}"
REGION = "eu-central-1"


@dataclass
class S3Server:
    url: str

    def __post_init__(self) -> None:
        """Create the bucket."""
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="id",
            aws_secret_access_key="secret",
        )
        self._client.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
        )

    @property
    def settings(self) -> dict[str, str]:
        """The settings of an instance that uses the bucket."""
        return {
            "UPLOADS_S3_TARGET": TARGET,
            "UPLOADS_S3_ENDPOINT": self.url,
            "UPLOADS_S3_REGION": REGION,
            "UPLOADS_S3_ACCESS_KEY_ID": "id-of-the-key",
            "UPLOADS_S3_SECRET_ACCESS_KEY": "secret/of+the=key",
        }

    def names(self) -> list[str]:
        """Return the names of all objects, and of objects that still consist of parts."""
        objects = self._client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        parts = self._client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return sorted(one["Key"].removeprefix(f"{PREFIX}/") for one in [*objects, *parts])

    def get(self, name: str) -> dict[str, Any]:
        """Return an object with its headers."""
        found: dict[str, Any] = self._client.get_object(Bucket=BUCKET, Key=f"{PREFIX}/{name}")
        return found

    def content(self, name: str) -> bytes:
        content: bytes = self.get(name)["Body"].read()
        return content

    def put(self, name: str) -> None:
        self._client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{name}", Body=b"x")

    def begin_parts(self, name: str) -> None:
        self._client.create_multipart_upload(Bucket=BUCKET, Key=f"{PREFIX}/{name}")

    def refuse_logins(self) -> None:
        """Refuse all requests from now on: no user has an access key."""
        httpx.post(f"{self.url}/moto-api/reset-auth", content=b"0").raise_for_status()


@contextmanager
def running_s3_server() -> Iterator[S3Server]:
    """Run a server with an empty bucket for the duration of the block."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    try:
        yield S3Server(url)
    finally:
        # Also for tests that follow in this process.
        httpx.post(f"{url}/moto-api/reset-auth", content=b"Infinity")
        httpx.post(f"{url}/moto-api/reset")
        server.stop()
