"""A loss is counted, logged, and reported for a while."""

import time

import pytest
import structlog

from src.models.event import StreamId
from src.services.consumer.losses import EntryLosses, Loss
from src.utils.metrics import Metrics
from tests.support.samples import sample


def test_loss_is_counted_logged_and_reported_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    losses = EntryLosses(metrics)
    assert losses.recent() is None
    with structlog.testing.capture_logs() as logs:
        losses.report(Loss("trimmed_unread", 35, StreamId(1, 0), StreamId(9, 0)))
        losses.report(Loss("stream_gone", 2, StreamId(9, 0), StreamId(9, 1)), at_least=True)
    assert [loss.entries for loss in losses.unrecorded] == [35, 2]
    assert [(log["event"], log["log_level"], log["how"], log["count"]) for log in logs] == [
        ("entries_lost", "error", "trimmed_unread", 35),
        ("entries_lost", "error", "stream_gone", 2),
    ]
    assert (logs[0]["after"], logs[0]["before"], logs[0]["at_least"]) == ("1-0", "9-0", False)
    assert sample(metrics, "ag_ui_entries_lost_total", how="trimmed_unread") == 35
    assert sample(metrics, "ag_ui_entries_lost_total", how="stream_gone") == 2
    latest = losses.recent()
    assert latest is not None
    assert latest[0] < 60
    assert latest[1].startswith("at least 2 entries were lost: ")
    later = time.monotonic() + 4000
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert losses.recent() is None


def test_counters_start_at_zero() -> None:
    metrics = Metrics()
    EntryLosses(metrics)
    shown = metrics.exposition().decode()
    for how in ("trimmed_pending", "trimmed_unread", "stream_gone"):
        assert f'ag_ui_entries_lost_total{{how="{how}"}} 0.0' in shown
