"""The schema revisions of this release, which the server knows without Alembic."""

from alembic.config import Config
from alembic.script import ScriptDirectory

from src.services.operations.schema import is_later, known_revisions, newest_revision
from tests.support.cli import BACKEND

_SCRIPTS = ScriptDirectory.from_config(Config(BACKEND / "alembic.ini"))


def test_revisions_are_those_of_the_migrations() -> None:
    assert known_revisions() == {script.revision for script in _SCRIPTS.walk_revisions()}
    assert newest_revision() == _SCRIPTS.get_current_head()


def test_only_an_unknown_revision_is_later() -> None:
    assert is_later("9999")
    assert not is_later(newest_revision())
    assert not is_later(None)
