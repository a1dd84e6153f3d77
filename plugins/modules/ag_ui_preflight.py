#!/usr/bin/python
"""Check on the target, before anything is changed, whether a deployment can succeed."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import re
import secrets
import socket
import ssl
import struct
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_host import (
    account_problems,
    engine_problems,
    proxy_problems,
    systemd_problems,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_host_state import (
    host_state,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_ports import (
    port_problems,
)

DOCUMENTATION = r"""
---
module: ag_ui_preflight
short_description: Ask the target whether a deployment can succeed, and what is there
description:
  - Changes nothing. Looks at names, ports, the account, Redis and PostgreSQL, and reports every
    problem at once, each with the variable that is wrong and the remedy.
  - Returns all that the rest of the role wants to know of the target, so that a run that finds
    nothing to do has asked only once.
options:
  redis:
    description: >-
      Redis to log in to (host, port, user, password, db, whether by TLS, and the certificates of the authorities
      as PEM); none to leave it out.
    type: dict
  database:
    description: >-
      PostgreSQL to log in to (host, port, name, libpq's sslmode, the certificates of the authorities as PEM, and
      for each of the logins its variables, the user and the password); none to leave it out.
    type: dict
  ports:
    description: Ports to be free or ours (variable, address, port, unit or process).
    type: list
    elements: dict
    default: []
  proxy:
    description: >-
      Configuration of nginx (main, the files of the role in it, and the packaged sites that the role removes unless
      they were changed), and the ports that the role's site is the
      default server of (each with its variable).
    type: dict
  gateway:
    description: Address of the LiteLLM gateway; none to leave it out. One that does not answer is no problem.
    type: str
    default: ""
  account:
    description: Account to be free or ours (name, uid).
    type: dict
    required: true
  packages:
    description: Packages to look for.
    type: list
    elements: str
    default: []
  certificate:
    description: Certificate to look at.
    type: path
    required: true
  configuration:
    description: Directory with the releases.
    type: path
    default: /etc/ag-ui
  timeout:
    description: Seconds each connection may take.
    type: float
    default: 5
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Ask before changing anything
  hx_citadel.shield_ag_ui.ag_ui_preflight:
    account: {name: agui, uid: 1001}
    certificate: /etc/ag-ui/tls/server.crt
    configuration: /etc/ag-ui
    ports: [{variable: ag_ui_https_port, address: 0.0.0.0, port: 443, process: nginx}]
"""

RETURN = r"""
ipv6:
  description: Whether the target can listen on IPv6.
  returned: success
  type: bool
engine:
  description: Whether a Docker engine is installed, from whatever source.
  returned: success
  type: bool
missing:
  description: Those of the packages that are not installed.
  returned: success
  type: list
nginx:
  description: Version of nginx, empty if it is not installed.
  returned: success
  type: str
certificate:
  description: Names and addresses of the certificate; none if it is not there or ends within 30 days.
  returned: success
  type: list
enabled:
  description: Links by which systemd starts our units, relative to /etc/systemd/system.
  returned: success
  type: list
images:
  description: Images of the engine, as name and tag.
  returned: success
  type: list
instances:
  description: Running containers of instances, with the release they were started from.
  returned: success
  type: dict
units:
  description: >-
    Units of instances, enabled or not, with the release that each starts (empty for one that was tried and not kept)
    and where it listens.
  returned: success
  type: dict
releases:
  description: Releases that are written on the host.
  returned: success
  type: list
current:
  description: The release that all instances ran at the end of the last deployment; empty if there is none.
  returned: success
  type: str
