"""`python -m tests.shield.gateway all`: the whole gateway; each part also has its own command."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.shield.envelope import STREAM
from tests.shield.gateway import proxy, supervisor

if TYPE_CHECKING:
    from starlette.applications import Starlette

REDIS_VARIABLE = "SHIELD_REDIS_URL"
KEY_VARIABLE = "SHIELD_GATEWAY_KEY"
TOKEN_VARIABLE = "SHIELD_MCP_TOKEN"
SPEED = 20.0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m tests.shield.gateway",
        description=__doc__,
        epilog=f"From the environment: {REDIS_VARIABLE} (where jobs publish), {KEY_VARIABLE} (the key of "
        f"the gateway), {TOKEN_VARIABLE} (what the MCP server asks of the gateway).",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    common.add_argument("--port", type=int, default=0, help="default: any that is free")
    jobs = argparse.ArgumentParser(add_help=False)
    jobs.add_argument("--stream", default=STREAM, help="default: %(default)s")
    jobs.add_argument("--speed", type=float, default=SPEED, help="of jobs; default: %(default)s")
    fallback = "http://127.0.0.1:9"
    commands.add_parser("orchestrator", parents=[common, jobs], help="accepts and runs the jobs")
    tools = commands.add_parser("tools", parents=[common], help="the MCP server")
    tools.add_argument("--orchestrator", required=True, metavar="URL")
    commands.add_parser("model", parents=[common], help="the model behind the proxy")
    litellm = commands.add_parser("proxy", parents=[common], help="LiteLLM")
    litellm.add_argument("--tools", required=True, metavar="URL")
    litellm.add_argument(
        "--fragile", default=fallback, metavar="URL", help="of a second MCP server"
    )
    litellm.add_argument("--model", required=True, metavar="URL")
    litellm.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="of a call to a tool; default: %(default)s",
    )
    litellm.add_argument("--folder", type=Path, required=True, help="for its configuration")
    whole = commands.add_parser("all", parents=[common, jobs], help="all of them on this machine")
    for name in ("tools", "orchestrator", "model", "fragile"):
        whole.add_argument(f"--{name}-port", type=int, default=0)
    whole.add_argument(
        "--env-file", metavar="FILE", help="where to write the addresses, once all answer"
    )
    return top


def serve(app: Starlette, options: argparse.Namespace) -> None:
    import uvicorn  # noqa: PLC0415 - the supervisor does not need it

    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        timeout_graceful_shutdown=2,
        ws="none",
    )


def run_orchestrator(options: argparse.Namespace) -> None:
    from tests.shield.gateway.job_runner import JobRunner  # noqa: PLC0415
    from tests.shield.gateway.orchestrator import Orchestrator  # noqa: PLC0415

    runner = JobRunner(os.environ[REDIS_VARIABLE], options.stream, options.speed)
    serve(Orchestrator(runner).app(), options)


def run_tools(options: argparse.Namespace) -> None:
    from tests.shield.gateway.tools import mcp_app  # noqa: PLC0415

    serve(mcp_app(options.orchestrator, os.environ[TOKEN_VARIABLE]), options)


def run_model(options: argparse.Namespace) -> None:
    from tests.shield.gateway.model import Model  # noqa: PLC0415

    serve(Model().app(), options)


def run_proxy(options: argparse.Namespace) -> None:
    settings = proxy.configuration(
        options.tools,
        options.fragile,
        options.model,
        os.environ[TOKEN_VARIABLE],
        options.timeout,
    )
    proxy.become_litellm(options.host, options.port, options.folder, settings)


def run_all(options: argparse.Namespace) -> None:
    """Start all parts and keep them running."""

    def port_and_url(port: int) -> tuple[str, str]:
        number = str(port or supervisor.free_port())
        return number, f"http://{options.host}:{number}"

    proxy_port, gateway = port_and_url(options.port)
    tools_port, tools = port_and_url(options.tools_port)
    fragile_port, fragile = port_and_url(options.fragile_port)
    orchestrator_port, orchestrator = port_and_url(options.orchestrator_port)
    model_port, model = port_and_url(options.model_port)
    where = ["--host", options.host, "--port"]
    jobs = ["--stream", options.stream, "--speed", str(options.speed)]
    variables = {
        "TEST_GATEWAY_URL": gateway,
        "TEST_GATEWAY_KEY": os.environ[KEY_VARIABLE],
        "TEST_TOOLS_URL": tools,
        "TEST_FRAGILE_TOOLS_URL": fragile,
        "TEST_ORCHESTRATOR_URL": orchestrator,
        "TEST_MODEL_URL": model,
    }
    with tempfile.TemporaryDirectory(prefix="shield-gateway-") as folder:
        upstreams = ["--tools", tools, "--fragile", fragile, "--model", model, "--folder", folder]
        parts = [
            supervisor.Part(
                "proxy", f"{gateway}/health/liveliness", [*where, proxy_port, *upstreams]
            ),
            supervisor.Part("orchestrator", orchestrator, [*where, orchestrator_port, *jobs]),
            supervisor.Part("tools", tools, [*where, tools_port, "--orchestrator", orchestrator]),
            supervisor.Part(
                "tools that die", fragile, [*where, fragile_port, "--orchestrator", orchestrator]
            ),
            supervisor.Part("model", model, [*where, model_port]),
        ]
        supervisor.supervise(parts, variables, options.env_file)


COMMANDS = {
    "orchestrator": run_orchestrator,
    "tools": run_tools,
    "model": run_model,
    "proxy": run_proxy,
    "all": run_all,
}


def main() -> None:
    options = parser().parse_args()
    COMMANDS[options.command](options)


if __name__ == "__main__":
    main()
