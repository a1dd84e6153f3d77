"""The counts of streams in the metrics."""

from typing import TYPE_CHECKING, cast

from src.services.auth.stream_registry import StreamRegistry
from src.services.events.stream_server import StreamServer
from src.utils.metrics import Metrics
from tests.support.builders import settings_of

if TYPE_CHECKING:
    from src.services.events.hub import EventHub


def test_counts_exist_before_the_first_stream() -> None:
    """Otherwise an alarm does not see the first increase."""
    metrics = Metrics()
    StreamServer(cast("EventHub", None), StreamRegistry(), metrics, settings_of())
    exposed = metrics.exposition().decode()
    for scope in ("feed", "job", "run"):
        assert f'ag_ui_streams_open{{scope="{scope}"}} 0.0\n' in exposed
        assert f'_streams_closed_total{{reason="too_slow",scope="{scope}"}} 0.0\n' in exposed
