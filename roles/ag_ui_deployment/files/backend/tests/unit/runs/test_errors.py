"""Error codes and messages of failed runs."""

import pytest

from src.services.gateway.errors import (
    GatewayRefusedError,
    ModelFailedError,
    ModelRejectedError,
    UpstreamError,
)
from src.services.runs.errors import upstream_failure


def test_a_matter_of_settings_is_told_with_what_to_look_at() -> None:
    failure = upstream_failure(GatewayRefusedError("The operator must look at LITELLM_URL."))
    assert failure.code == "gateway_refused"
    assert failure.message.endswith("The operator must look at LITELLM_URL.")
    assert "conversation" not in failure.message
    assert not failure.retryable


@pytest.mark.parametrize(
    ("error", "code"),
    [(ModelRejectedError("x"), "model_rejected"), (ModelFailedError("x"), "model_failed")],
)
def test_what_a_model_says_is_not_told(error: UpstreamError, code: str) -> None:
    failure = upstream_failure(error)
    assert failure.code == code
    assert "x" not in failure.message.split()
