"""Reads metrics from the Prometheus exposition format."""

from prometheus_client.parser import text_string_to_metric_families

from src.utils.metrics import Metrics


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    """Return the value of a sample; 0 if it does not exist."""
    return sample_of(metrics.exposition().decode(), name, **labels)


def sample_of(exposition: str, name: str, **labels: str) -> float:
    """Like sample(), from the text of /metrics."""
    for family in text_string_to_metric_families(exposition):
        for one in family.samples:
            if one.name == name and one.labels == labels:
                return one.value
    return 0.0
