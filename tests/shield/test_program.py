"""The program and its publisher, against a fake Redis server that can be stopped."""

from __future__ import annotations

import os
import signal
import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import AuthenticationError

from tests.shield import Publisher, Stopped, crawl_job
from tests.shield.__main__ import URL_VARIABLE, main
from tests.shield.publisher import address_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PASSWORD = "open-sesame-of-the-tests"


class FakeRedis(socketserver.ThreadingTCPServer):
    """Implements the commands that a producer needs."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int = 0, *, refuse: str = "") -> None:
        super().__init__(("127.0.0.1", port), CommandHandler)
        self.refuse = refuse
        self.entries: list[list[bytes]] = []
        self.arrived = threading.Condition()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def wait_for(self, count: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.entries) >= count, 20)

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class CommandHandler(socketserver.StreamRequestHandler):
    """Answers the commands of one client in order."""

    server: FakeRedis

    def handle(self) -> None:
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(size + 2)[:-2])
            self.wfile.write(self.answer(words))

    def answer(self, words: list[bytes]) -> bytes:
        name = words[0].upper()
        if name == b"HELLO":
            return b"-ERR unknown command\r\n"
        if name == b"AUTH" and self.server.refuse:
            return f"-{self.server.refuse}\r\n".encode()
        if name != b"XADD":
            return b"+OK\r\n"
        with self.server.arrived:
            self.server.entries.append(words)
            written = f"{len(self.server.entries)}-0"
            self.server.arrived.notify_all()
        return f"${len(written)}\r\n{written}\r\n".encode()


@pytest.fixture
def redis() -> Iterator[FakeRedis]:
    server = FakeRedis()
    yield server
    server.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["listen"], "invalid choice"),
        (["publish", "--redis-url", "http://host"], "not of the form redis://"),
        (["publish", "--redis-url", f"redis://:{PASSWORD}@host:port"], "not of the form redis://"),
        (["publish", "--redis-url", "redis://host", "--rate", "0"], "is not above zero"),
        (["publish", "--redis-url", "redis://host", "--rate", "nan"], "is not above zero"),
        (["publish", "--redis-url", "redis://host", "--jobs", "0"], "is not above zero"),
        (["publish", "--redis-url", "redis://host", "--jobs", "many"], "--jobs"),
        (["publish", "--redis-url", "redis://host", "--user-id", "me"], "--user-id"),
        (["publish", "--redis-url", "redis://host", "--sped", "2"], "--sped"),
        (["publish"], URL_VARIABLE),
    ],
)
def test_invalid_arguments_exit_with_usage(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    output = capsys.readouterr().err
    assert "usage:" in output
    assert message in output
    assert PASSWORD not in output


def start(url: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.shield", "publish", *arguments],
        cwd=ROOT,
        env={**os.environ, URL_VARIABLE: url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_program_ends_after_the_given_number_of_jobs(redis: FakeRedis) -> None:
    program = start(redis.url, "--jobs", "3", "--seed", "7", "--rate", "6000", "--speed", "500")
    output, _ = program.communicate(timeout=60)
    assert program.returncode == 0, output
    assert f"published {len(redis.entries)} entries of 3 jobs" in output
    assert PASSWORD not in output
    assert redis.entries[0][:5] == [b"XADD", b"shield:events", b"MAXLEN", b"~", b"10000"]
    jobs = {words[words.index(b"job_id") + 1] for words in redis.entries}
    assert len(jobs - {b""}) == 3


def test_sigterm_stops_the_program(redis: FakeRedis) -> None:
    program = start(redis.url, "--rate", "600", "--faults")
    redis.wait_for(5)
    program.send_signal(signal.SIGTERM)
    output, _ = program.communicate(timeout=10)
    assert program.returncode == 0, output
    assert "stopped" in output


def test_refused_password_ends_the_program() -> None:
    redis = FakeRedis(refuse="WRONGPASS invalid username-password pair")
    program = start(redis.url)
    output, _ = program.communicate(timeout=30)
    redis.close()
    assert program.returncode == 1
    assert "refuses" in output
    assert PASSWORD not in output


def test_publisher_retries_until_redis_is_back() -> None:
    first = FakeRedis()
    port = first.port
    notices: list[str] = []
    output = threading.Event()

    def notice(message: str) -> None:
        notices.append(message)
        output.set()

    publisher = Publisher(first.url, notice=notice)
    events = crawl_job(Random(1))
    assert publisher.publish(events[0]) == "1-0"
    publisher.close()
    first.close()

    thread = threading.Thread(target=publisher.publish, args=(events[1],))
    thread.start()
    assert output.wait(10)
    second = FakeRedis(port)
    thread.join(20)
    assert not thread.is_alive()
    assert len(second.entries) == 1
    assert [message.split(" is ")[1].split()[0] for message in notices] == ["unreachable", "back"]
    publisher.close()
    second.close()


def test_publisher_can_be_stopped_during_an_outage() -> None:
    stop = threading.Event()
    publisher = Publisher("redis://127.0.0.1:1", stop=stop, notice=lambda _message: stop.set())
    with pytest.raises(Stopped):
        publisher.publish(crawl_job(Random(1))[0])
    publisher.close()


def test_wrong_password_is_not_retried() -> None:
    redis = FakeRedis(refuse="WRONGPASS invalid username-password pair")
    publisher = Publisher(redis.url)
    with pytest.raises(AuthenticationError):
        publisher.publish(crawl_job(Random(1))[0])
    publisher.close()
    redis.close()


def test_address_of_omits_the_password() -> None:
    assert address_of("redis://user:secret@redis.example:7000/2") == "redis.example:7000/2"
    assert address_of("redis://redis.example") == "redis.example:6379"
