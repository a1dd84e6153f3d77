"""The state of the rotation of each generated secret, and its transitions.

A rotation has two phases: all instances accept the new value while the old one is in use, then the new one is in use
and the old one is still accepted for a time. The state is the same on all hosts of a group; of two states of a secret
the one with the higher serial number is valid.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Name of the file with the state, in the directory of the secrets.
STATE_FILE = "rotation.json"
ACCEPT = "accept"
USE = "use"


class Accepted(TypedDict):
    """A value that is accepted in addition to the one in use.

    `until` is in seconds since 1970; None if the end is not known yet.
    """

    value: str
    until: int | None


class Record(TypedDict):
    """The state of one secret. In the phase `accept` the first accepted value is the new one."""

    serial: int
    phase: str
    value: str
    accepted: list[Accepted]


def begin(record: Record | None, value: str, new: str, now: int, *, again: bool) -> Record:
    """Begin a rotation, unless one is in progress or the former value is still accepted.

    Args:
        record: The state; None if the secret was never rotated.
        value: The value in use, for a secret that was never rotated.
        new: The new value.
        now: The time in seconds since 1970.
        again: Whether to begin another rotation although the former value is still accepted.

    Returns:
        The new state, or the same object.
    """
    known = finish(record, now) if record else Record(serial=0, phase=USE, value=value, accepted=[])
    if known["phase"] == ACCEPT or (known["accepted"] and not again):
        return known
    accepted = [Accepted(value=new, until=None), *known["accepted"]]
    return Record(serial=known["serial"] + 1, phase=ACCEPT, value=known["value"], accepted=accepted)


def use(record: Record) -> Record:
    """Use the new value, which all instances accept; the former one remains accepted."""
    if record["phase"] != ACCEPT:
        return record
    new, *others = record["accepted"]
    accepted = [Accepted(value=record["value"], until=None), *others]
    return Record(serial=record["serial"] + 1, phase=USE, value=new["value"], accepted=accepted)


def confirm(record: Record, until: int) -> Record:
    """Set until when former values are accepted, after all instances use the new one."""
    if record["phase"] != USE or all(one["until"] is not None for one in record["accepted"]):
        return record
    accepted = [
        Accepted(value=one["value"], until=until if one["until"] is None else one["until"])
        for one in record["accepted"]
    ]
    return Record(serial=record["serial"] + 1, phase=USE, value=record["value"], accepted=accepted)


def finish(record: Record, now: int, *, early: bool = False) -> Record:
    """Remove the former values whose time has passed.

    Args:
        record: The state.
        now: The time in seconds since 1970.
        early: Whether to remove those too whose time has not passed.
    """
    left = [
        one
        for one in record["accepted"]
        if one["until"] is None or (one["until"] > now and not early)
    ]
    if len(left) == len(record["accepted"]):
        return record
    return Record(
        serial=record["serial"] + 1, phase=record["phase"], value=record["value"], accepted=left
    )


def read_state(directory: Path) -> dict[str, Record]:
    """Read the states of the secrets in this directory, by name; empty if none was rotated."""
    path = directory / STATE_FILE
    if not path.exists():
        return {}
    state: dict[str, Record] = json.loads(path.read_text(encoding="ascii"))
    return state


def write_state(directory: Path, state: Mapping[str, Record]) -> None:
    """Write the states atomically, with mode 0600."""
    write_secret(directory / STATE_FILE, json.dumps(state, sort_keys=True))


def write_secret(path: Path, value: str) -> None:
    """Write a secret atomically, with mode 0600."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(value + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
