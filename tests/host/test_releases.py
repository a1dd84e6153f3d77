"""`ag-ui releases`: names, outcomes and reasons."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.deployed_host import Host


def test_releases_are_listed_with_what_became_of_them(site: Host) -> None:
    site.write_record("first", {**site.record("first"), "outcome": "rolled_back"})
    failed = site.etc / "releases/third"
    failed.mkdir()
    reason = "it did not stay healthy\nIts last error: no key"
    site.write_record("third", {"outcome": "failed", "reason": reason, "image": "image:third"})
    (site.etc / "releases/fourth").mkdir()
    done = site.run("releases")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines[:2]] == [
        [
            "current",
            "second",
            "deployed",
            "2026-01-02T03:04:05Z",
            "by",
            "me@controller",
            "image:second",
        ],
        [
            "previous",
            "first",
            "rolled_back",
            "2026-01-02T03:04:05Z",
            "by",
            "me@controller",
            "image:first",
        ],
    ]
    assert lines[2].split()[:2] == ["fourth", "incomplete"]
    assert lines[3].split()[:2] == ["third", "failed"]
    assert [line.strip() for line in lines[4:]] == reason.splitlines()


def test_json_has_the_records(site: Host) -> None:
    listed = json.loads(site.run("releases", "--json").stdout)
    assert [(one["link"], one["release"], one["by"]) for one in listed] == [
        ("current", "second", "me@controller"),
        ("previous", "first", "me@controller"),
    ]


def test_release_without_a_record_is_listed(site: Host) -> None:
    (site.etc / "releases/first/record.json").write_text("damaged")
    [_, first] = json.loads(site.run("releases", "--json").stdout)
    assert (first["outcome"], first["image"]) == ("deployed", "image:first")


def test_host_without_releases(host: Host) -> None:
    assert host.run("releases").stdout == "There are no releases on this host. Deploy to it.\n"
