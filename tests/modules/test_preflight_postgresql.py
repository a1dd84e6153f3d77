"""The preflight logs in to PostgreSQL as the backend's driver does, and only to a server that proves who it is."""

from __future__ import annotations

import asyncio
import itertools
import os
import struct
import time
from typing import TYPE_CHECKING, Any, get_args

import asyncpg
import pytest

from tests.support.ansible_module import import_util, run_module
from tests.support.certificates import SignedCertificate, sign
from tests.support.fake_postgresql import FakePostgres, Fault, Method
from tests.support.threaded_server import serving_connections

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

PASSWORD = "secret-word"
METHODS: tuple[Method, ...] = get_args(Method)


def options(server: FakePostgres, password: str = PASSWORD, **values: Any) -> dict[str, Any]:
    """Return the option `database` of the module for this server."""
    login = {"variables": "ag_ui_database_password", "user": "test", "password": password}
    common = {"host": "127.0.0.1", "port": server.port, "name": "test", "sslmode": "prefer"}
    return common | {"ca": "", "standbys": [], "logins": [login]} | values


def problems(server: FakePostgres, timeout: float = 5, **values: Any) -> list[str]:
    """Return the problems that the check finds with this server."""
    check = import_util("ag_ui_datastores").database_problems
    found: list[str] = check(options(server, **values), timeout)
    return found


def problems_of_module(folder: Path, server: FakePostgres) -> list[str]:
    """Return the same as the module reports them, from a process that a test can end."""
    arguments = {
        "account": {"name": "root", "uid": 0},
        "certificate": "/nonexistent",
        "database": options(server),
    }
    path = f"{folder}:{os.environ['PATH']}"
    done = run_module("ag_ui_preflight", arguments, folder, {"LC_ALL": "C.UTF-8", "PATH": path})
    assert "problems" in done or not done.get("failed"), done
    return [one for one in done.get("problems", []) if "run by systemd" not in one]


def driver_logs_in(server: FakePostgres, mode: str = "prefer", password: str = PASSWORD) -> bool:
    """Whether the backend's driver logs in, with one of the modes that the backend gives it as they are."""

    async def attempt() -> None:
        where = {"host": "127.0.0.1", "port": server.port, "user": "test", "database": "test"}
        connection = await asyncpg.connect(**where, password=password, ssl=mode, timeout=10)
        connection.terminate()
        await asyncio.sleep(0)

    try:
        asyncio.run(attempt())
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return False
    return True


# --- ways to log in -----------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_login_succeeds_with_each_method_of_the_driver(tmp_path: Path, method: Method) -> None:
    """Also in clear and as MD5 without TLS: the backend would send the password in the same way."""
    with serving_connections(FakePostgres(method=method)) as server:
        assert driver_logs_in(server)
        sent = len(server.secrets)
        assert problems_of_module(tmp_path, server) == []
        assert len(server.secrets) == 4 * sent  # one login and two for the pool, and the driver's


@pytest.mark.parametrize("method", ["scram", "cleartext", "md5"])
def test_wrong_password_is_reported(method: Method) -> None:
    with serving_connections(FakePostgres(method=method)) as server:
        assert not driver_logs_in(server, password="wrong")
        [found] = problems(server, password="wrong")
    assert found.startswith("ag_ui_database_password, ag_ui_database_name: PostgreSQL at ")
    assert "refuses the login (password authentication failed)" in found


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("p\u00e4sswort", "p\u00e4sswort"),
        ("pa\u0308sswort", "p\u00e4sswort"),
        ("\ufb01ve\u00a0six\u00ad", "five six"),
        # Not allowed by SASLprep, and so taken as it is: of both directions, and not assigned in Unicode 3.2.
        ("\u05d0a\ufb01", "\u05d0a\ufb01"),
        ("\U0001f980\ufb01", "\U0001f980\ufb01"),
    ],
)
def test_password_is_normalized_like_in_server_and_driver(written: str, stored: str) -> None:
    with serving_connections(FakePostgres(password=stored)) as server:
        assert driver_logs_in(server, password=written)
        assert problems(server, password=written) == []


# --- the server's proof -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("foreign nonce", "its SCRAM-SHA-256 nonce does not continue that of the client"),
        ("same nonce", "its SCRAM-SHA-256 nonce does not continue that of the client"),
        ("huge iterations", "it asks for 2147483647 SCRAM-SHA-256 iterations"),
        ("endless iterations", "it asks for too many SCRAM-SHA-256 iterations"),
        ("no iterations", "its first SCRAM-SHA-256 message is malformed"),
        ("salt is not base64", "is not base64"),
        ("ok at once", "it does not complete SCRAM-SHA-256"),
        ("cleartext after the first message", "it does not complete SCRAM-SHA-256"),
        ("ok without the final message", "it does not complete SCRAM-SHA-256"),
        ("wrong signature", "its SCRAM-SHA-256 signature is wrong"),
        ("no signature", "its final SCRAM-SHA-256 message has no signature"),
        ("signature is not base64", "is not base64"),
    ],
)
def test_server_without_proof_of_the_password_is_reported(
    tmp_path: Path, fault: Fault, words: str
) -> None:
    with serving_connections(FakePostgres(fault=fault)) as server:
        started = time.monotonic()
        # Not in this process, where nothing could end a computation of so many iterations.
        check = problems_of_module if "iterations" in fault else lambda _, server: problems(server)
        [found] = check(tmp_path, server)
        assert time.monotonic() - started < 30
    assert found.startswith("ag_ui_database_host, ag_ui_database_port: the server at 127.0.0.1:")
    assert "has not proved that it knows the password" in found
    assert words in found
    assert PASSWORD.encode() + b"\0" not in server.secrets


