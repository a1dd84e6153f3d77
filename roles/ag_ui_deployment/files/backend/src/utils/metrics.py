"""The Prometheus metrics of the process."""

from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

_LATENCY = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_BATCH_ENTRIES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_BATCH_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_UNKNOWN = float("nan")


class Metrics:
    """All metrics of a process. Label values are chosen by the code only, so their number is bounded."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._registry = registry
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        # Streams
        self.streams_open = gauge("ag_ui_streams_open", "Event streams that are open", ["scope"])
        self.streams_opened = counter(
            "ag_ui_streams_opened_total", "Event streams opened", ["scope"]
        )
        self.streams_closed = counter(
            "ag_ui_streams_closed_total",
            "Event streams closed, by why; too_slow is a client that stopped reading",
            ["scope", "reason"],
        )
        self.streams_refused = counter(
            "ag_ui_streams_refused_total",
            "Event streams refused, by the limit that was reached",
            ["reason"],
        )
        self.limited = counter(
            "ag_ui_limited_total",
            "Requests refused since somebody asks too often, by the limit that was reached",
            ["limit"],
        )
        self.events_sent = counter(
            "ag_ui_events_sent_total", "Events written to clients, counted once for each client"
        )
        self.sent_bytes = counter("ag_ui_sent_bytes_total", "Bytes of frames written to clients")
        self.delivery_latency = histogram(
            "ag_ui_delivery_latency_seconds",
            "From the moment Redis took an event to its first write to a client",
            buckets=_LATENCY,
        )
        # The stream
        self.events_read = counter(
            "ag_ui_events_read_total", "Entries read from the stream for clients"
        )
        self.events_dropped = counter(
            "ag_ui_events_dropped_total",
            "Events that changed nothing for clients, by why",
            ["reason"],
        )
        self.frame_bytes = counter(
            "ag_ui_frame_bytes_total", "Bytes of frames made, once for all clients"
        )
        self.replays = counter(
            "ag_ui_replays_total",
            "Streams that began with missed events, by the furthest source these came from",
            ["source"],
        )
        self.gaps = counter(
            "ag_ui_gaps_total",
            "Streams whose client had to be told that events are missing, by why",
            ["reason"],
        )
        self.stream_entries = gauge(
            "ag_ui_stream_entries", "Entries that Redis keeps of the stream"
        )
        self.group_lag = gauge(
            "ag_ui_group_lag", "Entries that the consumer group has not read yet"
        )
        self.group_pending = gauge(
            "ag_ui_group_pending", "Entries that the consumer group has read and not acknowledged"
        )
        # The agent
        self.runs_on = gauge("ag_ui_agent_runs", "Runs of the agent that are on here")
        self.runs_ended = counter(
            "ag_ui_agent_runs_ended_total",
            "Runs of the agent that ended here: finished, cancelled, or the code of RUN_ERROR",
            ["how"],
        )
        self.agent_kept_threads = gauge(
            "ag_ui_agent_kept_threads", "Conversations that PostgreSQL holds"
        )
        self.agent_kept_runs = gauge(
            "ag_ui_agent_kept_runs", "Runs of the agent that PostgreSQL holds"
        )
        self.agent_kept_bytes = gauge(
            "ag_ui_agent_kept_bytes",
            "Bytes of messages, logs of runs and their rows that PostgreSQL holds",
        )
        for kept in (self.agent_kept_threads, self.agent_kept_runs, self.agent_kept_bytes):
            kept.set(_UNKNOWN)
        # The consumer
        self.events_stored = counter("ag_ui_events_stored_total", "Events stored in PostgreSQL")
        self.dead_letters = counter(
            "ag_ui_dead_letters_total", "Entries that could not be stored as events"
        )
        self.dead_letters_open = gauge(
            "ag_ui_dead_letters_open", "Dead letters that are neither replayed nor discarded"
        )
        self.entries_lost = counter(
            "ag_ui_entries_lost_total",
            "Entries that Redis let go of before they were stored, by how",
            ["how"],
        )
        self.batch_entries = histogram(
            "ag_ui_consumer_batch_entries",
            "Entries in one batch of the consumer",
            buckets=_BATCH_ENTRIES,
        )
        self.batch_seconds = histogram(
            "ag_ui_consumer_batch_seconds",
            "Time to store one batch, until the commit",
            buckets=_BATCH_SECONDS,
        )
        # The proxy
        self.certificate_expiry = gauge(
            "ag_ui_certificate_expiry_timestamp_seconds",
            "When the certificate that nginx presents on this host expires, as Unix time",
        )
        self.certificate_expiry.set(_UNKNOWN)
        # The audit log
        self.audit_stored = counter("ag_ui_audit_stored_total", "Entries of the audit log stored")
        self.audit_dropped = counter(
            "ag_ui_audit_dropped_total", "Entries of the audit log that stand in the journal only"
        )
        self.audit_waiting = gauge("ag_ui_audit_waiting", "Entries of the audit log not stored yet")
        self.forget_stream()

    def forget_stream(self) -> None:
        """Set the gauges of the stream to NaN. They are unknown, not zero, until Redis and PostgreSQL answer."""
        for gauge in (
            self.stream_entries,
            self.group_lag,
            self.group_pending,
            self.dead_letters_open,
        ):
            gauge.set(_UNKNOWN)

    def exposition(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
