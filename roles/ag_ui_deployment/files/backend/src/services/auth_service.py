"""Login, and who a token belongs to."""

import structlog

from src.models.user import Token, User
from src.repositories import users as user_rows
from src.services.passwords import verify_password
from src.services.tokens import AccessToken, InvalidTokenError, Tokens
from src.services.user_service import EmailRejectedError, normalise_email
from src.utils.database import DATABASE_ERRORS, Database, is_outage

logger = structlog.get_logger(__name__)


class WrongCredentialsError(Exception):
    """The address or the password is wrong, or the account is not active."""


class AuthService:
    def __init__(self, database: Database, tokens: Tokens) -> None:
        self._database = database
        self._tokens = tokens

    async def log_in(self, email: str, password: str) -> Token:
        """Raises WrongCredentialsError, after the same time whatever was wrong."""
        async with self._database.transaction() as session:
            row = await user_rows.by_email(session, _address(email))
            hashed = row.password_hash if row and row.active else None
        fits, new_hash = await verify_password(password, hashed)
        if row is None or not fits:
            logger.info("login_failed")
            raise WrongCredentialsError
        if new_hash is not None:
            async with self._database.transaction() as session:
                session.add(row)
                row.password_hash = new_hash
        logger.info("login", user_id=str(row.id))
        user = User.model_validate(row)
        return Token(access_token=self._tokens.issue(user), expires_in=self._tokens.lifetime)

    async def authenticate(self, token: str) -> AccessToken:
        """Whose token this is, as the account stands now.

        While PostgreSQL is away the token's own word counts, so that streams can be opened.
        Raises InvalidTokenError.
        """
        access = self._tokens.verify(token)
        try:
            async with self._database.transaction() as session:
                row = await user_rows.by_id(session, access.user.id)
        except DATABASE_ERRORS as error:
            if not is_outage(error):
                raise
            return access
        if row is None or not row.active:
            raise InvalidTokenError
        return AccessToken(user=User.model_validate(row), expires_at=access.expires_at)


def _address(email: str) -> str:
    try:
        return normalise_email(email)
    except EmailRejectedError:
        # No account has this address, and the search for it takes the same time.
        return ""