def test_recommended_number_of_iterations_is_accepted() -> None:
    with serving_connections(FakePostgres(iterations=600_000)) as server:
        assert problems(server) == []


def test_unsupported_mechanism_is_reported() -> None:
    with serving_connections(FakePostgres(fault="only another mechanism")) as server:
        assert not driver_logs_in(server)
        [found] = problems(server)
    assert "refuses the login (it does not offer SCRAM-SHA-256)" in found


# --- TLS ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_no_password_is_sent_with_an_untrusted_certificate(
    context: ssl.SSLContext, authority: SignedCertificate, method: Method
) -> None:
    foreign = sign("another").pem
    with serving_connections(FakePostgres(method=method, context=context)) as server:
        for mode, host, ca in (
            ("verify-ca", "127.0.0.1", foreign),
            ("verify-full", "localhost", foreign),
            ("verify-full", "127.0.0.1", authority.pem),
        ):
            [found] = problems(server, sslmode=mode, host=host, ca=ca)
            assert found.startswith("ag_ui_database_sslmode: TLS with PostgreSQL at ")
            assert "CERTIFICATE_VERIFY_FAILED" in found
        assert server.startups == []
        accepted = {"verify-ca": "127.0.0.1", "verify-full": "localhost"}
        for mode, host in accepted.items():
            assert problems(server, sslmode=mode, host=host, ca=authority.pem) == []
        assert server.startups == [True] * 6


@pytest.mark.parametrize("refuses", ["nothing", "plain", "tls"])
@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_sslmode_tries_the_same_connections_as_the_driver(
    context: ssl.SSLContext, mode: str, refuses: Any
) -> None:
    with serving_connections(FakePostgres(context=context, refuses=refuses)) as server:
        is_accepted = driver_logs_in(server, mode)
        tried = list(server.startups)
        server.startups.clear()
        found = problems(server, sslmode=mode)
        assert (found == []) == is_accepted
        assert server.startups == tried * (3 if is_accepted else 1)
        assert is_accepted == (mode != "disable" or refuses != "plain")


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_required_tls_never_falls_back_to_plain_text(mode: str) -> None:
    with serving_connections(FakePostgres()) as server:
        [found] = problems(server, sslmode=mode)
        assert server.startups == []
    assert f"the server has no TLS, and sslmode is {mode}" in found


def test_wrong_password_is_reported_despite_the_second_error(
    context: ssl.SSLContext,
) -> None:
    with serving_connections(FakePostgres(context=context, refuses="plain")) as server:
        for mode in ("allow", "prefer"):
            [found] = problems(server, sslmode=mode, password="wrong")
            assert "refuses the login (password authentication failed)" in found


def test_refusal_is_retried_only_if_another_connection_may_succeed(
    context: ssl.SSLContext,
) -> None:
    for server in (
        FakePostgres(refuses="plain"),
        FakePostgres(context=context, ends="after the login"),
    ):
        with serving_connections(server):
            assert not driver_logs_in(server)
            tried = list(server.startups)
            server.startups.clear()
            [found] = problems(server)
            assert "refuses the login (" in found
            assert server.startups == tried
            assert len(tried) == 1


# --- the pool -----------------------------------------------------------------------------


def test_transaction_pool_is_reported() -> None:
    with serving_connections(FakePostgres(pids=itertools.repeat(1000))) as server:
        [found] = problems(server)
    assert found.startswith("ag_ui_database_host, ag_ui_database_port: at 127.0.0.1:")
    assert "pool_mode = session" in found


def test_connection_closed_at_a_query_is_reported() -> None:
    with serving_connections(FakePostgres(ends="at a query")) as server:
        [found] = problems(server)
    assert "refuses the login (terminating connection due to administrator command)" in found


# --- bounds -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"R" + struct.pack("!i", 1 << 30),
        b"R" + struct.pack("!i", -1),
        b"R" + struct.pack("!i", 4),
        # Messages that are skipped, without an end.
        (b"N" + struct.pack("!i", 60_000) + bytes(59_996)) * 20,
    ],
)
def test_response_of_another_protocol_ends_the_check(answer: bytes) -> None:
    with serving_connections(FakePostgres(answer=answer)) as server:
        [found] = problems(server, sslmode="disable")
    assert found.startswith("ag_ui_database_host, ag_ui_database_port: PostgreSQL at ")
    assert "it does not answer as PostgreSQL does" in found or "it sends more than" in found


def test_slow_server_ends_the_check() -> None:
    message = b"N" + struct.pack("!i", 400) + bytes(396)
    with serving_connections(FakePostgres(drips=message)) as server:
        started = time.monotonic()
        [found] = problems(server, timeout=1)
        assert time.monotonic() - started < 20
    assert "cannot be reached from this host (timed out)" in found


def test_server_message_is_truncated_without_control_characters() -> None:
    words = b"M\x1b[31mno" + b"o" * 5000 + b"\0\0"
    with serving_connections(
        FakePostgres(answer=b"E" + struct.pack("!i", len(words) + 4) + words)
    ) as server:
        [found] = problems(server, sslmode="disable")
    assert "refuses the login ([31mnooo" in found
    assert len(found) < 700
