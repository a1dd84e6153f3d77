"""Error codes and messages of failed runs."""

import pytest

from src.services.gateway.errors import (
    GatewayRefusedError,
    ModelFailedError,
    ModelRejectedError,
    UpstreamError,
)
from src.services.runs.errors import upstream_failure


def test_configuration_error_names_the_setting() -> None:
    failure = upstream_failure(GatewayRefusedError("The operator must look at LITELLM_URL."))
    assert failure.code == "gateway_refused"
    assert failure.message.endswith("The operator must look at LITELLM_URL.")
    assert "conversation" not in failure.message
    assert not failure.retryable


@pytest.mark.parametrize(
    ("error", "code"),
    [(ModelRejectedError("x"), "model_rejected"), (ModelFailedError("x"), "model_failed")],
)
def test_model_message_is_not_exposed(error: UpstreamError, code: str) -> None:
    failure = upstream_failure(error)
    assert failure.code == code
    assert "x" not in failure.message.split()
