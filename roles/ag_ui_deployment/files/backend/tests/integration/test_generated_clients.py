"""Third-party clients generated from the OpenAPI document compile and work with the backend."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import JOB, shield_event
from tests.support.environment import Environment
from tests.support.official_client import NODE
from tests.support.server import PASSWORD, Backend
from tests.support.waiting import until

ALICE = "alice@shield.test"
CLIENT = Path(__file__).parents[6] / "tests" / "api_client"
PROGRAMS = Path(sys.executable).parent
# Strict for our program only; the generator's modules do not pass.
CHECK_TYPES = ("--strict", "--follow-imports", "silent")


async def run(folder: Path, *command: str | Path, **environment: str) -> str:
    """Run a program that must succeed; return its output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaints = await process.communicate()
    assert process.returncode == 0, (output + complaints).decode()
    return output.decode()


@pytest.fixture
async def account(backend: Backend, environment: Environment) -> dict[str, str]:
    """Return a program's environment: the backend's URL and an account with a running job."""
    alice = await backend.add_user(ALICE)
    event = shield_event("job:progress", {"percent": 40}, user=str(alice.id))
    await environment.publish(event)
    await until(environment.settled)
    return {
        "AG_UI_URL": str(backend.http.base_url).rstrip("/"),
        "AG_UI_EMAIL": ALICE,
        "AG_UI_PASSWORD": PASSWORD,
    }


@pytest.fixture
async def document(backend: Backend, tmp_path: Path) -> Path:
    path = tmp_path / "openapi.json"
    path.write_bytes((await backend.http.get("/openapi.json")).content)
    return path


def check(output: str) -> None:
    result: dict[str, Any] = json.loads(output)
    refused = "urn:shield-ag-ui:problem:wrong-credentials"
    assert result == {"refused": refused, "job": JOB, "percent": 40}


async def test_typescript_client(account: dict[str, str], document: Path, tmp_path: Path) -> None:
    for name in ("use.ts", "tsconfig.json", "package.json"):
        shutil.copy(CLIENT / name, tmp_path)
    packages = CLIENT / "node_modules"
    (tmp_path / "node_modules").symlink_to(packages)
    generator, compiler = (
        packages / "openapi-typescript/bin/cli.js",
        packages / "typescript/bin/tsc",
    )
    options = ("--default-non-nullable", "false", "--output", "schema.d.ts")
    await run(tmp_path, NODE, generator, document, *options)
    await run(tmp_path, NODE, compiler, "--project", tmp_path)
    check(await run(tmp_path, NODE, tmp_path / "use.js", **account))


async def test_python_client(account: dict[str, str], document: Path, tmp_path: Path) -> None:
    package, program = tmp_path / "shield_api", tmp_path / "use.py"
    shutil.copy(CLIENT / "use.py", program)
    generator = PROGRAMS / "openapi-python-client"
    options = ("--meta", "none", "--output-path", package, "--fail-on-warning")
    path = f"{PROGRAMS}:{os.environ['PATH']}"
    await run(tmp_path, generator, "generate", "--path", document, *options, PATH=path)
    await run(tmp_path, sys.executable, "-m", "compileall", "-q", package)
    await run(tmp_path, sys.executable, "-m", "mypy", *CHECK_TYPES, program)
    check(await run(tmp_path, sys.executable, program, **account))
