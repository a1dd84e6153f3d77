"""Password hashes: argon2id, in a bounded number of threads. The only module with passlib."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from passlib.context import CryptContext

Result = TypeVar("Result")

MIN_LENGTH = 12
# Hashing reads all of it: without a bound a long password is a cheap way to keep us busy.
MAX_BYTES = 1024

_context = CryptContext(schemes=["argon2"], argon2__type="ID")
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="password")


class PasswordRejectedError(ValueError):
    """The password may not be set; the message says why."""


def check_new_password(password: str) -> None:
    """Raises PasswordRejectedError for a password that is too short or too long."""
    if len(password) < MIN_LENGTH:
        raise PasswordRejectedError(f"needs at least {MIN_LENGTH} characters")
    try:
        size = len(password.encode())
    except UnicodeEncodeError:
        raise PasswordRejectedError("has to be UTF-8; the terminal sent something else") from None
    if size > MAX_BYTES:
        raise PasswordRejectedError(f"may have at most {MAX_BYTES} bytes")


async def hash_password(password: str) -> str:
    return await _in_thread(lambda: _context.hash(password))


async def verify_password(password: str, hashed: str | None) -> tuple[bool, str | None]:
    """Whether the password fits, and a new hash where the old one's parameters are outdated.

    Without a hash (the user is unknown) it takes as long as with one, and answers no.
    """
    if len(password.encode()) > MAX_BYTES:
        return False, None
    if hashed is None:
        await _in_thread(_context.dummy_verify)
        return False, None
    return await _in_thread(lambda: _context.verify_and_update(password, hashed))


async def _in_thread(work: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(_threads, work)