"""

# One message for each problem, with the variable that is wrong and the remedy.
Problems = list[str]

# Version 3.0, and the code of an SSLRequest.
POSTGRES_PROTOCOL = 196608
POSTGRES_SSL_REQUEST = 80877103
# Bytes of a message header: type and length.
HEADER = 5
# Several queries, because a busy transaction pooler may first use different server processes.
POOL_LOOKS = 5
# Authentication methods that the server requests.
REQUEST_DONE, REQUEST_PLAIN, REQUEST_MD5, REQUEST_SASL = 0, 3, 5, 10

PASSWORD = {"type": "str", "no_log": True}
REDIS = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "user": {"type": "str", "default": ""},
    "tls": {"type": "bool", "default": False},
    "ca": {"type": "str", "default": ""},
    "password": PASSWORD,
    "db": {"type": "int", "required": True},
}
LOGIN = {
    "variables": {"type": "str", "required": True},
    "user": {"type": "str", "required": True},
    "password": PASSWORD,
}
DATABASE = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "sslmode": {"type": "str", "default": "prefer"},
    "ca": {"type": "str", "default": ""},
    "name": {"type": "str", "required": True},
    "logins": {"type": "list", "elements": "dict", "options": LOGIN, "required": True},
}


class RefusedError(Exception):
    """The server answered with an error."""


def where(host: str, port: int) -> str:
    """Format an endpoint as `host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tls_context(ca: str, *, trusted: bool, named: bool) -> ssl.SSLContext:
    """Make a TLS context.

    Args:
        ca: Trusted authorities in PEM; empty for those of the system.
        trusted: Whether to verify the certificate.
        named: Whether to verify the host name too.
    """
    context = ssl.create_default_context(cadata=ca or None)
    context.check_hostname = named
    if not trusted:
        context.verify_mode = ssl.CERT_NONE
    return context


def certificate_problem(variable: str, server: str, error: ssl.SSLError) -> str:
    """Format the message for a failed TLS handshake."""
    return (
        f"{variable}: TLS with {server} does not come about ({error}). Set ag_ui_datastores_ca to the "
        f"certificates of the authorities that signed its own, and the host to a name in it; or turn TLS on there."
    )


def resolve_problems(variable: str, host: str) -> Problems:
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


# --- Redis --------------------------------------------------------------------------------


def redis_command(stream: Any, *words: str) -> str:
    """Send one command.

    Args:
        stream: Connection as a binary file.
        words: Command and arguments.

    Returns:
        The reply, a simple string with its `+`.

    Raises:
        RefusedError: Any other reply, or the end of the connection.
    """
    frame = b"*%d\r\n" % len(words)
    for word in words:
        encoded = word.encode()
        frame += b"$%d\r\n%s\r\n" % (len(encoded), encoded)
    stream.write(frame)
    stream.flush()
    reply: str = stream.readline().decode(errors="replace").strip()
    if not reply.startswith("+"):
        raise RefusedError(reply.lstrip("-") or "it closed the connection")
    return reply


def redis_connection(server: dict[str, Any], timeout: float) -> socket.socket:
    """Connect, with TLS if the backend uses it; raise `ssl.SSLError` if the handshake fails."""
    connection = socket.create_connection((server["host"], server["port"]), timeout)
    if server["tls"]:
        context = tls_context(server["ca"], trusted=True, named=True)
        try:
            return context.wrap_socket(connection, server_hostname=server["host"])
        except TimeoutError:
            # A Redis without TLS takes the handshake for an incomplete command and waits for the rest.
            raise ssl.SSLError("the server does not answer it") from None
    return connection


def redis_mode(stream: Any) -> str:
    """Return `sentinel` or `cluster`; empty for a standalone server, or if INFO is not allowed."""
    stream.write(b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n")
    stream.flush()
    reply: str = stream.readline().decode(errors="replace").strip()
    if not reply.startswith("$"):
        return ""
    text = stream.read(int(reply[1:]) + 2).decode(errors="replace")
    mode = re.search(r"^redis_mode:(\w+)", text, re.MULTILINE)
    return mode[1] if mode and mode[1] != "standalone" else ""


def redis_problems(server: dict[str, Any], timeout: float) -> Problems:
    """Log in to Redis and select the database, as the backend does; `timeout` is in seconds."""
    host, port = str(server["host"]), int(server["port"])
    unresolved = resolve_problems("ag_ui_redis_host", host)
    if unresolved:
        return unresolved
    at = where(host, port)
    try:
        with redis_connection(server, timeout) as connection:
            stream = connection.makefile("rwb")
            if server["password"]:
                names = [server["user"]] if server["user"] else []
                redis_command(stream, "AUTH", *names, server["password"])
            redis_command(stream, "PING")
            if mode := redis_mode(stream):
                return [
                    (
                        f"ag_ui_redis_host, ag_ui_redis_port: at {at} is a Redis {mode}, which is not supported. "
                        f"Set them to the primary, or to a name that leads to it."
                    )
                ]
            redis_command(stream, "SELECT", str(server["db"]))
    except ssl.SSLError as error:
        return [certificate_problem("ag_ui_redis_tls", f"Redis at {at}", error)]
    except RefusedError as refusal:
        return [
            (
                f"ag_ui_redis_password: Redis at {at} refuses the login or the database "
                f"{server['db']} ({refusal}). Set ag_ui_redis_password to its password (empty if it "
                f"has none), ag_ui_redis_user to its user (empty for the default one) and ag_ui_redis_db to "
                f"one of its databases."
            )
        ]
    except OSError as error:
        return [
            (
                f"ag_ui_redis_host, ag_ui_redis_port: Redis at {at} cannot be reached from this host "
                f"({error}). Start it, let this host through its firewall, or correct the variables."
            )
        ]
    return []


# --- PostgreSQL ---------------------------------------------------------------------------


class Postgres:
    """A client for the part of PostgreSQL's wire protocol that a login needs."""

    def __init__(self, server: dict[str, Any], login: dict[str, Any], timeout: float) -> None:
        """Connect, and negotiate TLS as libpq does for `sslmode`.

        Args:
            server: The parameter `database` of the module.
            login: One of its logins.
            timeout: Seconds for each operation of the socket.

        Raises:
            OSError: The server cannot be reached.
            ssl.SSLError: TLS is required and fails.
        """
        self.user, self.password = str(login["user"]), str(login["password"])
        self.database = str(server["name"])
        host, mode = str(server["host"]), str(server["sslmode"])
        self.socket = socket.create_connection((host, int(server["port"])), timeout)
        if mode not in {"disable", "allow"}:
            self.socket.sendall(struct.pack("!ii", 8, POSTGRES_SSL_REQUEST))
            if self.socket.recv(1) == b"S":
                trusted = mode.startswith("verify")
                context = tls_context(server["ca"], trusted=trusted, named=mode == "verify-full")
                self.socket = context.wrap_socket(self.socket, server_hostname=host)
            elif mode != "prefer":
                raise ssl.SSLError(f"the server has no TLS, and sslmode is {mode}")
        self.stream = self.socket.makefile("rwb")

    def send(self, kind: bytes, payload: bytes) -> None:
        """Send one message; the type is empty for the startup message."""
        self.stream.write(kind + struct.pack("!i", len(payload) + 4) + payload)
        self.stream.flush()

    def message(self, kind: bytes) -> bytes:
        """Read until a message of this type and return its payload; raise `RefusedError` on an error message."""
        while True:
            header = self.stream.read(HEADER)
            if len(header) < HEADER:
                raise RefusedError("it closed the connection")
            payload: bytes = self.stream.read(struct.unpack("!i", header[1:])[0] - 4)
            if header[:1] == b"E":
                fields = {part[:1]: part[1:] for part in payload.split(b"\0") if part}
                raise RefusedError(fields.get(b"M", b"no reason given").decode(errors="replace"))
            if header[:1] == kind:
                return payload

    def request(self) -> tuple[int, bytes]:
        """Read the next authentication request; return its method and its data."""
        payload = self.message(b"R")
        return struct.unpack("!i", payload[:4])[0], payload[4:]

    def login(self) -> None:
        """Log in with the method that the server requests, and wait until it is ready for queries."""
        words = ["user", self.user, "database", self.database, "application_name", "ag-ui", "", ""]
        startup = "\0".join(words).encode()
        self.send(b"", struct.pack("!i", POSTGRES_PROTOCOL) + startup)
        request, payload = self.request()
        if request == REQUEST_PLAIN:
            self.send(b"p", self.password.encode() + b"\0")
            request, _ = self.request()
        elif request == REQUEST_MD5:
            inner = hashlib.md5((self.password + self.user).encode()).hexdigest()  # noqa: S324 - required by the protocol
            outer = hashlib.md5(inner.encode() + payload).hexdigest()  # noqa: S324 - required by the protocol
            self.send(b"p", b"md5" + outer.encode() + b"\0")
            request, _ = self.request()
        elif request == REQUEST_SASL:
            request = self.scram()
        if request != REQUEST_DONE:
            raise RefusedError(f"it asks for a way to log in that is not supported ({request})")
        self.message(b"Z")

    def process(self) -> bytes:
        """Return the row with the id of the server process; a pooler may use another one for each query."""
        self.send(b"Q", b"SELECT pg_backend_pid()\0")
        row = self.message(b"D")
        self.message(b"Z")
        return row

    def scram(self) -> int:
        """Authenticate with SCRAM-SHA-256 (RFC 7677) without channel binding; return the next request's method."""
        client_first = f"n=,r={secrets.token_urlsafe(18)}"
        message = f"n,,{client_first}".encode()
        length = struct.pack("!i", len(message))
        self.send(b"p", b"SCRAM-SHA-256\0" + length + message)
        _, payload = self.request()
        server_first = payload.decode()
        parts = dict(item.split("=", 1) for item in server_first.split(","))
        salted = hashlib.pbkdf2_hmac(
            "sha256", self.password.encode(), base64.b64decode(parts["s"]), int(parts["i"])
        )
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored_key = hashlib.sha256(client_key).digest()
        bare = f"c=biws,r={parts['r']}"
        signed = f"{client_first},{server_first},{bare}".encode()
        signature = hmac.digest(stored_key, signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self.send(b"p", f"{bare},p={base64.b64encode(proof).decode()}".encode())
        self.request()
        return self.request()[0]


def database_problems(server: dict[str, Any], timeout: float) -> Problems:
    """Log in to the database with each login of the backend and the migrations."""
    host, port = str(server["host"]), int(server["port"])
    unresolved = resolve_problems("ag_ui_database_host", host)
    if unresolved:
        return unresolved
    at = where(host, port)
    problems = []
    try:
        for login in server["logins"]:
            client = Postgres(server, login, timeout)
            with client.socket:
                problems += login_problems(client, login["variables"], at)
        if not problems:
            problems += pool_problems(server, at, timeout)
    except ssl.SSLError as error:
        return [certificate_problem("ag_ui_database_sslmode", f"PostgreSQL at {at}", error)]
    except OSError as error:
        return [
            (
                f"ag_ui_database_host, ag_ui_database_port: PostgreSQL at {at} cannot be reached from "
                f"this host ({error}). Start it, let this host through its firewall, or correct the "
                f"variables."
            )
        ]
    return problems


def pool_problems(server: dict[str, Any], at: str, timeout: float) -> Problems:
    """Detect transaction pooling: one server process serves two connections that are open at once."""
    login = server["logins"][0]
    one, other = (Postgres(server, login, timeout) for _ in range(2))
    with one.socket, other.socket:
        # A second connection may be refused by a limit, and the backend needs several too.
        if problems := [
            problem
            for client in (one, other)
            for problem in login_problems(client, login["variables"], at)
        ]:
            return problems
        if all(one.process() != other.process() for _ in range(POOL_LOOKS)):
            return []
    return [
        (
            f"ag_ui_database_host, ag_ui_database_port: at {at} a pooler hands out connections of PostgreSQL per "
            f"transaction (PgBouncer's pool_mode), so that locks and settings of a session are lost. Use a pool with "
            f"pool_mode = session, or PostgreSQL's own address."
        )
    ]


def login_problems(client: Postgres, variables: str, at: str) -> Problems:
    """Log in on one connection, and format the message if it is refused."""
    try:
        client.login()
    except RefusedError as refusal:
        return [
            (
                f"{variables}, ag_ui_database_name: PostgreSQL at {at} refuses the login ({refusal}). "
                f"Correct the variables, or create the role and the database there and let this host "
                f"in (pg_hba.conf)."
            )
        ]
    return []


# --- the gateway --------------------------------------------------------------------------


def gateway_problems(url: str, timeout: float) -> Problems:
    """Check that the gateway does not redirect, because calls do not follow redirects; it may be down."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET", f"{parts.path.rstrip('/')}/v1/chat/completions")
            answer = connection.getresponse()
            target = answer.headers.get("Location", "")
    except (OSError, http.client.HTTPException, ValueError):
        return []
    if not 300 <= answer.status < 400:  # noqa: PLR2004 - redirects
        return []
    return [
        (
            f"ag_ui_litellm_url: {url} redirects ({answer.status}) to {target or 'nowhere'}. Set the variable to the "
            f"address that it redirects to, without /v1/chat/completions: calls are not sent after a redirection."
        )
    ]


def problems_of(wanted: dict[str, Any]) -> list[str]:
    """Do all checks.

    Args:
        wanted: The arguments of the module.

    Returns:
        A message for each problem, with the variable that is wrong and the remedy.
    """
    problems = systemd_problems() + account_problems(wanted["account"])
    for port in wanted["ports"]:
        problems += port_problems(port)
    problems += engine_problems()
    if wanted["gateway"]:
        problems += gateway_problems(wanted["gateway"], wanted["timeout"])
    if wanted["proxy"]:
        problems += proxy_problems(wanted["proxy"])
    if wanted["redis"]:
        problems += redis_problems(wanted["redis"], wanted["timeout"])
    if wanted["database"]:
        problems += database_problems(wanted["database"], wanted["timeout"])
    return problems


def main() -> None:
    """Collect all problems and fail with all of them, or return the state of the target."""
    module = AnsibleModule(
        argument_spec={
            "redis": {"type": "dict", "options": REDIS},
            "database": {"type": "dict", "options": DATABASE},
            "ports": {"type": "list", "elements": "dict", "default": []},
            "proxy": {"type": "dict"},
            "gateway": {"type": "str", "default": ""},
            "account": {"type": "dict", "required": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "certificate": {"type": "path", "required": True},
            "configuration": {"type": "path", "default": "/etc/ag-ui"},
            "timeout": {"type": "float", "default": 5},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    problems = problems_of(wanted)
    if problems:
        module.fail_json(
            msg="Nothing was changed on this host. To be put right first:\n"
            + "\n".join(f"- {problem}" for problem in problems),
            problems=problems,
        )
    found = host_state(wanted["packages"], wanted["certificate"], Path(wanted["configuration"]))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
