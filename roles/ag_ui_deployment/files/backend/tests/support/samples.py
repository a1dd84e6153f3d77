"""What the metrics say, read as Prometheus reads it."""

from prometheus_client.parser import text_string_to_metric_families

from src.utils.metrics import Metrics


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    """The value of one sample; 0 where nothing was counted yet."""
    return sample_of(metrics.exposition().decode(), name, **labels)


def sample_of(exposition: str, name: str, **labels: str) -> float:
    """The same, from the text that /metrics gives."""
    for family in text_string_to_metric_families(exposition):
        for one in family.samples:
            if one.name == name and one.labels == labels:
                return one.value
    return 0.0
