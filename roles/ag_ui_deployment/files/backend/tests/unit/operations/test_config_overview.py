"""The source of a setting."""

from pathlib import Path

import pytest

from src.config import load_settings
from src.services.operations.config_overview import ConfigOverview
from tests.support.builders import JWT_SECRET, settings_of


def test_environment_overrides_file_and_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        f"JWT_SECRET={JWT_SECRET}\nPORT=8003\nLOG_LEVEL=DEBUG\nDATABASE_URL=postgresql://h/d\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOG_LEVEL", "INFO")
    shown = {one.name: one for one in ConfigOverview(load_settings()).settings()}
    assert (shown["PORT"].value, shown["PORT"].source) == (8003, ".env")
    assert (shown["LOG_LEVEL"].value, shown["LOG_LEVEL"].source) == ("INFO", "environment")
    assert (shown["ENV"].value, shown["ENV"].source) == ("production", "default")
    assert (shown["JWT_SECRET"].value, shown["JWT_SECRET"].is_set) == (None, True)


def test_empty_value_is_unset_and_lists_are_redacted() -> None:
    settings = settings_of(AUDIT_KEY="", SMTP_CA_FILE="", CORS_ORIGINS="https://a:hunter2@b.test")
    shown = {one.name: one for one in ConfigOverview(settings).settings()}
    assert not shown["AUDIT_KEY"].is_set
    assert not shown["SMTP_CA_FILE"].is_set
    assert not shown["SMTP_URL"].is_set
    assert shown["DEBUG"].is_set
    assert shown["CORS_ORIGINS"].value == ["https://[redacted]@b.test"]
