"""Validation of the arguments of tools."""

import pytest
from pydantic import ValidationError

from src.models.tools import CrawlWeb, IngestDoc


def test_url_and_domains_are_normalised() -> None:
    crawl = CrawlWeb(url="HTTP://0x8080808/", allowed_domains=["Bücher.Example."])
    assert (crawl.url, crawl.allowed_domains) == ("http://8.8.8.8/", ["xn--bcher-kva.example"])


@pytest.mark.parametrize("domain", [" example.org", "example.org ", "ex\u00adample.org",
                                    "ex\u034fample.org", "example.org\u200b"])  # fmt: skip
def test_invisible_characters_in_a_domain_are_refused(domain: str) -> None:
    with pytest.raises(ValidationError, match="invisible"):
        CrawlWeb(url="http://example.org", allowed_domains=[domain])


@pytest.mark.parametrize(
    "path",
    [" file:///etc/passwd", "\u2060http://10.0.0.1/", "a.pdf ", "\u00a0a.pdf", "a\u3164.pdf"],
)
def test_invisible_characters_in_a_path_are_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="invisible"):
        IngestDoc(file_path=path)
    assert IngestDoc(file_path="my report.pdf").file_path == "my report.pdf"
