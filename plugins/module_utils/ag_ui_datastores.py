"""Check that the backend can log in to Redis and PostgreSQL; return messages for the operator."""

from __future__ import annotations

import contextlib
import socket
import ssl

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
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_scram import (
    UnverifiedServerError,
)

# A busy transaction pooler may use different server processes for the first queries.
POOL_QUERIES = 5


def format_endpoint(host: str, port: int) -> str:
    """Format an endpoint as `host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def redis_problems(server: RedisOptions, timeout: float) -> list[str]:
    """Log in to Redis and select the database, as the backend does.

    Args:
        server: The server and the login.
        timeout: Seconds for the connection, and for each response.

    Returns:
        A message for each problem.
    """
    unresolved = resolve_problems("ag_ui_redis_host", server["host"])
    if unresolved:
        return unresolved
    address = format_endpoint(server["host"], server["port"])
    try:
        with contextlib.closing(Redis(server, timeout)) as client:
            if server["password"]:
                names = [server["user"]] if server["user"] else []
                client.command("AUTH", *names, server["password"])
            client.command("PING")
            mode = client.mode()
            if mode not in {"", "standalone"}:
                return [
                    (
                        f"ag_ui_redis_host, ag_ui_redis_port: at {address} is a Redis {mode}, which is not supported. "
                        f"Set them to the primary, or to a name that points to it."
                    )
                ]
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
                f"ag_ui_redis_host, ag_ui_redis_port: Redis at {address} cannot be reached from this host "
                f"({error}). Start it, allow this host in its firewall, or correct the variables."
            )
        ]
    return []


def database_problems(server: DatabaseOptions, timeout: float) -> list[str]:
    """Log in to the database with each login of the backend and the migrations.

    Args:
        server: The server and the logins.
        timeout: Seconds for each connection, and for each response.

    Returns:
        A message for each problem.
    """
    unresolved = resolve_problems("ag_ui_database_host", server["host"])
    if unresolved:
        return unresolved
    address = format_endpoint(server["host"], server["port"])
    problems = []
    try:
        for login in server["logins"]:
            problems += login_problems(server, login, timeout)
        if not problems:
            problems += pool_problems(server, timeout)
    except UnverifiedServerError as error:
        return [
            (
                f"ag_ui_database_host, ag_ui_database_port: the server at {address} has not proved that it knows the "
                f"password of the login ({error}), and may not be PostgreSQL. Correct the variables, or find "
                f"out which program listens there."
            )
        ]
    except ssl.SSLError as error:
        return [certificate_problem("ag_ui_database_sslmode", f"PostgreSQL at {address}", error)]
    except OSError as error:
        return [
            (
                f"ag_ui_database_host, ag_ui_database_port: PostgreSQL at {address} cannot be reached from "
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
    return [
        login["user"]
        for login in server["logins"]
        if usable_login(server, login, timeout) is not login
    ]


def pool_problems(server: DatabaseOptions, timeout: float) -> list[str]:
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
            f"ag_ui_database_host, ag_ui_database_port: at {address} a pooler assigns connections to PostgreSQL per "
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
