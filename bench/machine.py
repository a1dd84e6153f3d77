"""The machine and the versions of the software that were measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bench.processes import BenchError, run
from bench.proxy import nginx_version

if TYPE_CHECKING:
    from bench.figures import Row
    from bench.site import Site

_PACKAGES = ("uvicorn", "uvloop", "httptools", "fastapi", "starlette", "sse-starlette", "redis")


def describe_machine() -> Row:
    return {
        "system": f"{platform.freedesktop_os_release()['PRETTY_NAME']}, Linux {platform.release()}",
        "processor": _line_of("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _line_of("/proc/meminfo", "MemTotal"),
        "load average at the start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def describe_versions(site: Site) -> Row:
    return {
        "backend": _revision(),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "redis-server": str(site.redis.client.info("server")["redis_version"]),
        "postgresql": site.postgres.query("postgres", "SHOW server_version"),
        "nginx": nginx_version(),
        "nchan": _package_version("libnginx-mod-nchan"),
    }


def _package_version(package: str) -> str:
    return run(["dpkg-query", "--show", "--showformat=${Version}", package])


def _revision() -> str:
    """Return the commit of the sources, with a plus sign if they are modified."""
    try:
        return run(["git", "describe", "--always", "--dirty=+"]).strip()
    except (BenchError, FileNotFoundError):
        return "unknown"


def _line_of(path: str, key: str) -> str | None:
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return None
