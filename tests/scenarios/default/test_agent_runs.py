"""Agent runs that outlive their client, and runs whose instance dies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from roles.ag_ui_deployment.files.backend.tests.run_checker import check_run
from tests.scenarios.support.caller import failure_of, run_input, text_of
from tests.scenarios.support.http import EventStream, read_to_the_end
from tests.scenarios.support.waiting import eventually

if TYPE_CHECKING:
    from tests.scenarios.support.caller import Caller

WORDS: Final = 30
SLOWLY: Final = f"words {WORDS}\nfault=drip-0.2"
ALL: Final = " ".join(f"word{number}" for number in range(WORDS))
STALLS: Final = "one two three four five fault=stall"
UNTIL_TOLD: Final = 60.0
"""Seconds until an instance detects that another one is gone and ends its runs."""


def path_of(stream: EventStream) -> str:
    return f"/agent/runs/{check_run(stream.events).run_id}"


def wait_for_words(stream: EventStream) -> None:
    stream.wait(lambda it: text_of(it.events), "words of the model", within=20)


def test_run_continues_without_its_client_and_resumes_at_another_instance(caller: Caller) -> None:
    token = caller.account.token
    here, elsewhere = caller.site.instances[:2]
    with EventStream(here, "/agent", token, body=run_input(SLOWLY)) as begun:
        wait_for_words(begun)
        path = f"{path_of(begun)}/events"
    with EventStream(elsewhere, path, token, last_event_id=begun.cursor) as resumed:
        wait_for_words(resumed)
        assert ALL not in text_of(begun.events) + text_of(resumed.events)
        read_to_the_end(resumed, within=60)
    assert check_run(resumed.events, complete=True).outcome == "success"
    for route in caller.site.routes:
        run, events = caller.follow(route, path)
        assert (run.outcome, text_of(events)) == ("success", ALL)


def test_run_of_a_killed_instance_ends_as_lost_at_all_instances(caller: Caller) -> None:
    site, token = caller.site, caller.account.token
    dying, other = site.instances[:2]
    with EventStream(dying, "/agent", token, body=run_input(STALLS)) as begun:
        wait_for_words(begun)
        path = path_of(begun)
        with EventStream(other, f"{path}/events", token) as following:
            wait_for_words(following)
            site.kill(dying.port)
            read_to_the_end(following, within=UNTIL_TOLD)
    check_run(following.events, complete=True)
    assert failure_of(following.events) == "run_lost"

    def is_stored() -> bool:
        run = caller.get(path).json()
        return (run["status"], run["error"]) == ("failed", "run_lost")

    eventually(is_stored, "the run has failed", within=20)
    site.wait_until_healthy()
    for instance in site.instances:
        _, events = caller.follow(instance, f"{path}/events")
        assert failure_of(events) == "run_lost"
