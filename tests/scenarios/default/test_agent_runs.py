"""Agent runs that outlive their client, and runs whose instance dies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from roles.ag_ui_deployment.files.backend.tests.run_checker import check_run
from tests.scenarios.support.api_client import failure_of, run_input, text_of
from tests.scenarios.support.http import EventStream, read_to_end
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.scenarios.support.api_client import ApiClient

WORD_COUNT: Final = 30
SLOW_PROMPT: Final = f"words {WORD_COUNT}\nfault=drip-0.2"
WHOLE_ANSWER: Final = " ".join(f"word{number}" for number in range(WORD_COUNT))
STALLING_PROMPT: Final = "one two three four five fault=stall"
DETECTED_WITHIN: Final = 60.0
"""Seconds until an instance detects that another one is gone and ends its runs."""


def path_of(stream: EventStream) -> str:
    return f"/agent/runs/{check_run(stream.events).run_id}"


def wait_for_words(stream: EventStream) -> None:
    stream.wait(lambda it: text_of(it.events), "words of the model", within=60)


def test_run_continues_without_its_client_and_resumes_at_another_instance(
    api_client: ApiClient,
) -> None:
    token = api_client.account.token
    here, elsewhere = api_client.site.instances[:2]
    with EventStream(here, "/agent", token, body=run_input(SLOW_PROMPT)) as first:
        wait_for_words(first)
        path = f"{path_of(first)}/events"
    with EventStream(elsewhere, path, token, last_event_id=first.cursor) as resumed:
        wait_for_words(resumed)
        assert WHOLE_ANSWER not in text_of(first.events) + text_of(resumed.events)
        read_to_end(resumed, within=60)
    assert check_run(resumed.events, complete=True).outcome == "success"
    for route in api_client.site.routes:
        run, events = api_client.follow(route, path)
        assert (run.outcome, text_of(events)) == ("success", WHOLE_ANSWER)


def test_run_of_a_killed_instance_ends_as_lost_at_all_instances(api_client: ApiClient) -> None:
    site, token = api_client.site, api_client.account.token
    dying, other = site.instances[:2]
    with EventStream(dying, "/agent", token, body=run_input(STALLING_PROMPT)) as first:
        wait_for_words(first)
        path = path_of(first)
        with EventStream(other, f"{path}/events", token) as following:
            wait_for_words(following)
            site.kill(dying.port)
            read_to_end(following, within=DETECTED_WITHIN)
    check_run(following.events, complete=True)
    assert failure_of(following.events) == "run_lost"

    def is_stored() -> bool:
        run = api_client.get(path).json()
        return (run["status"], run["error"]) == ("failed", "run_lost")

    eventually(is_stored, "the run has failed", within=60)
    site.wait_until_healthy()
    for instance in site.instances:
        _, events = api_client.follow(instance, f"{path}/events")
        assert failure_of(events) == "run_lost"
