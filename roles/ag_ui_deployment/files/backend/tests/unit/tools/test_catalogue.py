"""Validation of a tool's arguments before a call."""

import socket
from typing import Any

import pytest

from src.models.tools import CrawlWeb
from src.services.tools.catalogue import ArgumentChecker
from src.services.tools.errors import ArgumentsRefusedError
from src.services.tools.ssrf_guard import SsrfGuard
from tests.support.builders import settings_of


async def test_allowed_domains_are_resolved_like_the_url(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look_up(name: str, *_more: Any) -> list[Any]:
        inside = name.startswith("inside")
        return [(0, 0, 0, "", ("10.0.0.1" if inside else "93.184.215.14", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    targets = SsrfGuard(allow_private=False)
    check = ArgumentChecker(settings_of(), targets)
    url = "https://public.example/"
    domains = ["public.example", "other.example", "inside.example"]
    await check.check(CrawlWeb(url=url, allowed_domains=domains[:2]))
    with pytest.raises(ArgumentsRefusedError) as refused:
        await check.check(CrawlWeb(url=url, allowed_domains=domains))
    assert [fault.field for fault in refused.value.faults] == ["allowed_domains.2"]
    targets.close()
