"""The examples of docs/api.md, executed as written."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from src.models.permissions import Role
from tests.support.agent import run_input, whole_run
from tests.support.environment import Environment
from tests.support.examples import TOP, example
from tests.support.gateway import Gateway
from tests.support.official_client import NODE
from tests.support.server import PASSWORD, Backend, running

CLIENT = TOP / "tests" / "agui_client"
EMAIL = "reader@shield.test"
PATIENCE = 60.0


@pytest.fixture
async def backend(environment: Environment, gateway: Gateway) -> AsyncIterator[Backend]:
    # Prevents the DNS lookup of the examples' host name, which may time out and is not under test.
    settings = environment.settings(**gateway.settings(), TOOLS_ALLOW_PRIVATE_ADDRESSES=True)
    async with running(settings) as instance:
        await instance.add_user(EMAIL, Role.CONTRIBUTOR)
        yield instance


async def run(backend: Backend, *command: str, text: str, cwd: Path = TOP) -> str:
    """Run a program with an example on its standard input; return its output."""
    environment: Mapping[str, str] = {
        "PATH": os.environ["PATH"],
        "AG_UI_URL": str(backend.http.base_url).rstrip("/"),
        "AG_UI_EMAIL": EMAIL,
        "AG_UI_PASSWORD": PASSWORD,
    }
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        output, errors = await process.communicate(text.encode())
    assert process.returncode == 0, output.decode() + errors.decode()
    return output.decode()


def on_this_stream(text: str, environment: Environment) -> str:
    """Return the example with a URL that makes the simulator publish to the test's stream."""
    assert "https://example.org/" in text
    return text.replace("https://example.org/", f"https://example.org/?stream={environment.stream}")


async def test_curl_follows_a_crawl(backend: Backend, environment: Environment) -> None:
    output = await run(backend, "bash", text=on_this_stream(example("sh"), environment))
    assert output.count("event: RUN_STARTED\n") == 1
    assert output.count("event: RUN_FINISHED\n") == 1
    assert '"workspace":"default"' in output.splitlines()[-1]


async def test_python_follows_a_crawl(backend: Backend, environment: Environment) -> None:
    output = await run(
        backend, sys.executable, "-", text=on_this_stream(example("python"), environment)
    )
    lines = output.splitlines()
    assert lines[0] == "RUN_STARTED"
    assert lines[-2:] == ["RUN_FINISHED", "ended"]


async def test_examples_work_repeatedly_in_an_interactive_shell(
    backend: Backend, environment: Environment
) -> None:
    text = on_this_stream(example("sh"), environment)
    output = await run(backend, "bash", text=f"{text}\n{text}")
    assert output.count("event: RUN_FINISHED\n") == 2
    text = on_this_stream(example("python"), environment)
    output = await run(backend, sys.executable, "-i", text=f"{text}\n{text}")
    assert output.count("RUN_FINISHED\nended\n") == 2


async def test_javascript_runs_the_agent(backend: Backend) -> None:
    command = (str(NODE), "--input-type=module", "-")
    output = await run(backend, *command, text=example("js"), cwd=CLIENT)
    assert "What do you know about sharks?" in output


async def test_curl_runs_the_agent(backend: Backend) -> None:
    # The beginning of the first example.
    login, _, _ = example("sh").partition("job=")
    output = await run(backend, "bash", text=(login + example("sh", "Agent")) * 2)
    assert output.count("event: RUN_FINISHED\n") == 2
    assert "event: TEXT_MESSAGE_CONTENT\n" in output


async def test_javascript_joins_a_conversation(backend: Backend) -> None:
    user = await backend.add_user("bob@shield.test", Role.CONTRIBUTOR)
    token = backend.token_of(user)
    body = run_input("What do you know about sharks?")
    await whole_run(backend.http, token, body)
    joining = f"""
        const agent = new ShieldAgent({{
          url: `${{process.env.AG_UI_URL}}/agent`,
          threadId: "{body["threadId"]}",
          headers: {{ Authorization: "Bearer {token}" }},
        }});
        await agent.connectAgent();
        console.log(agent.messages.map((message) => message.role).join());
    """
    command = (str(NODE), "--input-type=module", "-")
    output = await run(backend, *command, text=example("js", "Agent") + joining, cwd=CLIENT)
    assert output == "user,assistant\n"
