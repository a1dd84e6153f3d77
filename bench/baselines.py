"""The systems under measurement: the backend, and common alternatives."""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from bench.processes import Setting, free_port, listens, running, wait_for
from bench.proxy import write_configuration
from bench.servers import program
from bench.site import HELLO, SERVE, START_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.processes import Process
    from bench.site import Site

OURS = "ours"
BEHIND_TLS = "ours, TLS"
XREAD = "xread"
NCHAN = "nchan"

_HERE = Path(__file__).parent
_MODULES = Path("/usr/lib/nginx/modules")


@dataclass(frozen=True)
class Baseline:
    """A running server that streams events to clients, and how to subscribe and publish."""

    name: str
    ports: tuple[int, ...]
    path: str
    # Arguments of bench/publish.c for the destination.
    publish_to: tuple[str, ...]
    publish_hello: Callable[[], None]
    # The processes that serve clients, and the stores behind them.
    servers: tuple[Process, ...]
    stores: tuple[Process, ...] = ()
    headers: tuple[str, ...] = ()
    # A path that clients request first on their connection, if any.
    warm_up: str | None = None
    tls: bool = False


@contextlib.contextmanager
def ours(site: Site, instances: int = 1, program: Sequence[str] = SERVE) -> Iterator[Baseline]:
    """Start instances of the backend on one stream and database."""
    with site.new_run() as run, contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(site.instance(run, program=program)) for _ in range(instances)
        ]
        processes, ports = zip(*started, strict=True)
        yield Baseline(
            name=OURS,
            ports=ports,
            path="/events",
            headers=(f"Authorization: Bearer {site.token(ports[0])}",),
            publish_to=("redis", str(site.redis.port), run),
            publish_hello=lambda: site.publish_hello(run),
            servers=processes,
            stores=(site.redis.process, site.postgres.process),
        )


@contextlib.contextmanager
def ours_behind_tls(site: Site) -> Iterator[Baseline]:
    """Start an instance behind nginx, with the configuration that the role would write for it."""
    with ours(site) as direct, nginx_before(site, direct.ports[0]) as (process, port):
        servers = (*direct.servers, process)
        yield replace(direct, name=BEHIND_TLS, ports=(port,), servers=servers, tls=True)


@contextlib.contextmanager
def nginx_before(site: Site, instance: int) -> Iterator[tuple[Process, int]]:
    """Start nginx with TLS in front of the port of an instance; yield it with its own port."""
    port = free_port()
    folder = site.folder / f"proxy-{port}"
    folder.mkdir()
    write_configuration(folder, port, instance)
    with _nginx(site, "nginx", folder, port) as process:
        yield process, port


@contextlib.contextmanager
def xread(site: Site) -> Iterator[Baseline]:
    """Start the Python baseline, see bench/peer_xread.py."""
    with site.new_run() as run:
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "bench.peer_xread:app", "--port", str(port)]
        command += ["--backlog", "4096", "--log-level", "warning", "--no-access-log"]
        environment = {
            "PATH": os.environ["PATH"],
            "REDIS_URL": site.redis.url,
            "REDIS_STREAM_NAME": run,
        }
        setting = Setting(env=environment, cwd=_HERE.parent)
        with running(XREAD, command, site.log(f"{XREAD}-{port}"), setting) as process:
            wait_for(XREAD, lambda: listens(port), START_SECONDS, process)
            yield Baseline(
                name=XREAD,
                ports=(port,),
                path="/events",
                publish_to=("redis", str(site.redis.port), run),
                publish_hello=lambda: site.publish_hello(run),
                servers=(process,),
                stores=(site.redis.process,),
            )


@contextlib.contextmanager
def nchan(site: Site) -> Iterator[Baseline]:
    """Start nginx with nchan."""
    port = free_port()
    folder = site.folder / f"nchan-{port}"
    folder.mkdir()
    template = Template((_HERE / "nchan.conf").read_text())
    (folder / "nginx.conf").write_text(template.substitute(modules=_MODULES, port=port))
    with _nginx(site, NCHAN, folder, port) as process:
        yield Baseline(
            name=NCHAN,
            ports=(port,),
            path="/sub",
            publish_to=("http", str(port), "/pub"),
            publish_hello=lambda: _post_hello(port),
            servers=(process,),
            warm_up="/ready",
        )


@contextlib.contextmanager
def _nginx(site: Site, name: str, folder: Path, port: int) -> Iterator[Process]:
    command = [program("nginx"), "-p", str(folder), "-c", f"{folder}/nginx.conf"]
    with running(name, command, site.log(f"{name}-{port}")) as process:
        wait_for(name, lambda: listens(port), START_SECONDS, process)
        yield process


def _post_hello(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/pub", HELLO)
        connection.getresponse().read()
    finally:
        connection.close()
