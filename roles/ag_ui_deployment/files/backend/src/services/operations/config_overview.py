"""The settings and their sources, for administrators. Values of secrets are omitted."""

import os
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic_settings import DotEnvSettingsSource

from src.config import Settings
from src.models.page import Page
from src.utils.redaction import redact_text


class Source(StrEnum):
    ENVIRONMENT = "environment"
    FILE = ".env"
    DEFAULT = "default"


class Setting(BaseModel):
    """`value` is null for a secret; `is_set` says whether there is one."""

    name: str
    value: Any
    secret: bool
    is_set: bool
    source: Source


class SettingPage(Page[Setting]):
    pass


class ConfigOverview:
    """Determines the sources once, right after the settings were read, since .env may change later."""

    def __init__(self, settings: Settings) -> None:
        in_file = DotEnvSettingsSource(Settings).env_vars
        self._settings = [
            _setting(settings, name, _source(settings, name, in_file))
            for name in sorted(Settings.model_fields)
        ]

    def settings(self) -> list[Setting]:
        return self._settings


def _source(settings: Settings, name: str, in_file: Mapping[str, str | None]) -> Source:
    if name not in settings.model_fields_set:
        return Source.DEFAULT
    is_from_file = name in in_file and name not in os.environ
    return Source.FILE if is_from_file else Source.ENVIRONMENT


def _setting(settings: Settings, name: str, source: Source) -> Setting:
    value = getattr(settings, name)
    secret = "SecretStr" in str(Settings.model_fields[name].annotation)
    secret_or_value = value.get_secret_value() if isinstance(value, SecretStr) else value
    is_set = secret_or_value not in (None, "")
    if secret:
        value = None
    elif isinstance(value, str):
        value = redact_text(value)
    elif isinstance(value, list):
        value = [redact_text(item) for item in value]
    return Setting(name=name, value=value, secret=secret, is_set=is_set, source=source)
