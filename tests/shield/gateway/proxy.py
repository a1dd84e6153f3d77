"""Writes the configuration of the LiteLLM proxy and replaces this process with it."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from pathlib import Path

MODEL: Final = "shield-agent"
# Nothing listens on this port.
DEAD: Final = "http://127.0.0.1:9"

# The code of LiteLLM's entry point; the installed script names the Python of the build machine.
LITELLM: Final = "from litellm import run_server; run_server()"

# Where keys.py looks for the files that limit or withdraw keys.
FOLDER_VARIABLE: Final = "SHIELD_PROXY_FOLDER"

# Without these the proxy downloads lists of prices and models.
OFFLINE: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "true",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "WARNING",
    "DISABLE_ADMIN_UI": "True",
}

# Set for the backend; the proxy would use them too.
NOT_ITS_OWN: Final = ("DATABASE_URL", "REDIS_URL")


def _server(name: str, url: str, token: str, seconds: float, **changes: Any) -> dict[str, Any]:
    return {
        "server_id": name,
        "url": f"{url}/mcp",
        "transport": "http",
        "auth_type": "bearer_token",
        "auth_value": token,
        "allow_all_keys": True,
        "timeout": seconds,
        **changes,
    }


def _model(name: str, url: str, **changes: Any) -> dict[str, Any]:
    parameters = {
        "model": f"openai/{MODEL}",
        "api_key": "not-used",
        "api_base": f"{url}/v1",
        "max_retries": 0,
        **changes,
    }
    return {"model_name": name, "litellm_params": parameters}


def configuration(
    tools: str, fragile: str, model: str, token: str, seconds: float
) -> dict[str, Any]:
    """The MCP server `rag` and the model `shield-agent` work; each of the others has a defect."""
    return {
        "model_list": [
            _model(MODEL, model),
            _model("shield-hasty", model, timeout=1, stream_timeout=1),
            _model("shield-dead", DEAD),
        ],
        "mcp_servers": {
            "rag": _server("rag", tools, token, seconds),
            "hasty": _server("hasty", tools, token, 1),
            "fragile": _server("fragile", fragile, token, seconds),
            "dead": _server("dead", DEAD, token, 5),
            "mistrusted": _server("mistrusted", tools, "wrong", 5),
            "fenced": _server("fenced", tools, token, 5, allow_all_keys=False),
        },
        # Without this the proxy disables a model that has failed, which would affect other tests.
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "litellm_settings": {"telemetry": False},
        "general_settings": {
            "master_key": f"{os.environ['SHIELD_GATEWAY_KEY']}-master",
            "custom_auth": "tests.shield.gateway.keys.check",
            "custom_auth_run_common_checks": True,
        },
    }


def become_litellm(host: str, port: int, folder: Path, settings: dict[str, Any]) -> NoReturn:
    """Write the configuration, which holds the MCP server's token, and exec the proxy."""
    file = folder / "litellm.yaml"
    file.touch(mode=0o600)
    # JSON is valid YAML.
    file.write_text(json.dumps(settings, indent=2))
    environment = {**os.environ, **OFFLINE, FOLDER_VARIABLE: str(folder)}
    for name in NOT_ITS_OWN:
        environment.pop(name, None)
    where = ["--config", str(file), "--host", host, "--port", str(port)]
    os.execve(sys.executable, [sys.executable, "-c", LITELLM, *where], environment)  # noqa: S606
