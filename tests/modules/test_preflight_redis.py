"""The preflight logs in to Redis as the backend does, and sends no password before TLS is verified."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ansible_module import import_util, run_module
from tests.support.certificates import SignedCertificate, sign
from tests.support.threaded_server import serving_connections

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

PASSWORD = "secret-word"
INFO = b"# Server\r\nredis_version:7.4.0\r\nredis_mode:standalone\r\n"


class FakeRedis:
    """A server that accepts any login."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.context = context
        self.port = 0
        self.answers = {
            b"AUTH": b"+OK\r\n",
            b"PING": b"+PONG\r\n",
            b"INFO": b"$%d\r\n%s\r\n" % (len(INFO), INFO),
            b"SELECT": b"+OK\r\n",
        }
        # Seconds between the bytes of an answer.
        self.pause = 0.0
        # What clients have sent after the handshake.
        self.commands: list[list[bytes]] = []

    def serve(self, connection: Any) -> None:
        with suppress(OSError):
            if self.context:
                connection = self.context.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as reader:
                while line := reader.readline():
                    words = []
                    for _ in range(int(line[1:])):
                        size = int(reader.readline()[1:])
                        words.append(reader.read(size + 2)[:-2])
                    self.commands.append(words)
                    self.send(connection, self.answers[words[0]])

    def send(self, connection: Any, answer: bytes) -> None:
        size = 1 if self.pause else len(answer)
        stopped = threading.Event()
        for start in range(0, len(answer), size):
            connection.sendall(answer[start : start + size])
            stopped.wait(self.pause)


def options(server: FakeRedis, **values: Any) -> dict[str, Any]:
    """Return the option `redis` of the module for this server."""
    login = {"user": "agui", "password": PASSWORD, "db": 3, "sentinels": []}
    return login | {"host": "127.0.0.1", "port": server.port, "tls": False, "ca": ""} | values


def problems(server: FakeRedis, timeout: float = 5, **values: Any) -> list[str]:
    """Return the problems that the check finds with this server."""
    found: list[str] = import_util("ag_ui_datastores").redis_problems(
        options(server, **values), timeout
    )
    return found


LOGIN = [
    [b"AUTH", b"agui", PASSWORD.encode()],
    [b"PING"],
    [b"INFO", b"server"],
    [b"INFO", b"replication"],
    [b"SELECT", b"3"],
]


def test_module_logs_in_over_tls(
    tmp_path: Path, context: ssl.SSLContext, authority: SignedCertificate
) -> None:
    with serving_connections(FakeRedis(context)) as server:
        arguments = {
            "account": {"name": "root", "uid": 0},
            "certificate": "/nonexistent",
            "redis": options(server, tls=True, ca=authority.pem, host="localhost"),
        }
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = run_module("ag_ui_preflight", arguments, tmp_path, {"PATH": path})
        assert not [one for one in done.get("problems", []) if "Redis" in one], done
        assert server.commands == LOGIN


def test_login_without_tls_succeeds() -> None:
    with serving_connections(FakeRedis()) as server:
        assert problems(server) == []
        assert server.commands == LOGIN


def test_no_password_is_sent_with_an_untrusted_certificate(
    context: ssl.SSLContext, authority: SignedCertificate
) -> None:
    with serving_connections(FakeRedis(context)) as server:
        for host, ca in (
            ("localhost", sign("another").pem),
            ("localhost", ""),
            ("127.0.0.1", authority.pem),
        ):
            [found] = problems(server, tls=True, host=host, ca=ca)
            assert found.startswith("ag_ui_redis_tls: TLS with Redis at ")
            assert "CERTIFICATE_VERIFY_FAILED" in found
        assert server.commands == []


def test_server_message_is_truncated_without_control_characters() -> None:
    with serving_connections(FakeRedis()) as server:
        server.answers[b"AUTH"] = b"-WRONGPASS \x1b[31m" + b"o" * 2000 + b"\r\n"
        [found] = problems(server)
    assert "refuses the login or the database 3 (WRONGPASS [31mooo" in found
    assert len(found) < 800


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"AUTH", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        (b"SELECT", b"+" + b"o" * 100_000 + b"\r\n"),
        (b"INFO", b"$999999999\r\n"),
        (b"INFO", b"$-5\r\n"),
        (b"INFO", b"$many\r\n"),
    ],
)
def test_response_of_another_protocol_ends_the_check(command: bytes, answer: bytes) -> None:
    with serving_connections(FakeRedis()) as server:
        server.answers[command] = answer
        [found] = problems(server)
    assert found.startswith("ag_ui_redis_host, ag_ui_redis_port: Redis at ")
    assert "it does not answer as Redis does" in found


