"""Which jobs and runs a user may see, as rbac_service.visibility() decides it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from src.models.workspace import DEFAULT_WORKSPACE


class OwnerScope(NamedTuple):
    """The jobs of one owner (None: of all owners) in one workspace."""

    owner: UUID | None
    workspace: str


@dataclass(frozen=True, slots=True)
class Visibility:
    """Which jobs and runs a user may see.

    Attributes:
        owner: The user, who sees own jobs and runs in `workspaces`.
        workspaces: The workspaces in which the user sees own jobs and runs.
        administers: The workspaces in which the user sees all jobs and runs.
        everything: Whether the user sees all jobs and runs.
    """

    owner: UUID | None = None
    workspaces: frozenset[str] = frozenset()
    administers: frozenset[str] = frozenset()
    everything: bool = False

    def shows(self, owner: UUID | None, workspace: str | None) -> bool:
        """Whether something of an owner in a workspace (None: the default one) is visible."""
        workspace_name = workspace or DEFAULT_WORKSPACE
        if self.everything or workspace_name in self.administers:
            return True
        return owner is not None and owner == self.owner and workspace_name in self.workspaces

    def scopes(self) -> Iterator[OwnerScope]:
        """The visible scopes, without overlaps. Must not be used if `everything` is set."""
        for workspace in sorted(self.administers):
            yield OwnerScope(None, workspace)
        if self.owner is not None:
            for workspace in sorted(self.workspaces - self.administers):
                yield OwnerScope(self.owner, workspace)


EVERYTHING = Visibility(everything=True)
