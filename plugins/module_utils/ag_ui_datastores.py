"""Check that the backend can log in to Redis and PostgreSQL; return messages for the operator."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_connection import (
    RefusedError,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_postgresql import (
    DatabaseOptions,
    LoginOptions,
    log_in,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_redis import (
    Redis,
    RedisOptions,
    ServerOptions,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_scram import (
    UnverifiedServerError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# A busy transaction pooler may use different server processes for the first queries.
POOL_QUERIES = 5


def format_endpoint(host: str, port: int) -> str:
    """Format an endpoint as `host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Split `host:port`; an IPv6 address is in brackets."""
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]"), int(port)


def redis_problems(server: RedisOptions, timeout: float) -> list[str]:
    """Log in to Redis and select the database, as the backend does.

    Args:
        server: The server and the login, or its Sentinels.
        timeout: Seconds for the connection, and for each response.

    Returns:
        A message for each problem.
    """
    if not server["sentinels"]:
        return primary_problems(server, "ag_ui_redis_host, ag_ui_redis_port", timeout)
    found: dict[str, tuple[str, int]] = {}
    problems, silent = [], []
    for sentinel in server["sentinels"]:
        try:
            found[sentinel] = primary_of(server, sentinel, timeout)
        except SentinelError as error:
            problems.append(str(error))
        except OSError as error:
            silent.append(f"{sentinel} ({error})")
    # A Sentinel that is down must not prevent a deployment: the others go on without it.
    if not problems and len(silent) * 2 >= len(server["sentinels"]):
        problems.append(
            f"ag_ui_redis_sentinels: too few Sentinels can be reached from this host, and they promote a replica only "
            f"with a majority. Not reached: {', '.join(silent)}. Start them, allow this host in their firewall, or "
            f"correct the variable."
        )
    if len(set(found.values())) > 1:
        named = "; ".join(f"{name}: {format_endpoint(*primary)}" for name, primary in found.items())
        problems.append(
            f"ag_ui_redis_sentinels: the Sentinels name different primaries ({named}). Wait until a failover has "
            f"ended, or correct the variable, so that all watch the same servers."
        )
    if problems:
        return problems
    host, port = next(iter(found.values()))
    return primary_problems(server | {"host": host, "port": port}, "ag_ui_redis_sentinels", timeout)


class SentinelError(Exception):
    """A Sentinel cannot be used; the message names the variable and the remedy."""


def primary_of(server: RedisOptions, sentinel: str, timeout: float) -> tuple[str, int]:
    """Ask a Sentinel for the primary.

    Args:
        server: The login at the Sentinels, and the name of the primary.
        sentinel: The endpoint of the Sentinel.
        timeout: Seconds for the connection, and for each response.

    Returns:
        Host and port of the primary.

    Raises:
        SentinelError: The server is no Sentinel, refuses the login, or does not know the name.
        OSError: The server cannot be reached.
    """
    with sentinel_session(server, sentinel, timeout) as client:
        primary = client.primary(server["sentinel_service"])
    if primary is None:
        raise SentinelError(
            f"ag_ui_redis_sentinel_service: the Sentinel at {sentinel} does not know {server['sentinel_service']!r}. "
            f"Set the variable to the name in its configuration (sentinel monitor NAME …)."
        )
    return primary


@contextlib.contextmanager
def sentinel_session(server: RedisOptions, sentinel: str, timeout: float) -> Iterator[Redis]:
    """Log in to a Sentinel for the duration of the block.

    Args:
        server: The login at the Sentinels.
        sentinel: The endpoint of the Sentinel.
        timeout: Seconds for the connection, and for each response.

    Raises:
        SentinelError: The server is no Sentinel, or refuses the login or a command of the block.
        OSError: The server cannot be reached.
    """
    host, port = split_endpoint(sentinel)
    unresolved = resolve_problems("ag_ui_redis_sentinels", host)
    if unresolved:
        raise SentinelError(unresolved[0])
    options = ServerOptions(host=host, port=port, tls=server["tls"], ca=server["ca"])
    try:
        with contextlib.closing(Redis(options, timeout)) as client:
            client.log_in(server["sentinel_user"], server["sentinel_password"])
            if client.info("server", "redis_mode") not in {"", "sentinel"}:
                raise SentinelError(
                    f"ag_ui_redis_sentinels: at {sentinel} is no Sentinel. Write the addresses of the Sentinels, whose "
                    f"port is usually 26379, or set ag_ui_redis_host and ag_ui_redis_port instead."
                )
            yield client
    except ssl.SSLError as error:
        text = certificate_problem("ag_ui_redis_tls", f"the Sentinel at {sentinel}", error)
        raise SentinelError(text) from error
    except RefusedError as refusal:
        raise SentinelError(
            f"ag_ui_redis_sentinel_password: the Sentinel at {sentinel} refuses the login or the request ({refusal}). "
            f"Set ag_ui_redis_sentinel_password to its password (empty if it has none) and ag_ui_redis_sentinel_user "
            f"to its user (empty for the default one)."
        ) from refusal


def primary_problems(server: RedisOptions, variables: str, timeout: float) -> list[str]:
    """Log in to the Redis at `host` and `port` and select the database.

    Args:
        server: The server and the login.
        variables: Names of the role's variables that lead to this server.
        timeout: Seconds for the connection, and for each response.

    Returns:
        A message for each problem.
    """
    unresolved = resolve_problems(variables.partition(",")[0], server["host"])
    if unresolved:
        return unresolved
    address = format_endpoint(server["host"], server["port"])
    try:
        with contextlib.closing(Redis(server, timeout)) as client:
            client.log_in(server["user"], server["password"])
            if wrong := role_problems(client, variables, address):
                return wrong
            client.command("SELECT", str(server["db"]))
    except ssl.SSLError as error:
        return [certificate_problem("ag_ui_redis_tls", f"Redis at {address}", error)]
    except RefusedError as refusal:
        return [
            (
                f"ag_ui_redis_password: Redis at {address} refuses the login or the database "
                f"{server['db']} ({refusal}). Set ag_ui_redis_password to its password (empty if it "
                f"has none), ag_ui_redis_user to its user (empty for the default one) and ag_ui_redis_db to "
                f"one of its databases."
            )
        ]
    except OSError as error:
        return [
            (
                f"{variables}: Redis at {address} cannot be reached from this host "
                f"({error}). Start it, allow this host in its firewall, or correct the variables."
            )
        ]
    return []


def role_problems(client: Redis, variables: str, address: str) -> list[str]:
    """Check that a server is a primary, as far as the user may ask for that."""
    mode = client.info("server", "redis_mode")
    if mode not in {"", "standalone"}:
        return [
            (
                f"{variables}: at {address} is a Redis {mode}, which is not supported here. "
                f"Set them to the primary, or to a name that points to it; for Sentinels set ag_ui_redis_sentinels."
            )
        ]
    if client.info("replication", "role") == "slave":
        return [
            (
                f"{variables}: the Redis at {address} is a replica, which refuses writes. Set them to the primary, "
                f"or to a name that points to it; if Sentinels have named it, wait until the failover has ended."
            )
        ]
    return []


def database_problems(server: DatabaseOptions, timeout: float) -> list[str]:
    """Log in to the database with each login of the backend and the migrations.

    Args:
        server: The servers and the logins.
        timeout: Seconds for each connection, and for each response.

    Returns:
        A message for each problem.
    """
    if not server["standbys"]:
        return server_problems(server, "ag_ui_database_host, ag_ui_database_port", timeout)
    primaries, problems, silent = [], [], []
    for endpoint in [format_endpoint(server["host"], server["port"]), *server["standbys"]]:
        host, port = split_endpoint(endpoint)
        one = server | {"host": host, "port": port}
        if unresolved := resolve_problems("ag_ui_database_standbys", host):
            problems += unresolved
            continue
        try:
            login = usable_login(one, server["logins"][0], timeout)
            with contextlib.closing(log_in(one, login, timeout)) as client:
                if not client.is_in_recovery():
                    primaries.append(endpoint)
        except OSError as error:
            # A server that is down must not prevent a deployment: the others go on without it.
            silent.append(f"{endpoint} ({error})")
            continue
        except (RefusedError, UnverifiedServerError):
            # Reported with its reason below.
            pass
        problems += server_problems(one, "ag_ui_database_standbys", timeout)
    if problems:
        return problems
    if not primaries:
        reasons = f" Not reached: {', '.join(silent)}." if silent else ""
        return [
            (
                f"ag_ui_database_host, ag_ui_database_standbys: none of these servers is a primary, which accepts "
                f"writes.{reasons} Start the primary, promote a standby, or correct the variables."
            )
        ]
    if len(primaries) > 1:
        return [
            (
                f"ag_ui_database_standbys: {' and '.join(primaries)} both accept writes, so they have different data. "
                f"Stop the one that must not be used, and make it a standby of the other before it starts again."
            )
        ]
    return []


def server_problems(server: DatabaseOptions, variables: str, timeout: float) -> list[str]:
    """Log in to one server with each login; `variables` are the role's variables that lead to it."""
    unresolved = resolve_problems(variables.partition(",")[0], server["host"])
    if unresolved:
        return unresolved
    address = format_endpoint(server["host"], server["port"])
    problems = []
    try:
        for login in server["logins"]:
            problems += login_problems(server, login, timeout)
        if not problems:
            problems += pool_problems(server, variables, timeout)
    except UnverifiedServerError as error:
        return [
            (
                f"{variables}: the server at {address} has not proved that it knows the "
                f"password of the login ({error}), and may not be PostgreSQL. Correct the variables, or find "
                f"out which program listens there."
            )
        ]
    except ssl.SSLError as error:
        return [certificate_problem("ag_ui_database_sslmode", f"PostgreSQL at {address}", error)]
    except OSError as error:
        return [
            (
                f"{variables}: PostgreSQL at {address} cannot be reached from "
                f"this host ({error}). Start it, allow this host in its firewall, or correct the "
                f"variables."
            )
        ]
    return problems


def login_problems(server: DatabaseOptions, login: LoginOptions, timeout: float) -> list[str]:
    """Log in once; all errors of `log_in` except `RefusedError` are raised."""
    try:
        log_in(server, usable_login(server, login, timeout), timeout).close()
    except RefusedError as refusal:
        return [login_problem(server, login, refusal)]
    return []


def usable_login(server: DatabaseOptions, login: LoginOptions, timeout: float) -> LoginOptions:
    """Return the login with its previous password if PostgreSQL accepts only that one, otherwise as it is."""
    if not login.get("previous_password"):
        return login
    previous: LoginOptions = {**login, "password": login["previous_password"]}
    accepted = (one for one in (login, previous) if accepts(server, one, timeout))
    return next(accepted, login)


def accepts(server: DatabaseOptions, login: LoginOptions, timeout: float) -> bool:
    """Whether PostgreSQL accepts a login; all errors of `log_in` except `RefusedError` are raised."""
    try:
        log_in(server, login, timeout).close()
    except RefusedError:
        return False
    return True


def previous_logins(server: DatabaseOptions, timeout: float) -> list[str]:
    """Return the users for whom PostgreSQL accepts only the previous password."""
    primary = database_primary(server, server["logins"][0], timeout)
    return [
        login["user"]
        for login in server["logins"]
        if usable_login(primary, login, timeout) is not login
    ]


def has_user(server: DatabaseOptions, email: str, timeout: float) -> bool:
    """Whether the backend has an account with this email; it has none before the first migration."""
    primary = database_primary(server, server["logins"][0], timeout)
    login = usable_login(primary, primary["logins"][0], timeout)
    with contextlib.closing(log_in(primary, login, timeout)) as client:
        try:
            return client.has_user(email)
        except RefusedError:
            return False


def database_primary(
    server: DatabaseOptions, login: LoginOptions, timeout: float
) -> DatabaseOptions:
    """Return the options for the one of several servers that accepts writes; the first one if none is found.

    Raises:
        OSError, RefusedError, UnverifiedServerError: Not for a server that another one stands in for.
    """
    if not server["standbys"]:
        return server
    for endpoint in [format_endpoint(server["host"], server["port"]), *server["standbys"]]:
        host, port = split_endpoint(endpoint)
        one = server | {"host": host, "port": port}
        with contextlib.suppress(OSError, RefusedError, UnverifiedServerError):
            usable = usable_login(one, login, timeout)
            with contextlib.closing(log_in(one, usable, timeout)) as client:
                if not client.is_in_recovery():
                    return one
    return server


def pool_problems(server: DatabaseOptions, variables: str, timeout: float) -> list[str]:
    """Detect transaction pooling: one server process serves two connections that are open at once."""
    login = usable_login(server, server["logins"][0], timeout)
    try:
        with contextlib.ExitStack() as stack:
            # Fails if a limit allows only one connection; the backend needs several too.
            first, second = (
                stack.enter_context(contextlib.closing(log_in(server, login, timeout)))
                for _ in range(2)
            )
            if all(first.server_process() != second.server_process() for _ in range(POOL_QUERIES)):
                return []
    except RefusedError as refusal:
        return [login_problem(server, login, refusal)]
    address = format_endpoint(server["host"], server["port"])
    return [
        (
            f"{variables}: at {address} a pooler assigns connections to PostgreSQL per "
            f"transaction (pool_mode in PgBouncer), so that session locks and settings are lost. Use a pool with "
            f"pool_mode = session, or the address of PostgreSQL itself."
        )
    ]


def resolve_problems(variable: str, host: str) -> list[str]:
    """Resolve a name with the resolver of the target, which also reads /etc/hosts."""
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError) as error:
        return [
            (
                f"{variable}: the name {host!r} cannot be resolved on this host ({error}). "
                f"Correct the variable, or add the name to DNS or to /etc/hosts of this host."
            )
        ]
    return []


def login_problem(server: DatabaseOptions, login: LoginOptions, refusal: RefusedError) -> str:
    """Format the message for a login that PostgreSQL refuses."""
    address = format_endpoint(server["host"], server["port"])
    return (
        f"{login['variables']}, ag_ui_database_name: PostgreSQL at {address} refuses the login ({refusal}). "
        f"Correct the variables, or create the role and the database there and allow this "
        f"host in pg_hba.conf."
    )


def certificate_problem(variable: str, server: str, error: ssl.SSLError) -> str:
    """Format the message for a failed TLS handshake."""
    return (
        f"{variable}: TLS with {server} fails ({error}). Set ag_ui_datastores_ca to the "
        f"certificates of the authorities that signed its certificate, and the host to a name in it; or enable TLS "
        f"on the server."
    )