def test_slow_server_ends_the_check() -> None:
    with serving_connections(FakeRedis()) as server:
        server.pause, server.answers[b"PING"] = 0.1, b"+" + b"o" * 400 + b"\r\n"
        started = time.monotonic()
        [found] = problems(server, timeout=1)
        assert time.monotonic() - started < 20
    assert "cannot be reached from this host (timed out)" in found


def test_user_without_the_right_to_read_the_mode_is_accepted() -> None:
    with serving_connections(FakeRedis()) as server:
        server.answers[b"INFO"] = b"-NOPERM this user has no permissions to run the command\r\n"
        assert problems(server) == []


def info(text: bytes) -> bytes:
    """Return the answer to INFO with this text."""
    return b"$%d\r\n%s\r\n" % (len(text), text)


def sentinel_of(primary: int | None) -> FakeRedis:
    """Return a Sentinel that names this port of 127.0.0.1; None if it does not know the name."""
    port = str(primary).encode()
    sentinel = FakeRedis()
    sentinel.answers |= {
        b"INFO": info(b"redis_mode:sentinel\r\n"),
        b"SENTINEL": b"*-1\r\n"
        if primary is None
        else b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(port), port),
    }
    return sentinel


SENTINEL: dict[str, Any] = {
    "sentinel_service": "shield",
    "sentinel_user": "watch",
    "sentinel_password": "word",
}
UNUSED = "127.0.0.1:1"


def endpoint(server: FakeRedis) -> str:
    return f"127.0.0.1:{server.port}"


def test_primary_that_the_sentinels_name_is_checked() -> None:
    with (
        serving_connections(FakeRedis()) as redis,
        serving_connections(sentinel_of(redis.port)) as first,
        serving_connections(sentinel_of(redis.port)) as second,
    ):
        # One that is down does not matter.
        sentinels = [endpoint(first), UNUSED, endpoint(second)]
        found = problems(redis, host="nowhere.invalid", port=1, sentinels=sentinels, **SENTINEL)
        assert found == []
        assert redis.commands == LOGIN
        assert first.commands == [
            [b"AUTH", b"watch", b"word"],
            [b"PING"],
            [b"INFO", b"server"],
            [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"shield"],
        ]


def test_wrong_sentinels_are_reported() -> None:
    with (
        serving_connections(FakeRedis()) as redis,
        serving_connections(sentinel_of(None)) as ignorant,
        serving_connections(sentinel_of(redis.port)) as right,
        serving_connections(sentinel_of(1)) as wrong,
    ):

        def found(*sentinels: str) -> str:
            [problem] = problems(redis, sentinels=sentinels, **SENTINEL)
            return problem

        assert found(endpoint(ignorant)).startswith("ag_ui_redis_sentinel_service: ")
        assert "is no Sentinel" in found(endpoint(redis))
        assert "too few Sentinels" in found(endpoint(right), UNUSED)
        assert "cannot be resolved" in found("nowhere.invalid:26379", endpoint(right))
        assert "name different primaries" in found(endpoint(right), endpoint(wrong))
        assert found(endpoint(wrong)).startswith("ag_ui_redis_sentinels: Redis at 127.0.0.1:1 ")
        right.answers[b"AUTH"] = b"-WRONGPASS invalid\r\n"
        assert found(endpoint(right)).startswith("ag_ui_redis_sentinel_password: ")
        assert redis.commands.count([b"SELECT", b"3"]) == 0


def test_replica_is_refused() -> None:
    with serving_connections(FakeRedis()) as redis:
        redis.answers[b"INFO"] = info(b"redis_mode:standalone\r\nrole:slave\r\n")
        [found] = problems(redis)
        assert found.startswith("ag_ui_redis_host, ag_ui_redis_port: ")
        assert "is a replica" in found
