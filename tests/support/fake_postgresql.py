"""A PostgreSQL server that can do a login in each way, and in the wrong ways of a server that is not the real one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Iterator
    from typing import Self

SSL_REQUEST = 80877103
SALT = b"sixteen bytes!!!"

Method = Literal["scram", "cleartext", "md5", "trust"]
# What a server does wrong in an exchange of SCRAM-SHA-256.
Fault = Literal[
    "none",
    "foreign nonce",
    "same nonce",
    "huge iterations",
    "endless iterations",
    "no iterations",
    "salt is not base64",
    "only another mechanism",
    "ok at once",
    "ok without the final message",
    "wrong signature",
    "no signature",
    "signature is not base64",
    "cleartext after the first message",
]


@dataclass
class FakePostgres:
    """What the server does, and what it has seen."""

    password: str = "secret-word"
    method: Method = "scram"
    fault: Fault = "none"
    iterations: int = 4096
    # None for a server without TLS.
    context: ssl.SSLContext | None = None
    # As a pg_hba.conf that has only lines of hostssl, or of hostnossl.
    refuses: Literal["nothing", "plain", "tls"] = "nothing"
    # Bytes to send, one each tenth of a second, instead of any answer.
    drips: bytes = b""
    # Bytes to send instead of the answer to the startup message.
    answer: bytes = b""
    port: int = 0
    # For each startup message, whether it came by TLS.
    startups: list[bool] = field(default_factory=list)
    # Messages of clients with a password, or the proof of one.
    secrets: list[bytes] = field(default_factory=list)
    # Ids of the server processes, one for each session.
    pids: Iterator[int] = field(default_factory=lambda: itertools.count(1000))
    # When the server ends a session: never, after AuthenticationOk, or at the first query.
    ends: Literal["never", "after the login", "at a query"] = "never"

    def serve(self, connection: socket.socket) -> None:
        """Handle one connection until its end."""
        with suppress(OSError, _EndError), _Session(self, connection) as session:
            session.run()


class _EndError(Exception):
    """The client has closed the connection, or the login has failed."""


class _Session:
    def __init__(self, server: FakePostgres, connection: socket.socket) -> None:
        self.server, self.socket = server, connection
        self.is_tls = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def run(self) -> None:
        size, code = struct.unpack("!ii", self.read(8))
        if code == SSL_REQUEST:
            if self.server.context:
                self.socket.sendall(b"S")
                self.socket = self.server.context.wrap_socket(self.socket, server_side=True)
                self.is_tls = True
            else:
                self.socket.sendall(b"N")
            size, code = struct.unpack("!ii", self.read(8))
        self.read(size - 8)
        self.server.startups.append(self.is_tls)
        self.misbehave()
        if self.server.refuses == ("tls" if self.is_tls else "plain"):
            self.fail("28000", "no pg_hba.conf entry for this host")
        getattr(self, self.server.method)()
        self.send(b"R", struct.pack("!i", 0))
        if self.server.ends == "after the login":
            self.fail("3D000", "database does not exist")
        self.send(b"S", b"server_version\x0015.0\0")
        self.send(b"K", struct.pack("!ii", 1, 1))
        self.send(b"Z", b"I")
        self.answer_queries()

    def misbehave(self) -> None:
        if self.server.answer:
            self.socket.sendall(self.server.answer)
            raise _EndError
        stopped = threading.Event()
        for byte in self.server.drips:
            self.socket.sendall(bytes([byte]))
            stopped.wait(0.1)

    def answer_queries(self) -> None:
        pid = str(next(self.server.pids)).encode()
        while True:
            kind, _ = self.message()
            if kind != b"Q":
                raise _EndError
            if self.server.ends == "at a query":
                self.fail("57P01", "terminating connection due to administrator command")
            self.send(b"D", struct.pack("!hi", 1, len(pid)) + pid)
            self.send(b"C", b"SELECT 1\0")
            self.send(b"Z", b"I")

    # --- ways to log in ---

    def trust(self) -> None:
        pass

    def cleartext(self) -> None:
        self.send(b"R", struct.pack("!i", 3))
        if self.secret() != self.server.password.encode() + b"\0":
            self.fail("28P01", "password authentication failed")

    def md5(self) -> None:
        self.send(b"R", struct.pack("!i", 5) + SALT[:4])
        inner = hashlib.md5(f"{self.server.password}test".encode()).hexdigest()  # noqa: S324 - the protocol's
        outer = hashlib.md5(inner.encode() + SALT[:4]).hexdigest()  # noqa: S324 - the protocol's
        if self.secret() != f"md5{outer}\0".encode():
            self.fail("28P01", "password authentication failed")

    def scram(self) -> None:
        fault = self.server.fault
        other = fault == "only another mechanism"
        mechanisms = b"SCRAM-SHA-256-PLUS\0" + (b"" if other else b"SCRAM-SHA-256\0")
        self.send(b"R", struct.pack("!i", 10) + mechanisms + b"\0")
        payload = self.message()[1]
        if fault == "ok at once":
            return
        client_first = payload.partition(b"n,,")[2].decode()
        server_first = self.server_first(client_first)
        self.send(b"R", struct.pack("!i", 11) + server_first.encode())
        if fault == "cleartext after the first message":
            self.message()
            self.cleartext()
            return
        unproved, _, proof = self.secret().decode().partition(",p=")
        signed = f"{client_first},{server_first},{unproved}".encode()
        self.check(signed, base64.b64decode(proof))

    def server_first(self, client_first: str) -> str:
        nonce = client_first.partition("r=")[2] + "server"
        salt = base64.b64encode(SALT).decode()
        match self.server.fault:
            case "foreign nonce":
                nonce = "of" + nonce
            case "same nonce":
                nonce = nonce.removesuffix("server")
            case "huge iterations":
                return f"r={nonce},s={salt},i=2147483647"
            case "endless iterations":
                return f"r={nonce},s={salt},i={'9' * 5000}"
            case "no iterations":
                return f"r={nonce},s={salt}"
            case "salt is not base64":
                salt = "AAAAA"
        return f"r={nonce},s={salt},i={self.server.iterations}"

    def check(self, signed: bytes, proof: bytes) -> None:
        """Check the client's proof, and send the server's signature."""
        salted = hashlib.pbkdf2_hmac(
            "sha256", self.server.password.encode(), SALT, self.server.iterations
        )
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        if proof != bytes(a ^ b for a, b in zip(client_key, signature, strict=True)):
            self.fail("28P01", "password authentication failed")
        key = hmac.digest(salted, b"Server Key", "sha256")
        own = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
        match self.server.fault:
            case "ok without the final message":
                return
            case "wrong signature":
                own = base64.b64encode(signature).decode()
            case "signature is not base64":
                own = "?" + own
            case "no signature":
                self.send(b"R", struct.pack("!i", 12) + b"x=1")
                return
        self.send(b"R", struct.pack("!i", 12) + f"v={own}".encode())

    # --- messages ---

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise _EndError
            data += part
        return data

    def message(self) -> tuple[bytes, bytes]:
        kind, size = struct.unpack("!ci", self.read(5))
        return kind, self.read(size - 4)

    def secret(self) -> bytes:
        payload = self.message()[1]
        self.server.secrets.append(payload)
        return payload

    def send(self, kind: bytes, payload: bytes) -> None:
        self.socket.sendall(kind + struct.pack("!i", len(payload) + 4) + payload)

    def fail(self, code: str, reason: str) -> None:
        self.send(b"E", f"SFATAL\0C{code}\0M{reason}\0\0".encode())
        raise _EndError
