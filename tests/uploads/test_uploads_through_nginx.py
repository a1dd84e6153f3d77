"""The official tus client uploads through the site's nginx to two instances."""

from __future__ import annotations

import filecmp
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.upload_site import (
    Instance,
    UploadSite,
    lines_of,
    running_upload_site,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEBIBYTE = 1024 * 1024
# Larger than any document: all of it is sent in one request.
ONE_REQUEST = 2**40


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UploadSite]:
    with running_upload_site(tmp_path_factory.mktemp("site")) as running:
        yield running


def document(path: Path, size: int, *, sparse: bool = False) -> Path:
    """Write a document of this size that begins as a PDF."""
    with path.open("wb") as file:
        file.write(b"%PDF-1.7\n")
        while not sparse and file.tell() < size:
            file.write(os.urandom(min(MEBIBYTE, size - file.tell())))
        file.truncate(size)
    return path


def test_cut_upload_survives_the_end_of_its_instance(site: UploadSite, tmp_path: Path) -> None:
    """The client's connection is cut, then its instance killed, then the other one."""
    size = 160 * MEBIBYTE
    sent, hold = document(tmp_path / "report.pdf", size), tmp_path / "hold"
    running = list(site.instances)
    killed: list[Instance] = []

    def receiving() -> list[Instance]:
        return [instance for instance in running if instance.receives()]

    def is_due(least: int) -> bool:
        return site.received() >= least and bool(receiving())

    options = {"chunkSize": ONE_REQUEST, "cutAfter": size // 8, "hold": str(hold)}
    with site.client(sent, **options) as client:
        for share in (4, 2):
            due = partial(is_due, size // share)
            eventually(due, f"1/{share} of the document has arrived", within=60, every=0.01)
            hold.touch()
            (one,) = receiving()
            one.kill()
            running.remove(one)
            # It is not the one that the client goes on with.
            for former in killed:
                former.start()
            killed.append(one)
            hold.unlink()
        lines = lines_of(client)
    killed[-1].start()
    asked = [line["asked"] for line in lines if "asked" in line]
    assert asked[:3] == ["POST", "PATCH", "HEAD"]
    # At the beginning, and after each of the three interruptions.
    assert asked.count("PATCH") >= 4
    assert [line["cut"] > 0 for line in lines if "cut" in line] == [True]
    assert "status" not in lines[-1]
    (stored,) = site.files()
    assert stored.suffix == ".pdf"
    assert filecmp.cmp(sent, stored, shallow=False)
    site.delete(stored.stem)


def test_memory_does_not_grow_with_the_document(site: UploadSite, tmp_path: Path) -> None:
    size = 1024 * MEBIBYTE
    # What the first upload loads is loaded before the measurement.
    with site.client(document(tmp_path / "small.pdf", MEBIBYTE)) as client:
        lines_of(client)
    before = [instance.memory("VmRSS") for instance in site.instances]
    for instance in site.instances:
        instance.forget_maximum()
    sent = document(tmp_path / "large.pdf", size, sparse=True)
    with site.client(sent, chunkSize=ONE_REQUEST) as client:
        lines = lines_of(client)
    grown = [
        instance.memory("VmHWM") - former
        for instance, former in zip(site.instances, before, strict=True)
    ]
    assert [line["asked"] for line in lines if "asked" in line] == ["POST", "PATCH"]
    assert max(file.stat().st_size for file in site.files()) == size
    assert max(grown) < 64 * MEBIBYTE, grown
    assert site.buffered() == []
