"""The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding, as asyncpg does it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import stringprep
import unicodedata

MECHANISM = "SCRAM-SHA-256"
# The header of the first message, which says that there is no channel binding and no other identity.
NO_BINDING = b"n,,"
# Random bytes in the client's nonce, as in libpq.
NONCE_BYTES = 18
# PostgreSQL's default is 4096, and OWASP recommends 600 000. A million takes about a second; the highest value of
# scram_iterations, 2147483647, would take a quarter of an hour or more.
MAX_ITERATIONS = 1_000_000

SERVER_FIRST = re.compile(r"r=([!-+\--~]+),s=([A-Za-z0-9+/]+={0,2}),i=([1-9][0-9]*)")
# Characters that SASLprep prohibits, and those that Unicode 3.2 does not assign.
PROHIBITED = (
    stringprep.in_table_a1,
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class UnverifiedServerError(Exception):
    """The server has not proved that it knows the password."""


class ScramClient:
    """One exchange: `first_message`, `final_message`, `verify`, in this order."""

    def __init__(self, password: str) -> None:
        """Make the client's nonce.

        Args:
            password: As the operator has written it.
        """
        self._password = saslprep(password)
        self._nonce = secrets.token_urlsafe(NONCE_BYTES)
        # The protocol has the name of the user in its startup message, and ignores the one here.
        self._first = f"n=,r={self._nonce}"
        self._server_signature = b""

    def first_message(self) -> bytes:
        """Return the message that begins the exchange."""
        return NO_BINDING + self._first.encode()

    def final_message(self, server_first: bytes) -> bytes:
        """Prove to the server that the client knows the password.

        Args:
            server_first: The server's answer to the first message.

        Returns:
            The message with the proof, from which the password cannot be read.

        Raises:
            UnverifiedServerError: The answer is malformed, is not one to this client's nonce, or asks for more
                than `MAX_ITERATIONS` iterations.
        """
        found = SERVER_FIRST.fullmatch(server_first.decode("ascii", "replace"))
        if not found:
            raise UnverifiedServerError(f"its first {MECHANISM} message is malformed")
        nonce, salt, iterations = found.groups()
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise UnverifiedServerError(
                f"its {MECHANISM} nonce does not continue that of the client"
            )
        if len(iterations) > len(str(MAX_ITERATIONS)) or int(iterations) > MAX_ITERATIONS:
            asked = iterations if len(iterations) <= len(str(1 << 31)) else "too many"
            raise UnverifiedServerError(
                f"it asks for {asked} {MECHANISM} iterations, and at most {MAX_ITERATIONS} are computed"
            )
        salted = hashlib.pbkdf2_hmac(
            "sha256", self._password.encode(), decoded(salt), int(iterations)
        )
        unproved = f"c={base64.b64encode(NO_BINDING).decode()},r={nonce}"
        signed = f"{self._first},{found[0]},{unproved}".encode()
        self._server_signature = hmac.digest(
            hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256"
        )
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored_key = hashlib.sha256(client_key).digest()
        signature = hmac.digest(stored_key, signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        return f"{unproved},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        """Check the server's signature, which only a server that knows the password can make.

        Args:
            server_final: The server's answer to the final message.

        Raises:
            UnverifiedServerError: The signature is missing or wrong.
        """
        text = server_final.decode("ascii", "replace")
        if not text.startswith("v="):
            raise UnverifiedServerError(f"its final {MECHANISM} message has no signature")
        if not self._server_signature or not hmac.compare_digest(
            decoded(text[2:]), self._server_signature
        ):
            raise UnverifiedServerError(f"its {MECHANISM} signature is wrong")


def decoded(text: str) -> bytes:
    """Decode base64.

    Args:
        text: What the server sent.

    Returns:
        The bytes.

    Raises:
        UnverifiedServerError: It is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UnverifiedServerError(f"its {MECHANISM} message is not base64") from None


def saslprep(password: str) -> str:
    """Normalize a password by SASLprep (RFC 4013) as PostgreSQL does before it stores one.

    Args:
        password: As the operator has written it.

    Returns:
        The normalized password; unchanged if it is ASCII, or not one that SASLprep allows.
    """
    if password.isascii():
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in password
        if not stringprep.in_table_b1(char)
    )
    found = unicodedata.normalize("NFKC", mapped)
    if not found or any(prohibits(char) for prohibits in PROHIBITED for char in found):
        return password
    if any(map(stringprep.in_table_d1, found)):
        # Text written from right to left must be so at both ends, and have no letters of the other direction.
        ends = stringprep.in_table_d1(found[0]) and stringprep.in_table_d1(found[-1])
        if not ends or any(map(stringprep.in_table_d2, found)):
            return password
    return found
