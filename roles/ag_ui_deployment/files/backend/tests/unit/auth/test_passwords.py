"""Hashing of passwords, and the policy for new ones."""

import asyncio
import contextlib
import threading
import time
from typing import Any

import pytest
from argon2 import PasswordHasher
from passlib.context import CryptContext
from zxcvbn import zxcvbn

from src.services.auth import passwords as auth_passwords
from src.services.auth.errors import PasswordRejectedError, PasswordsBusyError
from src.services.auth.passwords import (
    MAX_BYTES,
    check_new_password,
    hash_new_password,
    hash_password,
    verify_password,
)

PASSWORD = "correct horse battery staple"
WEAK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


@pytest.fixture
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use cheap Argon2 parameters, so that tests can compute many hashes."""
    cost: dict[str, Any] = {
        "argon2__rounds": 2,
        "argon2__memory_cost": 64,
        "argon2__parallelism": 1,
    }
    context = CryptContext(schemes=["argon2"], argon2__type="ID", **cost)
    monkeypatch.setattr(auth_passwords, "_context", context)


async def test_hash_parameters_meet_the_owasp_minimum() -> None:
    """At least the OWASP recommendation: 19 MiB and two iterations."""
    _, kind, _, cost, *_ = (await hash_password(PASSWORD)).split("$")
    values = dict(part.split("=") for part in cost.split(","))
    assert kind == "argon2id"
    assert int(values["m"]) >= 19 * 1024
    assert int(values["t"]) >= 2


async def test_hashing_does_not_block_the_event_loop() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await hash_password(PASSWORD)
    ticking.cancel()
    assert ticks > 10


# One password as most keyboards send it, as macOS decomposes it, and with full-width characters and
# a ligature.
SPELLINGS = (
    "ein schöner fisch zum Frühstück",
    "ein scho\u0308ner fisch zum Fru\u0308hstu\u0308ck",
    "ein schöner \ufb01sch zum\u3000Frühstück",
)


@pytest.mark.usefixtures("quick_hashes")
class TestPasswords:
    async def test_hash_is_argon2id_with_a_random_salt(self) -> None:
        first, second = await hash_password(PASSWORD), await hash_password(PASSWORD)
        assert first.startswith("$argon2id$")
        assert first != second
        assert await verify_password(PASSWORD, first) == (True, None)

    @pytest.mark.parametrize("wrong", ["", "x", PASSWORD + " ", PASSWORD.upper(), PASSWORD + "\0"])
    async def test_wrong_password_is_refused(self, wrong: str) -> None:
        hashed = await hash_password(PASSWORD)
        assert await verify_password(wrong, hashed) == (False, None)

    async def test_unknown_user_has_no_valid_password(self) -> None:
        assert await verify_password(PASSWORD, None) == (False, None)

    async def test_unknown_user_costs_a_hash(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hashed: list[bool] = []
        monkeypatch.setattr(auth_passwords._context, "dummy_verify", lambda: hashed.append(True))
        await verify_password(PASSWORD, None)
        assert hashed == [True]

    async def test_outdated_hash_is_replaced(self) -> None:
        weak = WEAK.hash(PASSWORD)
        fits, renewed = await verify_password(PASSWORD, weak)
        assert fits
        assert renewed is not None
        assert await verify_password(PASSWORD, renewed) == (True, None)

    @pytest.mark.parametrize("spelling", SPELLINGS)
    async def test_unicode_normal_forms_are_equivalent(self, spelling: str) -> None:
        for other in SPELLINGS:
            assert await verify_password(other, await hash_password(spelling)) == (True, None)

    async def test_hash_of_an_unnormalised_password_is_replaced(self) -> None:
        old = auth_passwords._context.hash(SPELLINGS[1])
        fits, renewed = await verify_password(SPELLINGS[1], old)
        assert fits
        assert renewed is not None
        for spelling in SPELLINGS:
            assert await verify_password(spelling, renewed) == (True, None)
        # An old hash only matches the spelling that it was made from.
        assert await verify_password(SPELLINGS[2], old) == (False, None)

    async def test_unnormalised_password_costs_the_same_without_an_account(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hashed = await hash_password(PASSWORD)
        work: list[str] = []

        def note_verify(*_: str) -> tuple[bool, None]:
            work.append("known")
            return False, None

        monkeypatch.setattr(auth_passwords._context, "verify_and_update", note_verify)
        monkeypatch.setattr(auth_passwords._context, "dummy_verify", lambda: work.append("unknown"))
        for wrong, cost in (("plain", 1), (SPELLINGS[1], 2)):
            work.clear()
            await verify_password(wrong, hashed)
            await verify_password(wrong, None)
            assert work == ["known"] * cost + ["unknown"] * cost

    async def test_policy_applies_to_the_normalised_password(self) -> None:
        with pytest.raises(PasswordRejectedError, match="at most"):
            # Each of the characters normalises to eighteen.
            await hash_new_password("\ufdfa" * 300)
        full_width = "".join(chr(ord(one) + 0xFEE0) for one in "password1234")
        with pytest.raises(PasswordRejectedError, match="too easy to guess"):
            await hash_new_password(full_width)

    async def test_password_above_1024_bytes_is_refused_unhashed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hashed = await hash_password("ü" * (MAX_BYTES // 2))
        assert await verify_password("ü" * (MAX_BYTES // 2), hashed) == (True, None)
        monkeypatch.setattr(auth_passwords, "_hash_queue", None)
        assert await verify_password("ü" * (MAX_BYTES // 2) + "x", hashed) == (False, None)
        assert await verify_password("x" * 10_000_000, None) == (False, None)

    @pytest.mark.parametrize(
        "good",
        [
            "twelve chars",
            PASSWORD,
            "hnR7vKqXw2mZ",
            "ganz schön viele Wörter",
            PASSWORD.ljust(MAX_BYTES),
            (PASSWORD + "ü" * MAX_BYTES).encode()[:MAX_BYTES].decode(),
        ],
    )
    def test_accepted_passwords(self, good: str) -> None:
        check_new_password(good)

    @pytest.mark.parametrize("bad", ["", "eleven char", "x" * (MAX_BYTES + 1), "ü" * MAX_BYTES])
    def test_refused_lengths(self, bad: str) -> None:
        with pytest.raises(PasswordRejectedError, match=r"needs at least|at most"):
            check_new_password(bad)

    @pytest.mark.parametrize(
        "easy",
        [
            "password1234",
            "qwertyuiop12",
            "aaaaaaaaaaaaaaaa",
            "P@ssw0rd2024!",
            "abcabcabcabcabc",
            "alice@example.org!1",
            "Liddell-alice-12",
            "liddellLIDDELL",
            "\N{GREEK SMALL LETTER ALPHA}" * 40,
            "x" * MAX_BYTES,
        ],
    )
    def test_refused_guessable_passwords(self, easy: str) -> None:
        with pytest.raises(PasswordRejectedError, match=r"too easy to guess.*four or more words"):
            check_new_password(easy, "alice@example.org", "Alice Liddell")

    def test_only_the_users_own_name_makes_a_password_guessable(self) -> None:
        hers = "Liddell-alice-12"
        with pytest.raises(PasswordRejectedError):
            check_new_password(hers, "Alice Liddell")
        check_new_password(hers, "Bob Dodgson")
        check_new_password(hers)

    @pytest.mark.parametrize(
        "costly",
        [
            "(4@81|" * 170,
            # Characters that may stand for letters, with the maximum number of combinations.
            ("p4@ssw0rd$5123!1|l{[(<c369g7+t%x2z" * 3)[:72],
            "4@8({[<369!1|70$5+%2" * 4,
            "|<51[7!$" * 9,
        ],
    )
    def test_strength_check_has_bounded_cost(self, costly: str) -> None:
        started = time.thread_time()
        with contextlib.suppress(PasswordRejectedError):
            check_new_password(costly)
        assert time.thread_time() - started < 0.3

    @pytest.mark.parametrize("beginning", ["a1" * 12, "0123456789!@" * 2])
    def test_weak_prefix_is_refused(self, beginning: str) -> None:
        """The check only looks at the beginning, which bounds its cost."""
        with pytest.raises(PasswordRejectedError):
            check_new_password(beginning + PASSWORD)

    async def test_concurrent_checks_do_not_share_user_inputs(self) -> None:
        names = [f"surname{n}-lovelace{n}" for n in range(12)]
        verdicts = await asyncio.gather(
            *(hash_new_password(name, name) for name in names), return_exceptions=True
        )
        assert [type(verdict) for verdict in verdicts] == [PasswordRejectedError] * 12

    async def test_strength_check_does_not_block_logins(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = threading.Event()

        def wait_and_judge(*given: Any, **options: Any) -> Any:
            assert gate.wait(10)
            return zxcvbn(*given, **options)

        monkeypatch.setattr(auth_passwords, "zxcvbn", wait_and_judge)
        judging = [asyncio.create_task(hash_new_password(PASSWORD)) for _ in range(3)]
        assert await verify_password(PASSWORD, None) == (False, None)
        gate.set()
        assert all(await asyncio.gather(*judging))

    async def test_full_queue_refuses_further_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gate = threading.Event()
        monkeypatch.setattr(auth_passwords._context, "hash", lambda _: str(gate.wait(10)))
        waiting = [
            asyncio.create_task(hash_password(PASSWORD)) for _ in range(auth_passwords._MAX_QUEUED)
        ]
        await asyncio.sleep(0)
        for work in (hash_password(PASSWORD), verify_password(PASSWORD, None)):
            with pytest.raises(PasswordsBusyError):
                await work
        gate.set()
        assert set(await asyncio.gather(*waiting)) == {"True"}
        assert await hash_password(PASSWORD) == "True"

    def test_invalid_unicode_is_refused(self) -> None:
        """A terminal with another encoding passes such text to a program."""
        with pytest.raises(PasswordRejectedError):
            check_new_password("pass\udcfcword-of-a-latin-1-terminal")
