"""Password policy and hashing (argon2id, in a bounded number of threads).

Only this module uses passlib and zxcvbn.
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
# The cost of hashing grows with the length, so without a limit long passwords would allow a denial of
# service.
MAX_BYTES = 1024
# Minimum score of zxcvbn (0 to 4): not found within 10^8 guesses.
_MIN_SCORE = 3
# zxcvbn's time is quadratic in the length, and grows with the number of leetspeak substitutions. With
# these limits it takes at most 50 ms.
_JUDGED_CHARACTERS = 24
_SIGNS = frozenset(chain.from_iterable(L33T_TABLE.values()))
_MAX_SIGNS = 8
_JUDGED_OF_MANY_SIGNS = 12
# Per queue. The last one waits some seconds.
_MAX_WAITING = 64
_ADVICE = (
    "take four or more words that have nothing to do with each other, or let a program make it"
)

_context = CryptContext(schemes=["argon2"], argon2__type="ID")


class _Line:
    """A bounded queue of work for its own thread pool."""

    def __init__(self, name: str, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._waiting = 0

    async def do(self, work: Callable[[], Result]) -> Result:
        """Run `work` in a thread.

        Raises:
            PasswordsBusyError: The queue is full.
        """
        if self._waiting >= _MAX_WAITING:
            raise PasswordsBusyError
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


_hashing = _Line("hash", 2)
# One thread, since zxcvbn stores the user's words in a global table.
_judging = _Line("judge", 1)


def check_new_password(password: str, *own: str, field: str = "password") -> None:
    """Check a new password against the policy. Takes up to 50 ms.

    Args:
        password: The password.
        *own: What others know of the user, such as name and email address.
        field: The input field to name in the error.

    Raises:
        PasswordRejectedError: It is too short, too long or easy to guess.
    """
    if fault := _fault_of(_normalised(password), [_normalised(text) for text in own]):
        raise PasswordRejectedError(fault, field)


async def hash_new_password(password: str, *own: str, field: str = "password") -> str:
    """Check a new password against the policy and hash it.

    Args:
        password: The password.
        *own: What others know of the user, such as name and email address.
        field: The input field to name in the error.

    Raises:
        PasswordRejectedError: It is too short, too long or easy to guess.
        PasswordsBusyError: The queue is full.
    """
    await _judging.do(lambda: check_new_password(password, *own, field=field))
    return await hash_password(password)


async def hash_password(password: str) -> str:
    """Hash a password without checking it.

    Raises:
        PasswordsBusyError: The queue is full.
    """
    return await _hashing.do(lambda: _context.hash(_normalised(password)))


async def verify_password(password: str, hashed: str | None) -> tuple[bool, str | None]:
    """Verify a password.

    Args:
        password: The password.
        hashed: The stored hash. None for an unknown account: the result is then false after the same
            time.

    Returns:
        Whether the password is right, and a new hash if the stored one has outdated parameters or was
        made from the password before Unicode normalisation.

    Raises:
        PasswordsBusyError: The queue is full.
    """
    normalised = _normalised(password)
    if max(len(password.encode()), len(normalised.encode())) > MAX_BYTES:
        return False, None
    spellings = list(dict.fromkeys([normalised, password]))
    return await _hashing.do(lambda: _verify(spellings, hashed))


def _verify(spellings: Sequence[str], hashed: str | None) -> tuple[bool, str | None]:
    """Verify all spellings, the normalised one first. Each costs a hash, also without an account."""
    if hashed is None:
        for _ in spellings:
            _context.dummy_verify()
        return False, None
    verdicts = [_context.verify_and_update(one, hashed) for one in spellings]
    if verdicts[0][0] or not any(fits for fits, _ in verdicts):
        return verdicts[0]
    return True, _context.hash(spellings[0])


def _normalised(password: str) -> str:
    """Normalise to NFKC (NIST SP 800-63B), since systems compose characters differently."""
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
    # zxcvbn fails for an empty text.
    verdict = zxcvbn(judged or "x", user_inputs=words)
    if verdict["score"] >= _MIN_SCORE:
        return None
    if judged != _beginning(password):
        return f"is too easy to guess from your name or address; {_ADVICE}"
    reason = verdict["feedback"]["warning"].rstrip(".")
    why = f" ({reason[0].lower()}{reason[1:]})" if reason else ""
    return f"is too easy to guess{why}; {_ADVICE}"


def _beginning(password: str) -> str:
    """The prefix that zxcvbn judges."""
    judged = password[:_JUDGED_CHARACTERS]
    many = len(_SIGNS.intersection(judged)) > _MAX_SIGNS
    return judged[:_JUDGED_OF_MANY_SIGNS] if many else judged


def _words(own: Sequence[str]) -> list[str]:
    return [word for text in own for word in re.findall(r"[^\W_]{3,}", text)]


def _without(words: list[str], password: str) -> str:
    """Remove the user's own words, since they add next to no strength."""
    if not words:
        return password
    return re.sub("|".join(map(re.escape, words)), "", password, flags=re.IGNORECASE)
