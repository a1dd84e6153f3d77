"""What a user sees of jobs and runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from src.models.workspace import DEFAULT_WORKSPACE


class OwnerScope(NamedTuple):
    """The jobs of one owner, or (None) of anybody, in one workspace."""

    owner: UUID | None
    workspace: str


@dataclass(frozen=True, slots=True)
class Visibility:
    """Whose jobs and runs a user sees.

    One's own in the workspaces that one belongs to, all in those that one administers; with
    `everything` all there are. What names no workspace belongs to the default one.
    """

    owner: UUID | None = None
    workspaces: frozenset[str] = frozenset()
    administers: frozenset[str] = frozenset()
    everything: bool = False

    def shows(self, owner: UUID | None, workspace: str | None) -> bool:
        place = workspace or DEFAULT_WORKSPACE
        if self.everything or place in self.administers:
            return True
        return owner is not None and owner == self.owner and place in self.workspaces

    def places(self) -> Iterator[OwnerScope]:
        """The same as a list without overlaps; of no use where everything is shown."""
        for workspace in sorted(self.administers):
            yield OwnerScope(None, workspace)
        if self.owner is not None:
            for workspace in sorted(self.workspaces - self.administers):
                yield OwnerScope(self.owner, workspace)


EVERYTHING = Visibility(everything=True)
