"""The client side of SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding, as in asyncpg."""

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
# GS2 header of the first message: no channel binding, no authorization identity.
GS2_HEADER = b"n,,"
# Random bytes in the client's nonce, as in libpq.
NONCE_BYTES = 18
# PostgreSQL's default is 4096, and OWASP recommends 600 000. A million takes about a second; the highest value of
# scram_iterations, 2147483647, would take a quarter of an hour or more.
MAX_ITERATIONS = 1_000_000
# As PostgreSQL by default.
ITERATIONS = 4096
SALT_BYTES = 16

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
        """Generate the client nonce.

        Args:
            password: The password, not normalized.
        """
        self._password = saslprep(password)
        self._nonce = secrets.token_urlsafe(NONCE_BYTES)
        # PostgreSQL uses the user name of the startup message and ignores this one.
        self._client_first_bare = f"n=,r={self._nonce}"
        self._server_signature = b""

    def first_message(self) -> bytes:
        """Return the message that begins the exchange."""
        return GS2_HEADER + self._client_first_bare.encode()

    def final_message(self, server_first: bytes) -> bytes:
        """Prove to the server that the client knows the password.

        Args:
            server_first: The server-first message.

        Returns:
            The client-final message with the proof, which does not reveal the password.

        Raises:
            UnverifiedServerError: The message is malformed, does not continue the client nonce, or requires more
                than `MAX_ITERATIONS` iterations.
        """
        match = SERVER_FIRST.fullmatch(server_first.decode("ascii", "replace"))
        if not match:
            raise UnverifiedServerError(f"its first {MECHANISM} message is malformed")
        nonce, salt, iterations = match.groups()
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise UnverifiedServerError(
                f"its {MECHANISM} nonce does not continue that of the client"
            )
        if len(iterations) > len(str(MAX_ITERATIONS)) or int(iterations) > MAX_ITERATIONS:
            requested = iterations if len(iterations) <= len(str(1 << 31)) else "too many"
            raise UnverifiedServerError(
                f"it asks for {requested} {MECHANISM} iterations, and at most {MAX_ITERATIONS} are computed"
            )
        salted_password = hashlib.pbkdf2_hmac(
            "sha256", self._password.encode(), decode_base64(salt), int(iterations)
        )
        without_proof = f"c={base64.b64encode(GS2_HEADER).decode()},r={nonce}"
        auth_message = f"{self._client_first_bare},{match[0]},{without_proof}".encode()
        self._server_signature = hmac.digest(
            hmac.digest(salted_password, b"Server Key", "sha256"), auth_message, "sha256"
        )
        client_key = hmac.digest(salted_password, b"Client Key", "sha256")
        stored_key = hashlib.sha256(client_key).digest()
        client_signature = hmac.digest(stored_key, auth_message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, client_signature, strict=True))
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        """Verify the server's signature, which only a server that knows the password can compute.

        Args:
            server_final: The server-final message.

        Raises:
            UnverifiedServerError: The signature is missing or wrong.
        """
        text = server_final.decode("ascii", "replace")
        if not text.startswith("v="):
            raise UnverifiedServerError(f"its final {MECHANISM} message has no signature")
        if not self._server_signature or not hmac.compare_digest(
            decode_base64(text[2:]), self._server_signature
        ):
            raise UnverifiedServerError(f"its {MECHANISM} signature is wrong")


def verifier(password: str) -> str:
    """Compute what PostgreSQL stores of a password, so that the password itself need not be sent.

    Args:
        password: The password, not normalized.

    Returns:
        The verifier with a random salt; it contains no quotes.
    """
    salt = secrets.token_bytes(SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), salt, ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"{MECHANISM}${ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def decode_base64(text: str) -> bytes:
    """Decode base64 of the server; raise `UnverifiedServerError` if it is invalid."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UnverifiedServerError(f"its {MECHANISM} message is not base64") from None


def saslprep(password: str) -> str:
    """Normalize a password by SASLprep (RFC 4013) as PostgreSQL does before it stores one.

    Args:
        password: The password, not normalized.

    Returns:
        The normalized password; unchanged if it is ASCII, or if SASLprep prohibits it.
    """
    if password.isascii():
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in password
        if not stringprep.in_table_b1(char)
    )
    normalized = unicodedata.normalize("NFKC", mapped)
    if not normalized or any(prohibits(char) for prohibits in PROHIBITED for char in normalized):
        return password
    if any(map(stringprep.in_table_d1, normalized)):
        # Right-to-left text must begin and end with such characters and have no left-to-right characters.
        ends_match = all(map(stringprep.in_table_d1, (normalized[0], normalized[-1])))
        if not ends_match or any(map(stringprep.in_table_d2, normalized)):
            return password
    return normalized
