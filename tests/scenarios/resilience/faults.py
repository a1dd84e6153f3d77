"""Context managers that inject faults. Each fault ends with its block."""

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
"""A separate file system; see the scenario's molecule.yml."""
LINK: Final = "eth0"
LOSS: Final = 0.05
"""Packet loss rate of the lossy network, in each direction."""


def main_pid(machine: Machine, unit: str) -> str:
    return machine.systemctl("show", "--property=MainPID", "--value", unit).strip()


@contextmanager
def suspended(machine: Machine, pid: str) -> Iterator[None]:
    """Suspend the process (SIGSTOP)."""
    machine.run("kill", "-STOP", pid)
    try:
        yield
    finally:
        machine.run("kill", "-CONT", pid)


# --- the network between the backend and its datastores -----------------------------------------


@contextmanager
def _rules(site: Site, *rule: str) -> Iterator[None]:
    """Add a firewall rule on the dev server for packets to and from the datastores."""
    address = site.datastores.address
    both = (("OUTPUT", "--destination"), ("INPUT", "--source"))
    with ExitStack() as stack:
        for chain, side in both:
            site.dev.run("iptables", "--insert", chain, side, address, *rule)
            stack.callback(site.dev.run, "iptables", "--delete", chain, side, address, *rule)
        yield


@contextmanager
def network_cut(site: Site) -> Iterator[None]:
    """Drop all packets silently."""
    with _rules(site, "--jump", "DROP"):
        yield


@contextmanager
def network_slow_and_lossy(site: Site) -> Iterator[str]:
    """Delay packets and lose some of them; yields the means.

    The delay comes from sch_netem if the kernel has it, else from a link so narrow that packets
    queue.
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


# --- PostgreSQL ----------------------------------------------------------------------------------


class Session:
    """A psql session as the database's superuser, open for the duration of the block."""

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
        """Send statements without waiting for their end."""
        assert self._psql.stdin
        self._psql.stdin.write(f"{statements}\n\\echo done\n")
        self._psql.stdin.flush()

    def end(self) -> list[str]:
        """Wait for the statements of begin() and return their rows."""
        assert self._psql.stdout
        rows = []
        while (line := self._psql.stdout.readline()) != "done\n":
            assert line, "psql has ended"
            rows.append(line.rstrip("\n"))
        return rows

    def run(self, statements: str) -> list[str]:
        """Run statements and return their rows."""
        self.begin(statements)
        return self.end()


class ConnectionHog:
    """Occupies PostgreSQL connections with incomplete logins until none is free."""

    def __init__(self, site: Site) -> None:
        parts = urlsplit(site.settings["DATABASE_URL"])
        self._address = (site.datastores.address, parts.port or 5432)
        words = ("user", parts.username or "", "database", parts.path.lstrip("/"), "")
        body = struct.pack("!i", 3 << 16) + b"\0".join(map(str.encode, words)) + b"\0"
        self._startup_message = struct.pack("!i", len(body) + 4) + body
        self._held: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for held in self._held:
            held.close()

    def fill(self) -> int:
        """Take every free connection; return how many there were."""
        taken = 0
        while True:
            held = socket.create_connection(self._address, timeout=10)
            held.sendall(self._startup_message)
            if held.recv(1) != b"R":
                held.close()
                return taken
            self._held.append(held)
            taken += 1


@contextmanager
def database_full(site: Site) -> Iterator[None]:
    """Take all connections that PostgreSQL allows."""
    user = urlsplit(site.settings["DATABASE_URL"]).username
    ours = f"FROM pg_stat_activity WHERE usename = '{user}'"
    with Session(site) as session, ConnectionHog(site) as hog:
        # Free connections go to whoever is first: terminate the backend's sessions until it has
        # none left.
        while hog.fill() or session.run(f"SELECT 1 {ours};"):
            session.run(f"SELECT pg_terminate_backend(pid) {ours};")
        yield


@contextmanager
def disk_full(site: Site) -> Iterator[None]:
    """Fill the disk of PostgreSQL, including space that is freed meanwhile."""
    filler, unit = f"{DISK}/filler", "filler.service"
    fill = f"while :; do cat /dev/zero >>{filler} 2>/dev/null; sleep 0.1; done"
    site.datastores.run("systemd-run", "--quiet", f"--unit={unit}", "sh", "-c", fill)
    try:
        yield
    finally:
        site.datastores.systemctl("stop", unit)
        site.datastores.run("rm", "-f", filler)
