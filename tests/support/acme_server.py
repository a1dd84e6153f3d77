"""Pebble, the ACME server for tests of Let's Encrypt, and its DNS server, on free ports of this machine."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from tests.support.certificates import sign
from tests.support.nginx import free_port

if TYPE_CHECKING:
    from pathlib import Path

_START_SECONDS = 20.0
# Certbot renews certificates that expire within 30 days.
VALID_DAYS = 20
BLOCKED = "blocked.example"


class AcmeServer:
    """An ACME server for the duration of a `with` block.

    Attributes:
        directory: Its directory URL.
        ca: A file with the authorities of its own certificate and of those that it issues.
        root: The authority of those that it issues, in PEM.
    """

    def __init__(self, folder: Path, http_port: int) -> None:
        """Prepare a server.

        Args:
            folder: A new folder for its files.
            http_port: Where it connects to for challenges, instead of port 80. All names resolve to this machine.
        """
        self._folder = folder
        self._stack = ExitStack()
        self._dns, port, self._management = free_port(), free_port(), free_port()
        self.directory = f"https://127.0.0.1:{port}/dir"
        self.ca = folder / "ca.pem"
        self.root = ""
        folder.mkdir()
        authority = sign("Authority of the ACME server")
        own = sign("ACME server", authority, hosts=["127.0.0.1"])
        self.ca.write_text(authority.pem)
        (folder / "server.crt").write_text(own.pem)
        (folder / "server.key").write_text(own.key_pem)
        settings = {
            "listenAddress": f"127.0.0.1:{port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(folder / "server.crt"),
            "privateKey": str(folder / "server.key"),
            "httpPort": http_port,
            "tlsPort": free_port(),
            "certificateValidityPeriod": VALID_DAYS * 24 * 3600,
            # From Pebble 2.7 on.
            "profiles": {"default": {"validityPeriod": VALID_DAYS * 24 * 3600}},
            "domainBlocklist": [BLOCKED],
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))

    def __enter__(self) -> Self:
        dns = ["-dns01", f"127.0.0.1:{self._dns}", "-management", f"127.0.0.1:{free_port()}"]
        # Otherwise it listens for challenges itself.
        dns += ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]
        self._start("pebble-challtestsrv", *dns)
        configuration = str(self._folder / "pebble.json")
        self._start("pebble", "-config", configuration, "-dnsserver", f"127.0.0.1:{self._dns}")
        self.root = self._read_root()
        self.ca.write_text(self.ca.read_text() + self.root)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, *command: str) -> None:
        log = self._stack.enter_context((self._folder / f"{command[0]}.log").open("wb"))
        # Validates at once, and each order anew.
        environment = os.environ | {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)

    def _read_root(self) -> str:
        context = ssl.create_default_context(cafile=str(self.ca))
        address = f"https://127.0.0.1:{self._management}/roots/0"
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(address, context=context, timeout=5) as answer:
                    text: str = answer.read().decode()
                    return text
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)
