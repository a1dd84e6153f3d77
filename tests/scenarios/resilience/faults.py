"""What can befall the site. Each is over at the end of its block, whatever happens inside."""

from __future__ import annotations

import socket
import struct
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.support.site import Machine, Site

DISK: Final = "/var/lib/postgresql"
"""A file system of its own; see the scenario's molecule.yml."""
LINK: Final = "eth0"
LOSS: Final = 0.05
"""Share of the packets that a lossy network loses, each way."""


def main_pid(machine: Machine, unit: str) -> str:
    return machine.systemctl("show", "--property=MainPID", "--value", unit).strip()


@contextmanager
def standing_still(machine: Machine, pid: str) -> Iterator[None]:
    """The process is there and does nothing."""
    machine.run("kill", "-STOP", pid)
    try:
        yield
    finally:
        machine.run("kill", "-CONT", pid)


@contextmanager
def stopped(machine: Machine, *units: str) -> Iterator[None]:
    """The units are stopped."""
    machine.systemctl("stop", *units)
    try:
        yield
    finally:
        machine.systemctl("start", *units)


# --- the network between the backend and its datastores ----------------------------------------------


@contextmanager
def _rules(site: Site, *rule: str) -> Iterator[None]:
    """A rule of the dev server's firewall for what goes to the datastores and comes from there."""
    address = site.datastores.address
    both = (("OUTPUT", "--destination"), ("INPUT", "--source"))
    with ExitStack() as stack:
        for chain, side in both:
            site.dev.run("iptables", "--insert", chain, side, address, *rule)
            stack.callback(site.dev.run, "iptables", "--delete", chain, side, address, *rule)
        yield


@contextmanager
def network_cut(site: Site) -> Iterator[None]:
    """Nothing passes, and nobody is told."""
    with _rules(site, "--jump", "DROP"):
        yield


@contextmanager
def network_slow_and_lossy(site: Site) -> Iterator[str]:
    """Packets are late and some are lost; says by what means.

    Late is a delay where the kernel has one to offer (sch_netem), else a line so narrow that
    packets queue for it.
    """
    chance = ("--match", "statistic", "--mode", "random", "--probability", str(LOSS))
    to_datastores = ("match", "ip", "dst", site.datastores.address, "flowid", "1:2")
    tc = ("tc", "qdisc", "add", "dev", LINK)
    with _rules(site, *chance, "--jump", "DROP"):
        site.dev.run(*tc, "root", "handle", "1:", "htb", "default", "1")
        try:
            for number, rate in (("1:1", "10gbit"), ("1:2", "10gbit")):
                _htb_class(site, "add", number, rate)
            site.dev.run(
                *("tc", "filter", "add", "dev", LINK, "parent", "1:", "protocol", "ip"),
                *("u32", *to_datastores),
            )
            netem = ("parent", "1:2", "netem", "delay", "80ms", "30ms")
            if site.dev.host.run(" ".join((*tc, *netem))).rc == 0:
                yield "delayed by netem"
            else:
                _htb_class(site, "change", "1:2", "1500kbit")
                yield "narrowed to 1.5 Mbit/s by htb: this kernel has no sch_netem"
        finally:
            site.dev.run("tc", "qdisc", "delete", "dev", LINK, "root")


def _htb_class(site: Site, verb: str, number: str, rate: str) -> None:
    site.dev.run(
        *("tc", "class", verb, "dev", LINK, "parent", "1:", "classid", number, "htb"),
        *("rate", rate, "quantum", "3000"),
    )


# --- PostgreSQL --------------------------------------------------------------------------------------


class Session:
    """A session of psql as the database's superuser, which lasts as long as the block."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def __enter__(self) -> Self:
        self._psql = subprocess.Popen(
            self._site.psql_command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._psql.stdin
        with self._psql:
            self._psql.stdin.close()

    def begin(self, statements: str) -> None:
        """Let it run statements without waiting for their end."""
        assert self._psql.stdin
        self._psql.stdin.write(f"{statements}\n\\echo done\n")
        self._psql.stdin.flush()

    def end(self) -> list[str]:
        """The rows of what was begun, once all of it has run."""
        assert self._psql.stdout
        rows = []
        while (line := self._psql.stdout.readline()) != "done\n":
            assert line, "psql has ended"
            rows.append(line.rstrip("\n"))
        return rows

    def run(self, statements: str) -> list[str]:
        """The rows of statements."""
        self.begin(statements)
        return self.end()


class Occupation:
    """Connections to PostgreSQL that log in half and stay, until it has no room for more."""

    def __init__(self, site: Site) -> None:
        parts = urlsplit(site.settings["DATABASE_URL"])
        self._place = (site.datastores.address, parts.port or 5432)
        words = ("user", parts.username or "", "database", parts.path.lstrip("/"), "")
        body = struct.pack("!i", 3 << 16) + b"\0".join(map(str.encode, words)) + b"\0"
        self._greeting = struct.pack("!i", len(body) + 4) + body
        self._held: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for held in self._held:
            held.close()

    def fill(self) -> int:
        """Take every connection that is free; how many were."""
        taken = 0
        while True:
            held = socket.create_connection(self._place, timeout=10)
            held.sendall(self._greeting)
            if held.recv(1) != b"R":
                held.close()
                return taken
            self._held.append(held)
            taken += 1


@contextmanager
def database_full(site: Site) -> Iterator[None]:
    """Every connection that PostgreSQL allows is taken by somebody else."""
    user = urlsplit(site.settings["DATABASE_URL"]).username
    ours = f"FROM pg_stat_activity WHERE usename = '{user}'"
    with Session(site) as session, Occupation(site) as occupation:
        # Whoever is quick takes what is free; the backend is put out until it has none left.
        while occupation.fill() or session.run(f"SELECT 1 {ours};"):
            session.run(f"SELECT pg_terminate_backend(pid) {ours};")
        yield


@contextmanager
def disk_full(site: Site) -> Iterator[None]:
    """The disk of PostgreSQL has no room left; what the system frees meanwhile is taken too."""
    filler, unit = f"{DISK}/filler", "filler.service"
    fill = f"while :; do cat /dev/zero >>{filler} 2>/dev/null; sleep 0.1; done"
    site.datastores.run("systemd-run", "--quiet", f"--unit={unit}", "sh", "-c", fill)
    try:
        yield
    finally:
        site.datastores.systemctl("stop", unit)
        site.datastores.run("rm", "-f", filler)
