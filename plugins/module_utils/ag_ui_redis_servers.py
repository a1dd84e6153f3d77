"""Find the servers of a replicated Redis, and change by which password they and their Sentinels log in."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_connection import (
    RefusedError,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_datastores import (
    SentinelError,
    format_endpoint,
    primary_of,
    sentinel_session,
)

if TYPE_CHECKING:
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_redis import (
        Redis,
        RedisOptions,
    )

DEFAULT_USER = "default"
_REPLICA = re.compile(r"^slave[0-9]+:ip=([^,\s]+),port=([0-9]+)", re.MULTILINE)
_SENTINEL = re.compile(r" name=sentinel-\S+ .*?\buser=(\S+)")


class Servers(NamedTuple):
    """The servers of a Redis, each with its host and port."""

    primary: tuple[str, int]
    replicas: list[tuple[str, int]]


def servers_of_sentinels(server: RedisOptions, timeout: float) -> Servers:
    """Ask all Sentinels for the primary, and for the replicas that they know, also for those that are down.

    Args:
        server: The Sentinels and their login.
        timeout: Seconds for the connection, and for each response.

    Raises:
        SentinelError: A Sentinel cannot be used or reached, they name different primaries, or there are more Sentinels.
    """
    service = server["sentinel_service"]
    primaries, replicas, others = set(), set(), 0
    for sentinel in server["sentinels"]:
        try:
            primaries.add(primary_of(server, sentinel, timeout))
            with sentinel_session(server, sentinel, timeout) as client:
                listed = client.records("SENTINEL", "REPLICAS", service)
                replicas |= {(one["ip"], int(one["port"])) for one in listed}
                others = max(others, len(client.records("SENTINEL", "SENTINELS", service)))
        except OSError as error:
            raise SentinelError(
                f"ag_ui_redis_sentinels: the Sentinel at {sentinel} cannot be reached ({error}), and would keep the "
                f"former password of Redis. Start it, or remove it from the variable if it is gone for good."
            ) from error
    if len(primaries) > 1:
        named = " and ".join(sorted(format_endpoint(*one) for one in primaries))
        raise SentinelError(
            f"ag_ui_redis_sentinels: the Sentinels name different primaries ({named}). Wait until a failover has ended."
        )
    if others + 1 > len(server["sentinels"]):
        raise SentinelError(
            f"ag_ui_redis_sentinels has {len(server['sentinels'])} Sentinels, and they know of {others + 1}: the others "
            f"would keep the former password of Redis. Name all of them; if one is gone for good, run SENTINEL RESET "
            f"{service} on each of those that remain."
        )
    [primary] = primaries
    return Servers(primary, sorted(replicas - {primary}))


def replicas_of(client: Redis) -> list[tuple[str, int]]:
    """Return the replicas that are connected to a primary; none if the user may not run INFO."""
    found = _REPLICA.findall(client.info_text("replication"))
    return [(host, int(port)) for host, port in found]


def replicate_with(client: Redis, user: str, former: str, new: str, *, check_mode: bool) -> bool:
    """Let a server replicate with the new password, if it replicates as this user with the former one.

    A primary needs that, too: it becomes a replica after a failover. An open connection of a replica is kept.

    Returns:
        Whether it had the former one.
    """
    values = {
        name: client.lines("CONFIG", "GET", name)[1:] for name in ("masteruser", "masterauth")
    }
    as_user = (*values["masteruser"], "")[0] or DEFAULT_USER
    if as_user != (user or DEFAULT_USER) or values["masterauth"] != [former]:
        return False
    if not check_mode:
        client.command("CONFIG", "SET", "masterauth", new)
    return True


def sentinel_users(client: Redis) -> set[str]:
    """Return the users as which Sentinels are logged in at a server."""
    return set(_SENTINEL.findall(client.text("CLIENT", "LIST", "TYPE", "pubsub")))


def tell_sentinels(server: RedisOptions, password: str, timeout: float) -> None:
    """Let all Sentinels log in to Redis with this password, which they store in their configuration.

    Raises:
        SentinelError: A Sentinel refuses it.
        OSError: A Sentinel cannot be reached.
    """
    for sentinel in server["sentinels"]:
        with sentinel_session(server, sentinel, timeout) as client:
            client.command("SENTINEL", "SET", server["sentinel_service"], "auth-pass", password)


def persist(client: Redis, *, rewrites: bool) -> bool:
    """Let Redis keep its users and settings over a restart.

    Args:
        client: A connection.
        rewrites: Whether its configuration file belongs to it, as it does with Sentinels.

    Returns:
        Whether it does; without a file of users, or the right to write it, it does not.
    """
    stored = False
    commands = [("ACL", "SAVE"), *([("CONFIG", "REWRITE")] if rewrites else [])]
    for command in commands:
        with contextlib.suppress(RefusedError):
            client.command(*command)
            stored = True
    return stored
