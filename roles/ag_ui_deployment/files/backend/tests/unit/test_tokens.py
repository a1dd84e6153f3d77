"""Access tokens: what we made is known again, and nothing else is."""

import base64
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson
import pytest
from jose import jwt

from src.models.role import Role
from src.models.user import User
from src.services.tokens import InvalidTokenError, Tokens
from tests.support.builders import JWT_SECRET, OWNER, settings_of

USER = User(id=UUID(OWNER), email="alice@example.org", role=Role.VIEWER)
Claims = dict[str, Any]


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(settings_of(ACCESS_TOKEN_EXPIRE_MINUTES=30))


def claims_of(token: str) -> Claims:
    return dict(jwt.get_unverified_claims(token))


def test_what_was_issued_is_verified(tokens: Tokens) -> None:
    before = int(time.time())
    access = tokens.verify(tokens.issue(USER))
    assert access.user == USER
    assert before + 1800 <= access.expires_at <= time.time() + 1800
    assert tokens.lifetime == 1800


def test_every_token_has_an_id_of_its_own(tokens: Tokens) -> None:
    ids = {claims_of(tokens.issue(USER))["jti"] for _ in range(10)}
    assert len(ids) == 10


def test_another_secret_is_no_proof(tokens: Tokens) -> None:
    forged = Tokens(settings_of(JWT_SECRET="another-secret-that-is-long-enough!!")).issue(USER)
    with pytest.raises(InvalidTokenError):
        tokens.verify(forged)


def sign(claims: Claims, algorithm: str = "HS256", key: str = JWT_SECRET) -> str:
    return str(jwt.encode(claims, key, algorithm=algorithm))


def changed(**values: Any) -> Callable[[Claims], Claims]:
    return lambda claims: claims | values


def lacking(name: str) -> Callable[[Claims], Claims]:
    return lambda claims: {key: value for key, value in claims.items() if key != name}


@pytest.mark.parametrize(
    "change",
    [
        changed(exp=int(time.time()) - 1),
        changed(exp="soon"),
        changed(iss="somebody-else"),
        changed(aud="another-service"),
        changed(aud=["another-service"]),
        changed(typ="refresh"),
        changed(typ=None),
        changed(sub="alice"),
        changed(sub=7),
        changed(role="superuser"),
        changed(role=None),
        changed(email=None),
        changed(nbf=int(time.time()) + 600),
        *(lacking(name) for name in ("exp", "iat", "sub", "jti", "aud", "iss", "typ", "role")),
        lacking("email"),
    ],
)
def test_a_signature_alone_is_not_enough(
    tokens: Tokens, change: Callable[[Claims], Claims]
) -> None:
    claims = claims_of(tokens.issue(USER))
    tokens.verify(sign(claims))
    with pytest.raises(InvalidTokenError):
        tokens.verify(sign(change(claims)))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_algorithm_than_the_configured_one_is_refused(
    tokens: Tokens, algorithm: str
) -> None:
    with pytest.raises(InvalidTokenError):
        tokens.verify(sign(claims_of(tokens.issue(USER)), algorithm))


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", ""])
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_no_algorithm_is_no_proof(tokens: Tokens, name: str, signature: str) -> None:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()

    claims = claims_of(tokens.issue(USER))
    forged = f"{part({'alg': name, 'typ': 'JWT'})}.{part(claims)}.{signature}"
    with pytest.raises(InvalidTokenError):
        tokens.verify(forged)


def test_a_changed_claim_breaks_the_signature(tokens: Tokens) -> None:
    head, body, signature = tokens.issue(USER).split(".")
    claims = orjson.loads(base64.urlsafe_b64decode(body + "=="))
    raised = base64.urlsafe_b64encode(orjson.dumps(claims | {"role": "admin"})).rstrip(b"=")
    with pytest.raises(InvalidTokenError):
        tokens.verify(f"{head}.{raised.decode()}.{signature}")


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b.c", "null", "ü.ü.ü", "x" * 10_000, "\0", "{}.{}.{}"]
)
def test_what_is_no_token_at_all(tokens: Tokens, token: str) -> None:
    with pytest.raises(InvalidTokenError):
        tokens.verify(token)


@pytest.mark.parametrize("token", [None, 7, b"bytes", {}, [], object()])
def test_what_is_no_text(tokens: Tokens, token: Any) -> None:
    with pytest.raises(InvalidTokenError):
        tokens.verify(token)
