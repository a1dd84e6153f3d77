"""Simultaneous requests for one upload, or at a limit, at two instances with each storage."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.environment import Environment
from tests.support.s3_server import running_s3_server
from tests.support.server import Backend, two_instances
from tests.support.uploads import Uploader, files_in, pdf, uploader

Instances = tuple[Backend, Backend]
CONTENT = pdf(300_000)
ROUNDS = 8


class Storage:
    """What the instances use, and the names of all that is in it."""

    def __init__(self, settings: dict[str, str], names: Callable[[], list[str]]) -> None:
        self.settings = settings
        self.names = names


@pytest.fixture(params=["directory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "directory":
        settings = {"UPLOADS_DIRECTORY": str(tmp_path)}
        yield Storage(settings, lambda: [file.name for file in files_in(tmp_path)])
    else:
        with running_s3_server() as server:
            yield Storage(server.settings, server.names)


@pytest.fixture
async def instances(environment: Environment, storage: Storage) -> AsyncIterator[Instances]:
    limits: dict[str, Any] = {"UPLOADS_PER_USER": 3, "UPLOADS_USER_MAX_BYTES": 1_000_000}
    async with two_instances(environment, **storage.settings, **limits) as pair:
        yield pair


@pytest.fixture
async def carol(instances: Instances) -> Uploader:
    return await uploader(instances[0])


def everywhere(who: Uploader, instances: Instances) -> tuple[Uploader, Uploader]:
    return who, who.at(instances[1])


async def test_one_of_several_requests_with_the_same_bytes_succeeds(
    carol: Uploader, instances: Instances, storage: Storage
) -> None:
    for _ in range(ROUNDS):
        path = await carol.begun(len(CONTENT))
        responses = await asyncio.gather(
            *(who.send(path, 0, CONTENT) for who in everywhere(carol, instances) for _ in range(2))
        )
        statuses = sorted(response.status_code for response in responses)
        assert statuses[0] == 204
        assert set(statuses[1:]) <= {409, 423}
        assert (await carol.get(path))["type"] == "pdf"
        assert storage.names() == [f"{path.rpartition('/')[2]}.pdf"]
        assert (await carol.ask("DELETE", path)).status_code == 204


async def test_requests_with_different_bytes_are_not_mixed(
    carol: Uploader, instances: Instances
) -> None:
    """The offset is that of the one that was stored; the other has to ask for it."""
    for _ in range(ROUNDS):
        path = await carol.begun(len(CONTENT))
        sizes = (100_000, 200_000)
        responses = await asyncio.gather(
            *(
                who.send(path, 0, CONTENT[:size])
                for who, size in zip(everywhere(carol, instances), sizes, strict=True)
            )
        )
        accepted = [response for response in responses if response.status_code == 204]
        assert len(accepted) == 1
        assert str(await carol.offset(path)) == accepted[0].headers["upload-offset"]
        await carol.ask("DELETE", path)


async def test_upload_that_is_deleted_while_bytes_come_leaves_nothing(
    carol: Uploader, instances: Instances, storage: Storage
) -> None:
    one, other = everywhere(carol, instances)
    for number in range(ROUNDS):
        path = await one.begun(len(CONTENT))
        # All of it, so that it also becomes complete, or a part.
        size = len(CONTENT) if number % 2 else 1_000
        sent, deleted = await asyncio.gather(
            one.send(path, 0, CONTENT[:size]), other.ask("DELETE", path)
        )
        assert (sent.status_code, deleted.status_code) in {
            (204, 204),
            (204, 423),
            (404, 204),
            (423, 204),
        }
        if deleted.status_code == 423:
            assert (await other.ask("DELETE", path)).status_code == 204
        assert (await one.ask("GET", path)).status_code == 404
        assert storage.names() == []


async def test_two_deletions_leave_nothing(
    carol: Uploader, instances: Instances, storage: Storage
) -> None:
    for size in (1_000, len(CONTENT)):
        path = await carol.begun(len(CONTENT))
        await carol.send(path, 0, CONTENT[:size])
        responses = await asyncio.gather(
            *(who.ask("DELETE", path) for who in everywhere(carol, instances))
        )
        statuses = {response.status_code for response in responses}
        assert 204 in statuses
        assert statuses <= {204, 404, 423}
        assert storage.names() == []


@pytest.mark.parametrize(("size", "accepted"), [(1_000, 3), (400_000, 2)])
async def test_limits_hold_for_simultaneous_requests(
    carol: Uploader, instances: Instances, size: int, accepted: int
) -> None:
    """Of the number of uploads of a user, and of their bytes."""
    responses = await asyncio.gather(
        *(who.begin(size) for who in everywhere(carol, instances) for _ in range(4))
    )
    statuses = sorted(response.status_code for response in responses)
    assert statuses == [201] * accepted + [429] * (8 - accepted)
