"""Access tokens: issued tokens verify, all others are refused."""

import base64
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson
import pytest
from jose import jwt

from src.models.permissions import Role
from src.models.user import User
from src.services.auth.errors import NotAuthenticatedError
from src.services.auth.tokens import TokenService, key_id
from tests.support.builders import JWT_SECRET, OWNER, settings_of

USER = User(id=UUID(OWNER), email="alice@example.org", role=Role.VIEWER)
SESSION = UUID(int=1)
OLD_SECRET = "the-secret-of-last-year-is-long-enough"
Claims = dict[str, Any]


@pytest.fixture
def tokens() -> TokenService:
    return TokenService(settings_of(ACCESS_TOKEN_EXPIRE_MINUTES=30))


def claims_of(token: str) -> Claims:
    return dict(jwt.get_unverified_claims(token))


def test_issued_token_is_verified(tokens: TokenService) -> None:
    before = int(time.time())
    access = tokens.verify(tokens.issue(USER, SESSION))
    assert (access.user, access.session_id) == (USER, SESSION)
    assert before + 1800 <= access.expires_at <= time.time() + 1800
    assert tokens.lifetime == 1800


def test_every_token_has_a_unique_id(tokens: TokenService) -> None:
    ids = {claims_of(tokens.issue(USER, SESSION))["jti"] for _ in range(10)}
    assert len(ids) == 10


def test_token_signed_with_another_secret_is_refused(tokens: TokenService) -> None:
    forged = TokenService(settings_of(JWT_SECRET="another-secret-that-is-long-enough!!")).issue(
        USER, SESSION
    )
    with pytest.raises(NotAuthenticatedError):
        tokens.verify(forged)


def test_token_expires_with_its_session(tokens: TokenService) -> None:
    end = time.time() + 60
    assert tokens.verify(tokens.issue(USER, SESSION, session_end=end)).expires_at == int(end)


class TestKeyRotation:
    def test_new_key_signs_and_previous_key_verifies(self) -> None:
        before = TokenService(settings_of(JWT_SECRET=OLD_SECRET))
        after = TokenService(settings_of(JWT_PREVIOUS_SECRETS=f"{'x' * 40}, {OLD_SECRET}"))
        assert after.verify(before.issue(USER, SESSION)).user == USER
        assert after.verify(after.issue(USER, SESSION)).user == USER
        with pytest.raises(NotAuthenticatedError):
            before.verify(after.issue(USER, SESSION))

    def test_key_id_does_not_reveal_the_key(self, tokens: TokenService) -> None:
        head = jwt.get_unverified_header(tokens.issue(USER, SESSION))
        assert head["kid"] == key_id(JWT_SECRET)
        assert key_id(JWT_SECRET) != key_id(OLD_SECRET)
        assert head["kid"] not in JWT_SECRET

    @pytest.mark.parametrize(
        "header", [{}, {"kid": ""}, {"kid": None}, {"kid": []}, {"kid": key_id(OLD_SECRET)}]
    )
    def test_unknown_key_id_is_refused(self, tokens: TokenService, header: Any) -> None:
        claims = claims_of(tokens.issue(USER, SESSION))
        forged = jwt.encode(claims, JWT_SECRET, algorithm="HS256", headers=header)
        with pytest.raises(NotAuthenticatedError):
            tokens.verify(forged)

    def test_key_id_must_match_the_signing_key(self) -> None:
        tokens = TokenService(settings_of(JWT_PREVIOUS_SECRETS=OLD_SECRET))
        claims = claims_of(tokens.issue(USER, SESSION))
        for name, key in ((JWT_SECRET, OLD_SECRET), (OLD_SECRET, JWT_SECRET)):
            forged = jwt.encode(claims, key, algorithm="HS256", headers={"kid": key_id(name)})
            with pytest.raises(NotAuthenticatedError):
                tokens.verify(forged)


def sign(claims: Claims, algorithm: str = "HS256", key: str = JWT_SECRET) -> str:
    return str(jwt.encode(claims, key, algorithm=algorithm, headers={"kid": key_id(JWT_SECRET)}))


def changed(**values: Any) -> Callable[[Claims], Claims]:
    return lambda claims: claims | values


def without(name: str) -> Callable[[Claims], Claims]:
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
        changed(sid="the first"),
        changed(sid=None),
        changed(role="superuser"),
        changed(role=None),
        changed(email=None),
        changed(nbf=int(time.time()) + 600),
        *(without(name) for name in ("exp", "iat", "sub", "jti", "aud", "iss", "typ", "sid")),
        without("role"),
        without("email"),
    ],
)
def test_token_with_invalid_claims_is_refused(
    tokens: TokenService, change: Callable[[Claims], Claims]
) -> None:
    claims = claims_of(tokens.issue(USER, SESSION))
    tokens.verify(sign(claims))
    with pytest.raises(NotAuthenticatedError):
        tokens.verify(sign(change(claims)))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_other_algorithm_is_refused(tokens: TokenService, algorithm: str) -> None:
    with pytest.raises(NotAuthenticatedError):
        tokens.verify(sign(claims_of(tokens.issue(USER, SESSION)), algorithm))


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", ""])
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_unsigned_token_is_refused(tokens: TokenService, name: str, signature: str) -> None:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()

    claims = claims_of(tokens.issue(USER, SESSION))
    forged = (
        f"{part({'alg': name, 'typ': 'JWT', 'kid': key_id(JWT_SECRET)})}.{part(claims)}.{signature}"
    )
    with pytest.raises(NotAuthenticatedError):
        tokens.verify(forged)


def test_changed_claim_invalidates_the_signature(tokens: TokenService) -> None:
    head, body, signature = tokens.issue(USER, SESSION).split(".")
    claims = orjson.loads(base64.urlsafe_b64decode(body + "=="))
    raised = base64.urlsafe_b64encode(orjson.dumps(claims | {"role": "admin"})).rstrip(b"=")
    with pytest.raises(NotAuthenticatedError):
        tokens.verify(f"{head}.{raised.decode()}.{signature}")


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b.c", "null", "ü.ü.ü", "x" * 10_000, "\0", "{}.{}.{}"]
)
def test_malformed_token_is_refused(tokens: TokenService, token: str) -> None:
    with pytest.raises(NotAuthenticatedError):
        tokens.verify(token)


@pytest.mark.parametrize("token", [None, 7, b"bytes", {}, [], object()])
def test_token_of_another_type_is_refused(tokens: TokenService, token: Any) -> None:
    with pytest.raises(NotAuthenticatedError):
        tokens.verify(token)
