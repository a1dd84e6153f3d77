"""The configuration of a group member."""

from src.services.consumer.group_reader import ConsumerConfig
from tests.support.builders import settings_of


def test_configuration_comes_from_the_settings() -> None:
    values = {
        "REDIS_STREAM_NAME": "s",
        "REDIS_CONSUMER_GROUP": "g",
        "REDIS_CONSUMER_NAME": "c-1",
        "CONSUMER_BATCH_SIZE": 7,
        "CONSUMER_CLAIM_IDLE_SECONDS": 11,
        "CONSUMER_MAX_DELIVERIES": 13,
        "EVENT_MAX_BYTES": 4096,
    }
    assert ConsumerConfig.of(settings_of(**values)) == ConsumerConfig(
        stream="s",
        group="g",
        name="c-1",
        batch_size=7,
        claim_idle_ms=11_000,
        max_deliveries=13,
        max_bytes=4096,
    )
