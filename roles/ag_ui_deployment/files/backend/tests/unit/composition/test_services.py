"""What the application starts, and the order in which it stops."""

import asyncio

import pytest

from src.composition.services import Services
from src.utils.background_task import BackgroundTask
from tests.support.builders import settings_of


async def test_agent_tasks_stop_first_and_the_audit_logger_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Runs of the agent end before the other tasks stop, and all may record entries until the end."""
    services = Services.build(settings_of(SHUTDOWN_GRACE_SECONDS=1))
    others = asyncio.all_tasks()
    stopped: list[BackgroundTask] = []
    stop = BackgroundTask.stop

    async def recorded_stop(task: BackgroundTask) -> None:
        await stop(task)
        stopped.append(task)

    monkeypatch.setattr(BackgroundTask, "stop", recorded_stop)
    services.start()
    assert not any(task.failed for task in services.tasks.values())
    await services.stop()

    of_the_agent = set(services.agent.tasks.values())
    assert set(stopped[: len(of_the_agent)]) == of_the_agent
    assert stopped[-1] is services.audit.logger
    assert set(stopped[:-1]) == set(services.tasks.values())
    assert len(stopped) == len(services.tasks) + 1
    assert asyncio.all_tasks() == others


async def test_health_report_contains_every_task() -> None:
    services = Services.build(settings_of())
    report = await services.operations.health.health()
    assert report.checks.keys() == services.tasks.keys() | {
        "redis",
        "database",
        "gateway",
        "orchestrator",
        "audit",
    }
    await services.stop()
