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

ResultT = TypeVar("ResultT")

MIN_LENGTH = 12
# The cost of hashing grows with the length, so without a limit long passwords would allow a denial of
# service.
MAX_BYTES = 1024
# Minimum score of zxcvbn (0 to 4): not found within 10^8 guesses.
_MIN_SCORE = 3
# zxcvbn's time is quadratic in the length, and grows with the number of leetspeak substitutions. With
# these limits it takes at most 50 ms.
_CHECKED_CHARACTERS = 24
_SUBSTITUTIONS = frozenset(chain.from_iterable(L33T_TABLE.values()))
_MAX_SUBSTITUTIONS = 8
_CHECKED_OF_MANY_SUBSTITUTIONS = 12
# Per queue. The last one waits some seconds.
_MAX_QUEUED = 64
_ADVICE = (
    "take four or more words that have nothing to do with each other, or let a program make it"
)

_context = CryptContext(schemes=["argon2"], argon2__type="ID")


class _WorkQueue:
    """A bounded queue of work for its own thread pool."""

    def __init__(self, name: str, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._queued = 0

    async def run(self, function: Callable[[], ResultT]) -> ResultT:
        """Run `function` in a thread.

        Raises:
            PasswordsBusyError: The queue is full.
        """
        if self._queued >= _MAX_QUEUED:
            raise PasswordsBusyError
        self._queued += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function)
        finally:
            self._queued -= 1


_hash_queue = _WorkQueue("hash", 2)
# One thread, since zxcvbn stores the user's words in a global table.
_strength_queue = _WorkQueue("judge", 1)


def check_new_password(password: str, *personal_texts: str, field: str = "password") -> None:
    """Check a new password against the policy. Takes up to 50 ms.

    Args:
        password: The password.
        *personal_texts: What others know of the user, such as name and email address.
        field: The input field to name in the error.

    Raises:
        PasswordRejectedError: It is too short, too long or easy to guess.
    """
    if message := _policy_error(
        _normalised(password), [_normalised(text) for text in personal_texts]
    ):
        raise PasswordRejectedError(message, field)


async def hash_new_password(password: str, *personal_texts: str, field: str = "password") -> str:
    """Check a new password against the policy and hash it.

    Args:
        password: The password.
        *personal_texts: What others know of the user, such as name and email address.
        field: The input field to name in the error.

    Raises:
        PasswordRejectedError: It is too short, too long or easy to guess.
        PasswordsBusyError: The queue is full.
    """
    await _strength_queue.run(lambda: check_new_password(password, *personal_texts, field=field))
    return await hash_password(password)


async def hash_password(password: str) -> str:
    """Hash a password without checking it.

    Raises:
        PasswordsBusyError: The queue is full.
    """
    return await _hash_queue.run(lambda: _context.hash(_normalised(password)))


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
    variants = list(dict.fromkeys([normalised, password]))
    return await _hash_queue.run(lambda: _verify(variants, hashed))


def _verify(variants: Sequence[str], hashed: str | None) -> tuple[bool, str | None]:
    """Verify all spellings, the normalised one first. Each costs a hash, also without an account."""
    if hashed is None:
        for _ in variants:
            _context.dummy_verify()
        return False, None
    results = [_context.verify_and_update(variant, hashed) for variant in variants]
    if results[0][0] or not any(matches for matches, _ in results):
        return results[0]
    return True, _context.hash(variants[0])


def _normalised(password: str) -> str:
    """Normalise to NFKC (NIST SP 800-63B), since systems compose characters differently."""
    return unicodedata.normalize("NFKC", password)


def _policy_error(password: str, personal_texts: Sequence[str]) -> str | None:
    if len(password) < MIN_LENGTH:
        return f"needs at least {MIN_LENGTH} characters"
    try:
        size = len(password.encode())
    except UnicodeEncodeError:
        return "has to be UTF-8; the terminal sent something else"
    if size > MAX_BYTES:
        return f"may have at most {MAX_BYTES} bytes"
    return _strength_error(password, personal_texts)


def _strength_error(password: str, personal_texts: Sequence[str]) -> str | None:
    words = _words_of(personal_texts)
    checked = _checked_part(_without_words(words, password))
    # zxcvbn fails for an empty text.
    result = zxcvbn(checked or "x", user_inputs=words)
    if result["score"] >= _MIN_SCORE:
        return None
    if checked != _checked_part(password):
        return f"is too easy to guess from your name or address; {_ADVICE}"
    reason = result["feedback"]["warning"].rstrip(".")
    explanation = f" ({reason[0].lower()}{reason[1:]})" if reason else ""
    return f"is too easy to guess{explanation}; {_ADVICE}"


def _checked_part(password: str) -> str:
    """The prefix that zxcvbn judges."""
    checked = password[:_CHECKED_CHARACTERS]
    many_substitutions = len(_SUBSTITUTIONS.intersection(checked)) > _MAX_SUBSTITUTIONS
    return checked[:_CHECKED_OF_MANY_SUBSTITUTIONS] if many_substitutions else checked


def _words_of(personal_texts: Sequence[str]) -> list[str]:
    return [word for text in personal_texts for word in re.findall(r"[^\W_]{3,}", text)]


def _without_words(words: list[str], password: str) -> str:
    """Remove the user's own words, since they add next to no strength."""
    if not words:
        return password
    return re.sub("|".join(map(re.escape, words)), "", password, flags=re.IGNORECASE)
