"""Passwords: which may be set, and their hashes (argon2id, in a bounded number of threads).

The only module with passlib and zxcvbn.
"""

import asyncio
import re
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

from passlib.context import CryptContext
from zxcvbn import zxcvbn
from zxcvbn.matching import L33T_TABLE

from src.services.auth.errors import PasswordRejectedError, PasswordsBusyError

Result = TypeVar("Result")

MIN_LENGTH = 12
# Hashing reads all of it: without a bound a long password is a cheap way to keep us busy.
MAX_BYTES = 1024
# Of zxcvbn's 0 to 4: a hundred million guesses do not find it.
_MIN_SCORE = 3
# Its work grows with the square of the length, and with all the ways in which signs may stand for
# letters: so much of a password takes it 50 ms at most.
_JUDGED_CHARACTERS = 24
_SIGNS = frozenset(chain.from_iterable(L33T_TABLE.values()))
_MAX_SIGNS = 8
_JUDGED_OF_MANY_SIGNS = 12
# Of each kind; the last of them waits some seconds.
_MAX_WAITING = 64
_ADVICE = (
    "take four or more words that have nothing to do with each other, or let a program make it"
)

_context = CryptContext(schemes=["argon2"], argon2__type="ID")


class _Line:
    """Work that waits in line for threads of its own."""

    def __init__(self, name: str, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._waiting = 0

    async def do(self, work: Callable[[], Result]) -> Result:
        """Raises PasswordsBusyError."""
        if self._waiting >= _MAX_WAITING:
            raise PasswordsBusyError
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


_hashing = _Line("hash", 2)
# One thread: zxcvbn keeps what is known of the user in a table that all its callers share.
_judging = _Line("judge", 1)


def check_new_password(password: str, *own: str, field: str = "password") -> None:
    """Raises PasswordRejectedError for a password that is too short, too long or easy to guess.

    `own` is what others know of the user, such as name and address; `field` is where the password
    was given. Takes up to 50 ms.
    """
    if fault := _fault_of(_normalised(password), [_normalised(text) for text in own]):
        raise PasswordRejectedError(fault, field)


async def hash_new_password(password: str, *own: str, field: str = "password") -> str:
    """The hash of a password that may be set. Raises PasswordRejectedError or PasswordsBusyError."""
    await _judging.do(lambda: check_new_password(password, *own, field=field))
    return await hash_password(password)


async def hash_password(password: str) -> str:
    """Raises PasswordsBusyError."""
    return await _hashing.do(lambda: _context.hash(_normalised(password)))


async def verify_password(password: str, hashed: str | None) -> tuple[bool, str | None]:
    """Whether the password fits, and a new hash where the old one is outdated.

    It is where its parameters are, and where it was made of a password that was not normalised.
    Without a hash (the user is unknown) it takes as long as with one, and answers no.
    Raises PasswordsBusyError.
    """
    normalised = _normalised(password)
    if max(len(password.encode()), len(normalised.encode())) > MAX_BYTES:
        return False, None
    spellings = list(dict.fromkeys([normalised, password]))
    return await _hashing.do(lambda: _verify(spellings, hashed))


def _verify(spellings: Sequence[str], hashed: str | None) -> tuple[bool, str | None]:
    """The first spelling is the normalised one; each costs a hash, whether there is an account."""
    if hashed is None:
        for _ in spellings:
            _context.dummy_verify()
        return False, None
    verdicts = [_context.verify_and_update(one, hashed) for one in spellings]
    if verdicts[0][0] or not any(fits for fits, _ in verdicts):
        return verdicts[0]
    return True, _context.hash(spellings[0])


def _normalised(password: str) -> str:
    """One spelling for what keyboards and systems compose in different ways (NFKC, NIST 800-63B)."""
    return unicodedata.normalize("NFKC", password)


def _fault_of(password: str, own: Sequence[str]) -> str | None:
    if len(password) < MIN_LENGTH:
        return f"needs at least {MIN_LENGTH} characters"
    try:
        size = len(password.encode())
    except UnicodeEncodeError:
        return "has to be UTF-8; the terminal sent something else"
    if size > MAX_BYTES:
        return f"may have at most {MAX_BYTES} bytes"
    return _weakness_of(password, own)


def _weakness_of(password: str, own: Sequence[str]) -> str | None:
    words = _words(own)
    judged = _beginning(_without(words, password))
    # It cannot judge an empty text.
    verdict = zxcvbn(judged or "x", user_inputs=words)
    if verdict["score"] >= _MIN_SCORE:
        return None
    if judged != _beginning(password):
        return f"is too easy to guess from your name or address; {_ADVICE}"
    reason = verdict["feedback"]["warning"].rstrip(".")
    why = f" ({reason[0].lower()}{reason[1:]})" if reason else ""
    return f"is too easy to guess{why}; {_ADVICE}"


def _beginning(password: str) -> str:
    judged = password[:_JUDGED_CHARACTERS]
    many = len(_SIGNS.intersection(judged)) > _MAX_SIGNS
    return judged[:_JUDGED_OF_MANY_SIGNS] if many else judged


def _words(own: Sequence[str]) -> list[str]:
    return [word for text in own for word in re.findall(r"[^\W_]{3,}", text)]


def _without(words: list[str], password: str) -> str:
    """What a password has besides these words: alone they are worth next to nothing."""
    if not words:
        return password
    return re.sub("|".join(map(re.escape, words)), "", password, flags=re.IGNORECASE)
