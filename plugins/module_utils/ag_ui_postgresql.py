"""A client for the part of PostgreSQL's wire protocol that a login needs.

It behaves like asyncpg 0.32, the driver of the backend, with the arguments of the backend: it succeeds if the backend
can log in, and sends a password only if the backend would send it too. It is stricter in one respect: a server that
begins SCRAM must complete it.
"""

from __future__ import annotations

import hashlib
import ssl
import struct
from typing import Literal, TypedDict

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_connection import (
    Connection,
    RefusedError,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_scram import (
    MECHANISM,
    ScramClient,
    UnverifiedServerError,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_tls import tls_context

# Version 3.0, and the code of an SSLRequest.
PROTOCOL = 196608
SSL_REQUEST = 80877103
# A message header has a type and a length.
HEADER_BYTES = 5
# libpq accepts 30 000 bytes before the login is complete.
MAX_MESSAGE_BYTES = 1 << 16
# Codes of authentication messages.
AUTH_OK, AUTH_CLEARTEXT, AUTH_MD5, AUTH_SASL, AUTH_SASL_CONTINUE, AUTH_SASL_FINAL = (
    *(0, 3, 5),
    *(10, 11, 12),
)
INVALID_PASSWORD = "28P01"  # noqa: S105 - an SQLSTATE

Tls = Literal["never", "if_offered", "always"]
# Connection attempts for each sslmode. The backend passes `disable`, `allow` and `prefer` to asyncpg, which makes the
# second attempt if the first fails before the login is complete. For the other modes the backend creates a TLS
# context, and there is one attempt.
CONNECTION_ATTEMPTS: dict[str, tuple[Tls, ...]] = {
    "disable": ("never",),
    "allow": ("never", "always"),
    "prefer": ("if_offered", "never"),
}


_PASSWORD = {"type": "str", "default": "", "no_log": True}
_LOGIN_SPEC = {
    "variables": {"type": "str", "required": True},
    "user": {"type": "str", "required": True},
    "password": _PASSWORD,
    "previous_password": _PASSWORD,
}
# The argument specification of `DatabaseOptions`.
DATABASE_SPEC = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "standbys": {"type": "list", "elements": "str", "default": []},
    "sslmode": {"type": "str", "default": "prefer"},
    "ca": {"type": "str", "default": ""},
    "name": {"type": "str", "required": True},
    "logins": {"type": "list", "elements": "dict", "options": _LOGIN_SPEC, "required": True},
}


class LoginOptions(TypedDict):
    """One of the logins in the option `database` of the modules."""

    # Names of the role's variables for user and password.
    variables: str
    user: str
    password: str
    # Password to log in with if the server refuses the other; empty for none.
    previous_password: str


class DatabaseOptions(TypedDict):
    """The option `database` of the modules."""

    host: str
    port: int
    # Further servers of the cluster, each `host:port`.
    standbys: list[str]
    name: str
    # As in libpq.
    sslmode: str
    # CA certificates in PEM; empty for those of the system.
    ca: str
    logins: list[LoginOptions]


def log_in(server: DatabaseOptions, login: LoginOptions, timeout: float) -> Postgres:
    """Connect as the backend does for this sslmode, and log in.

    Args:
        server: The server.
        login: The user and the password.
        timeout: Seconds for the connection, and for each response.

    Returns:
        A connection that is ready for queries.

    Raises:
        RefusedError: The server refuses the login.
        UnverifiedServerError: The server has not proved that it knows the password.
        ssl.SSLError: TLS fails, or is not offered where it is required.
        OSError: The server cannot be reached, or does not speak this protocol.
    """
    failures: list[RefusedError | ssl.SSLError] = []
    for tls in CONNECTION_ATTEMPTS.get(server["sslmode"], ("always",)):
        client = Postgres(server, login, timeout)
        try:
            client.negotiate_tls(tls)
            client.log_in()
        except (RefusedError, ssl.SSLError) as error:
            client.close()
            failures.append(error)
            if client.is_authenticated or (tls == "if_offered" and not client.is_offered_tls):
                break
        except BaseException:
            client.close()
            raise
        else:
            return client
    # A wrong password is more specific than a rejected connection; otherwise report the first failure.
    wrong_password = (error for error in failures if getattr(error, "code", "") == INVALID_PASSWORD)
    raise next(wrong_password, failures[0])


class Postgres:
    """A connection to PostgreSQL."""

    def __init__(self, server: DatabaseOptions, login: LoginOptions, timeout: float) -> None:
        """Connect.

        Args:
            server: The server.
            login: The user and the password.
            timeout: Seconds for the connection, and for each response.

        Raises:
            OSError: The server cannot be reached.
        """
        self._server, self._login = server, login
        self._connection = Connection(server["host"], server["port"], timeout)
        self._reader = self._connection.makefile()
        # Whether the server offered TLS.
        self.is_offered_tls = False
        # Whether the server accepted the login. It may still close the connection after that.
        self.is_authenticated = False

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self._connection.close()

    def negotiate_tls(self, tls: Tls) -> None:
        """Start TLS.

        The modes `verify-ca` and `verify-full` verify the certificate, and the latter its name too.

        Args:
            tls: When to start it: never, if the server offers it, or always.

        Raises:
            ssl.SSLError: TLS fails, or is required and not offered.
            OSError: The connection breaks, or the server does not speak this protocol.
        """
        if tls == "never":
            return
        mode = self._server["sslmode"]
        self._connection.sendall(struct.pack("!ii", 8, SSL_REQUEST))
        # Exactly one byte: plaintext that follows must not be treated as sent over TLS.
        answer = self._connection.receive(1)
        if answer == b"N":
            if tls == "always":
                raise ssl.SSLError(f"the server has no TLS, and sslmode is {mode}")
            return
        if answer != b"S":
            raise ConnectionError("it does not answer as PostgreSQL does")
        self.is_offered_tls = True
        verify = mode in {"verify-ca", "verify-full"}
        context = tls_context(self._server["ca"], verify=verify, check_name=mode == "verify-full")
        try:
            self._connection.start_tls(context, self._server["host"])
        except ConnectionError as error:
            raise ssl.SSLError(str(error)) from error

    def log_in(self) -> None:
        """Log in with the method that the server requests, and wait until it is ready for queries.

        Raises:
            RefusedError: The server refuses the login, or requests a method that is not supported.
            UnverifiedServerError: The server has not proved that it knows the password.
            OSError: The connection breaks, or the server does not speak this protocol.
        """
        user, database = self._login["user"], self._server["name"]
        words = ["user", user, "database", database, "application_name", "ag-ui", "", ""]
        self._send(b"", struct.pack("!i", PROTOCOL) + "\0".join(words).encode())
        method, data = self._authentication()
        # asyncpg sends the password in clear text or as MD5 to any server that requests it, with or without TLS and in
        # every sslmode, as libpq does without require_auth. Only verify-full ensures which server receives it. The
        # backend has no option to reject these methods, so neither may fail here.
        if method == AUTH_CLEARTEXT:
            self._send(b"p", self._login["password"].encode() + b"\0")
            method, _ = self._authentication()
        elif method == AUTH_MD5:
            self._send(b"p", md5_response(user, self._login["password"], data))
            method, _ = self._authentication()
        elif method == AUTH_SASL:
            method = self._scram(data)
        if method != AUTH_OK:
            raise RefusedError(
                f"it requests an authentication method that is not supported ({method})"
            )
        self.is_authenticated = True
        self._message(b"Z")

    def server_process(self) -> bytes:
        """Return the row with the id of the server process; a pooler may use another one for each query."""
        return self._row("SELECT pg_backend_pid()")

    def is_in_recovery(self) -> bool:
        """Whether the server is a standby, which rejects writes."""
        return self._row("SELECT pg_is_in_recovery()").endswith(b"t")

    def has_user(self, email: str) -> bool:
        """Whether the backend has an account with this email.

        Raises:
            RefusedError: The table does not exist yet, or must not be read.
        """
        quoted = email.strip().lower().replace("'", "''")
        return self._row(f"SELECT EXISTS (SELECT FROM users WHERE email = '{quoted}')").endswith(  # noqa: S608 - quoted
            b"t"
        )

    def _row(self, query: str) -> bytes:
        """Return the row of a query."""
        self._send(b"Q", query.encode() + b"\0")
        row = self._message(b"D")
        self._message(b"Z")
        return row

    def execute(self, statement: str) -> None:
        """Execute a statement.

        Raises:
            RefusedError: The server refuses it.
        """
        self._send(b"Q", statement.encode() + b"\0")
        self._message(b"C")
        self._message(b"Z")

    def _scram(self, mechanisms: bytes) -> int:
        """Authenticate with SCRAM-SHA-256; return the method of the server's message after its signature."""
        if MECHANISM.encode() not in mechanisms.split(b"\0"):
            raise RefusedError(f"it does not offer {MECHANISM}")
        scram = ScramClient(self._login["password"])
        client_first = scram.first_message()
        self._send(
            b"p", MECHANISM.encode() + b"\0" + struct.pack("!i", len(client_first)) + client_first
        )
        self._send(b"p", scram.final_message(self._sasl(AUTH_SASL_CONTINUE)))
        scram.verify(self._sasl(AUTH_SASL_FINAL))
        return self._authentication()[0]

    def _sasl(self, expected: int) -> bytes:
        """Return the data of the next authentication message, which must be this step of SCRAM.

        asyncpg also accepts AuthenticationOk here, from a server that has not proved that it knows the password.
        """
        method, data = self._authentication()
        if method != expected:
            raise UnverifiedServerError(f"it does not complete {MECHANISM}")
        return data

    def _authentication(self) -> tuple[int, bytes]:
        """Return method and data of the next authentication message."""
        payload = self._message(b"R")
        if len(payload) < 4:  # noqa: PLR2004 - the size of an integer
            raise ConnectionError("it does not answer as PostgreSQL does")
        return struct.unpack("!i", payload[:4])[0], payload[4:]

    def _send(self, kind: bytes, payload: bytes) -> None:
        """Send one message; the type is empty for the startup message."""
        self._connection.sendall(kind + struct.pack("!i", len(payload) + 4) + payload)

    def _message(self, kind: bytes) -> bytes:
        """Read until a message of this type and return its payload; raise `RefusedError` on an error message."""
        while True:
            header = self._reader.read(HEADER_BYTES)
            if len(header) < HEADER_BYTES:
                raise RefusedError("it closed the connection")
            size = struct.unpack("!i", header[1:])[0] - 4
            if not 0 <= size <= MAX_MESSAGE_BYTES:
                raise ConnectionError("it does not answer as PostgreSQL does")
            payload = self._reader.read(size)
            if header[:1] == b"E":
                fields = {
                    part[:1]: part[1:].decode(errors="replace") for part in payload.split(b"\0")
                }
                raise RefusedError(fields.get(b"M", "no reason given"), fields.get(b"C", ""))
            if header[:1] == kind:
                return payload


def md5_response(user: str, password: str, salt: bytes) -> bytes:
    """Compute the response to a request for an MD5 password.

    Args:
        user: Name of the user.
        password: Password of the user.
        salt: Four bytes that the server has sent.

    Returns:
        The payload of the response, with the zero byte at its end.
    """
    inner = hashlib.md5((password + user).encode()).hexdigest()  # noqa: S324 - required by the protocol
    outer = hashlib.md5(inner.encode() + salt).hexdigest()  # noqa: S324 - required by the protocol
    return b"md5" + outer.encode() + b"\0"
