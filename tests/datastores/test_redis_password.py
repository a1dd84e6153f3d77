"""The password of a Redis with a replica and Sentinels is changed, and failovers go on working."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ansible_module import run_module
from tests.support.replicated_redis import ReplicatedRedis, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NEW, FORMER = "the-new-password", "the-former-password"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ReplicatedRedis]]:
    """Start servers, which are ended after the test."""
    started = []

    def start_servers(**options: Any) -> ReplicatedRedis:
        started.append(ReplicatedRedis(tmp_path, FORMER, **options))
        return started[-1]

    yield start_servers
    for servers in started:
        servers.close()


def change(
    folder: Path, servers: ReplicatedRedis, login: dict[str, str] | None = None, **options: Any
) -> dict[str, Any]:
    server = servers.options(password=NEW) | (login or {})
    common = {"redis": server, "previous_password": FORMER}
    done = run_module("ag_ui_redis_password", common | options, folder, {})
    assert NEW not in str(done)
    assert FORMER not in str(done)
    return done


def test_failovers_work_during_the_change_and_after_it(
    tmp_path: Path, start: Callable[..., ReplicatedRedis]
) -> None:
    servers = start()
    ports = (servers.first, servers.second)
    with connect(servers.second, FORMER) as kept:
        done = change(tmp_path, servers)
        assert (done["changed"], done["accepts_previous"], done["stored"]) == (True, True, True)
        assert kept.ping()
    assert all(servers.accepts(port, word) for port in ports for word in (NEW, FORMER))
    assert not change(tmp_path, servers)["changed"]
    servers.fail_over(NEW)
    done = change(tmp_path, servers, remove_previous=True)
    assert (done["changed"], done["accepts_previous"], done["stored"]) == (True, False, True)
    assert not change(tmp_path, servers, remove_previous=True)["changed"]
    assert [servers.accepts(port, FORMER) for port in ports] == [False, False]
    with connect(servers.primary(), NEW) as client:
        client.client_kill_filter(_type="replica")
    servers.wait_until_replicated(NEW)
    # Also after a restart of each server: the failovers have killed both of them.
    servers.fail_over(NEW)
    assert [servers.accepts(port, FORMER) for port in ports] == [False, False]


def test_logins_of_replicas_and_sentinels_as_another_user_are_kept(
    tmp_path: Path, start: Callable[..., ReplicatedRedis]
) -> None:
    servers = start()
    for port in (servers.first, servers.second):
        with connect(port, FORMER) as client:
            client.execute_command("ACL", "SETUSER", "agui", "on", f">{FORMER}", "~*", "+@all")
    done = change(tmp_path, servers, {"user": "agui"}, remove_previous=True)
    assert (done["changed"], done["accepts_previous"]) == (True, False)
    for port in (servers.first, servers.second):
        assert servers.accepts(port, NEW, "agui")
        assert not servers.accepts(port, FORMER, "agui")
    assert not [port for port in servers.sentinels if NEW in servers.config(port)]
    servers.fail_over(FORMER)


def test_servers_that_would_keep_the_former_password_are_refused(
    tmp_path: Path, start: Callable[..., ReplicatedRedis]
) -> None:
    servers = start()
    servers.kill(servers.second)
    done = change(tmp_path, servers)
    assert done["failed"]
    assert f"except for: 127.0.0.1:{servers.second}" in done["msg"]
    servers.start(servers.second)
    servers.wait_until_replicated(FORMER)
    servers.kill(servers.sentinels[2])
    done = change(tmp_path, servers)
    assert f"the Sentinel at 127.0.0.1:{servers.sentinels[2]} cannot be reached" in done["msg"]
    named = servers.options()["sentinels"][:2]
    done = change(tmp_path, servers, {"sentinels": named})
    assert "ag_ui_redis_sentinels has 2 Sentinels, and they know of 3" in done["msg"]
    servers.start(servers.sentinels[2])
    # The next run completes the one that has failed.
    assert not change(tmp_path, servers).get("failed")
    servers.fail_over(NEW)


def test_replica_without_sentinels_is_changed_too(
    tmp_path: Path, start: Callable[..., ReplicatedRedis]
) -> None:
    servers = start(sentinels=0)
    assert change(tmp_path, servers)["unchanged"] == []
    done = change(tmp_path, servers, remove_previous=True)
    assert (done["changed"], done["accepts_previous"]) == (True, False)
    assert not servers.accepts(servers.second, FORMER)
    with connect(servers.first, NEW) as client:
        client.client_kill_filter(_type="replica")
    servers.wait_until_replicated(NEW)


def test_former_password_stays_while_a_replica_cannot_be_changed(
    tmp_path: Path, start: Callable[..., ReplicatedRedis]
) -> None:
    servers = start(sentinels=0, replica_announce_port=1)
    done = change(tmp_path, servers)
    assert done["changed"]
    [unchanged] = done["unchanged"]
    assert unchanged.startswith("127.0.0.1:1 (")
    done = change(tmp_path, servers, remove_previous=True)
    assert done["failed"]
    assert "Redis still accepts the former password: 127.0.0.1:1 (" in done["msg"]
    assert servers.accepts(servers.first, FORMER)
