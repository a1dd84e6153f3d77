"""A Prometheus with the configuration and the rules that the role has for a site."""

import asyncio
import json
import math
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.waiting import until

OBSERVABILITY = Path(__file__).resolve().parents[3] / "observability"
_INTERVAL = "500ms"


class Prometheus:
    """The HTTP API of a running Prometheus."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def is_ready(self) -> bool:
        try:
            return (await self._http.get("/-/ready")).is_success
        except httpx.TransportError:
            return False

    async def has_value(self, expression: str) -> bool:
        """Whether the expression has a result that is a number."""
        data = await self._get("/api/v1/query", query=expression)
        return any(not math.isnan(float(one["value"][1])) for one in data["result"])

    async def rules(self) -> list[dict[str, Any]]:
        """Return the state of every rule."""
        data = await self._get("/api/v1/rules")
        return [rule for group in data["groups"] for rule in group["rules"]]

    async def _get(self, path: str, **parameters: str) -> Any:
        response = await self._http.get(path, params=parameters)
        assert response.status_code == httpx.codes.OK, response.text
        return response.json()["data"]


@asynccontextmanager
async def running_prometheus(folder: Path, *jobs: dict[str, Any]) -> AsyncIterator[Prometheus]:
    """Start Prometheus in an empty directory with the rules of the role and these jobs."""
    for file in OBSERVABILITY.glob("*-rules.yml"):
        shutil.copy(file, folder)
    configuration = {
        "global": {
            "scrape_interval": _INTERVAL,
            "scrape_timeout": _INTERVAL,
            "evaluation_interval": _INTERVAL,
        },
        "rule_files": ["*-rules.yml"],
        "scrape_configs": jobs,
    }
    # JSON is YAML.
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=20) as http:
            prometheus = Prometheus(http)
            await until(prometheus.is_ready, 30)
            yield prometheus
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def exposition_server(text: str) -> AsyncIterator[str]:
    """Serve metrics in the text format, as a node exporter does; yield the address."""
    body = text.encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
