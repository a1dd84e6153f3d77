"""Accounts as operators manage them."""

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

from src.models.role import Role
from src.models.user import User, UserRow
from src.repositories import users as user_rows
from src.services.passwords import hash_new_password
from src.utils.database import Database

# Names that are reserved for tests and private networks are good names here.
SPECIAL_USE_DOMAIN_NAMES.clear()


class EmailRejectedError(ValueError):
    """The text is no email address; the message says why."""


class UserExistsError(Exception):
    """There is an account with this address."""


def normalise_email(text: str) -> str:
    """The form in which addresses are stored and compared. Raises EmailRejectedError."""
    try:
        checked = validate_email(
            text.strip(), check_deliverability=False, globally_deliverable=False
        )
    except EmailNotValidError as error:
        raise EmailRejectedError(str(error)) from None
    return checked.normalized.lower()


class UserService:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, email: str, password: str, role: Role) -> User:
        """Raises EmailRejectedError, PasswordRejectedError or UserExistsError."""
        address = normalise_email(email)
        hashed = await hash_new_password(password, address)
        async with self._database.transaction() as session:
            if await user_rows.by_email(session, address):
                raise UserExistsError(address)
            row = UserRow(email=address, password_hash=hashed, role=role.value, memberships=[])
            session.add(row)
            await session.flush()
            return User.model_validate(row)

    async def all_users(self) -> list[UserRow]:
        async with self._database.transaction() as session:
            return await user_rows.all_users(session)
