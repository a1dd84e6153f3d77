"""Passwords: which may be set, and their hashes (argon2id, in a bounded number of threads).

The only module with passlib and zxcvbn.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from passlib.context import CryptContext
from zxcvbn import zxcvbn

Result = TypeVar("Result")

MIN_LENGTH = 12
# Hashing reads all of it: without a bound a long password is a cheap way to keep us busy.
MAX_BYTES = 1024
# Of zxcvbn's 0 to 4: a hundred million guesses do not find it.
_MIN_SCORE = 3
# Its work grows with the square of the length: so many characters take it some 20 ms.
_JUDGED_CHARACTERS = 72
_ADVICE = (
    "take four or more words that have nothing to do with each other, or let a program make it"
)

_context = CryptContext(schemes=["argon2"], argon2__type="ID")
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="password")
# zxcvbn keeps what is known of the user in a table that all its callers share.
_judging = threading.Lock()


class PasswordRejectedError(ValueError):
    """The password may not be set; the message says why."""


def check_new_password(password: str, *own: str) -> None:
    """Raises PasswordRejectedError for a password that is too short, too long or easy to guess.

    `own` is what others know of the user, such as name and address. Takes some 20 ms.
    """
    if len(password) < MIN_LENGTH:
        raise PasswordRejectedError(f"needs at least {MIN_LENGTH} characters")
    try:
        size = len(password.encode())
    except UnicodeEncodeError:
        raise PasswordRejectedError("has to be UTF-8; the terminal sent something else") from None
    if size > MAX_BYTES:
        raise PasswordRejectedError(f"may have at most {MAX_BYTES} bytes")
    _check_strength(password, own)


async def hash_new_password(password: str, *own: str) -> str:
    """The hash of a password that may be set. Raises PasswordRejectedError."""
    await _in_thread(lambda: check_new_password(password, *own))
    return await hash_password(password)


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


def _check_strength(password: str, own: Sequence[str]) -> None:
    words = _words(own)
    judged = _without(words, password)[:_JUDGED_CHARACTERS]
    with _judging:
        # It cannot judge an empty text.
        verdict = zxcvbn(judged or "x", user_inputs=words, max_length=_JUDGED_CHARACTERS)
    if verdict["score"] >= _MIN_SCORE:
        return
    if judged != password[:_JUDGED_CHARACTERS]:
        raise PasswordRejectedError(f"is too easy to guess from your name or address; {_ADVICE}")
    reason = verdict["feedback"]["warning"].rstrip(".")
    why = f" ({reason[0].lower()}{reason[1:]})" if reason else ""
    raise PasswordRejectedError(f"is too easy to guess{why}; {_ADVICE}")


def _words(own: Sequence[str]) -> list[str]:
    return [word for text in own for word in re.findall(r"[^\W_]{3,}", text)]


def _without(words: list[str], password: str) -> str:
    """What a password has besides these words: alone they are worth next to nothing."""
    if not words:
        return password
    return re.sub("|".join(map(re.escape, words)), "", password, flags=re.IGNORECASE)


async def _in_thread(work: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(_threads, work)
