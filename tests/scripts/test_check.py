"""script/check and script/test report each part and fail if one fails or skips its work."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.scripts.conftest import REPOSITORY

if TYPE_CHECKING:
    from tests.scripts.conftest import Checkout


@pytest.fixture
def prepared(checkout: Checkout) -> Checkout:
    """A checkout that is set up, with stub programs that always succeed."""
    checkout.replace_script("bootstrap", "exit 0")
    for program in ("ruff", "yamllint"):
        checkout.stub(program, "exit 0")
    return checkout


def test_all_parts_pass(prepared: Checkout) -> None:
    done = prepared.run("script/check", "ruff", "yamllint", "format")
    assert done.returncode == 0
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:4]] == ["ok"] * 3


def test_one_part_fails(prepared: Checkout) -> None:
    prepared.stub("yamllint", "echo line 7 is too long; exit 3")
    done = prepared.run("script/check", "ruff", "yamllint", "format")
    assert done.returncode == 1
    assert "line 7 is too long" in done.stdout
    assert "FAILED (3)" in done.stdout
    assert done.stdout.count("ok") == 2
    assert "failed: yamllint" in done.stderr


def test_packages_of_the_console_are_installed_before_its_parts_run(prepared: Checkout) -> None:
    prepared.replace_script("bootstrap", 'echo "bootstrap $*" >>calls')
    prepared.replace_script("console", 'echo "console $*" >>calls')
    assert prepared.run("script/check", "ruff").returncode == 0
    assert prepared.run("script/check", "console", "console-build").returncode == 0
    calls = (prepared.path / "calls").read_text().splitlines()
    assert calls[:3] == ["bootstrap tools"] * 2 + ["bootstrap console"]
    assert sorted(calls[3:]) == ["console --check", "console test"]


def test_shellcheck_sees_every_shell_script(prepared: Checkout) -> None:
    shutil.copytree(REPOSITORY / ".ci", prepared.path / ".ci")
    prepared.stub("shellcheck", 'printf "checked %s\\n" "$@"; exit 1')
    checked = re.findall(
        "^checked (.+)$", prepared.run("script/check", "shellcheck").stdout, re.MULTILINE
    )
    scripts = [
        path.relative_to(prepared.path).as_posix()
        for folder in (".ci", "script")
        for path in (prepared.path / folder).rglob("*")
        if path.is_file()
        if path.suffix == ".sh" or re.match("#!.*sh\n", path.read_text())
    ]
    assert sorted(checked) == sorted(scripts)
    assert {"script/lib.sh", "script/files/engine.sh", ".ci/run"} <= set(checked)


def test_a_part_that_fails_fails_the_run(prepared: Checkout) -> None:
    prepared.replace_script("check", "echo wrong; exit 1")
    done = prepared.run("script/test", "check")
    assert done.returncode == 1
    assert "wrong" in done.stdout
    assert "FAILED" in done.stdout


def test_each_folder_with_tests_belongs_to_a_part() -> None:
    scripts = "".join((REPOSITORY / "script" / name).read_text() for name in ("check", "test"))
    folders = {
        path.parent.relative_to(REPOSITORY / "tests").parts[0]
        for path in (REPOSITORY / "tests").rglob("test_*.py")
    }
    # Molecule runs the tests of the scenarios.
    assert [one for one in folders - {"scenarios"} if f"tests/{one}" not in scripts] == []


def test_a_run_without_integration_leaves_containers_alone(prepared: Checkout) -> None:
    """They may be those of a run in another checkout."""
    prepared.replace_script("check", "echo '===== 12 passed in 0.10s ====='")
    prepared.stub("docker", 'echo "$@" >>calls')
    assert prepared.run("script/test", "check").returncode == 0
    assert not (prepared.path / "calls").exists()


def test_the_run_passes_with_its_figures(prepared: Checkout) -> None:
    prepared.replace_script("check", "echo '===== 12 passed in 0.10s ====='")
    done = prepared.run("script/test", "check")
    assert done.returncode == 0
    assert "12 passed" in done.stdout.split("Parts:")[1]
    assert "limit 400 s   ok" in done.stdout


@pytest.mark.parametrize(
    "summary",
    [
        "===== 12 passed, 1 skipped in 0.10s =====",
        "===== 1 skipped in 0.10s =====",
        "  test-role  1.0 s  ok 3 passed, 2 deselected in 0.10s",
        "===== 12 passed, 1 xfailed in 65.10s (0:01:05) =====",
    ],
)
def test_skipped_tests_fail_the_run(prepared: Checkout, summary: str) -> None:
    prepared.replace_script("check", f"echo '{summary}'")
    done = prepared.run("script/test", "check")
    assert done.returncode == 1
    assert "Skipped tests fail the run" in done.stdout


def test_a_scenario_without_tests_fails_the_run(prepared: Checkout) -> None:
    (prepared.path / "molecule" / "empty").mkdir(parents=True)
    (prepared.path / "molecule" / "empty" / "molecule.yml").touch()
    prepared.stub("molecule", "exit 0")
    done = prepared.run("script/test", "empty")
    assert done.returncode == 1
    assert "ended without a test" in done.stdout


@pytest.fixture
def scenarios(prepared: Checkout) -> Checkout:
    """Add two Molecule scenarios that pass and print their names."""
    for name in ("default", "resilience"):
        (prepared.path / "molecule" / name).mkdir(parents=True)
        (prepared.path / "molecule" / name / "molecule.yml").touch()
    prepared.stub(
        "molecule",
        """
        mkdir -p .cache/molecule/"$3"
        echo '<testsuite errors="0" failures="0" skipped="0" tests="34">' >.cache/molecule/"$3"/verify.xml
        for name in deployment_of_a_new_host run_without_changes restart_of_an_instance; do
          echo 1.0 >.cache/molecule/"$3"/$name
        done
        echo "this is $3"
        """,
    )
    return prepared


@pytest.mark.parametrize("parts", [["resilience"], ["default", "resilience"]])
def test_the_output_of_each_part_is_printed_once(scenarios: Checkout, parts: list[str]) -> None:
    done = scenarios.run("script/test", *parts)
    assert done.returncode == 0, done.stdout + done.stderr
    for part in parts:
        assert done.stdout.count(f"this is {part}") == 1


def test_a_scenario_is_run_as_its_users_run_it(scenarios: Checkout) -> None:
    """Runs the command that users run.

    Its output may have colours, and the report counts the tests.
    """
    scenarios.stub(
        "molecule",
        """
        echo "$* NO_COLOR=${NO_COLOR-} ANSIBLE_NOCOLOR=${ANSIBLE_NOCOLOR-}" >>calls
        mkdir -p .cache/molecule/resilience
        echo '<testsuite errors="0" failures="0" skipped="'"${SKIPPED:-0}"'" tests="34">' >.cache/molecule/resilience/verify.xml
        printf '\\033[32m34 passed\\033[0m in 1.0s\\n'
        """,
    )
    done = scenarios.run("script/test", "resilience")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"resilience .* ok +34 tests$", done.stdout, re.MULTILINE)
    calls = (scenarios.path / "calls").read_text().splitlines()
    assert calls == ["test --scenario-name resilience NO_COLOR= ANSIBLE_NOCOLOR="]
    scenarios.stub(
        "molecule",
        "mkdir -p .cache/molecule/resilience; echo 'skipped=\"2\"' >.cache/molecule/resilience/verify.xml",
    )
    done = scenarios.run("script/test", "resilience")
    assert done.returncode == 1
    assert "skipped tests, which fails the run" in done.stdout


def test_parts_run_in_parallel(scenarios: Checkout) -> None:
    """Each scenario waits for the other to begin."""
    scenarios.stub(
        "molecule",
        """
        touch "begun-$3"
        for attempt in $(seq 100); do
          if [ -e begun-default ] && [ -e begun-resilience ]; then
            mkdir -p .cache/molecule/"$3"
            echo '<testsuite skipped="0" tests="34">' >.cache/molecule/"$3"/verify.xml
            exit 0
          fi
          sleep 0.1
        done
        exit 1
        """,
    )
    done = scenarios.run("script/test", "default", "resilience")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_part_that_fails_beside_another_fails_the_run(scenarios: Checkout) -> None:
    scenarios.stub("molecule", 'echo "this is $3"; [ "$3" = default ]')
    done = scenarios.run("script/test", "default", "resilience")
    assert done.returncode == 1
    assert "this is resilience" in done.stdout
    assert re.search(r"resilience .* FAILED", done.stdout)


def test_a_part_that_does_not_end_is_ended_at_the_limit(scenarios: Checkout) -> None:
    """The end of its output is printed, because the machine of a CI run may be gone afterwards."""
    scenarios.stub("molecule", 'echo "this is $3"; exec sleep 600')
    done = scenarios.run("env", "AG_UI_TEST_LIMIT=3", "script/test", "default", "resilience")
    assert done.returncode == 1
    for part in ("default", "resilience"):
        assert f"{part} has not ended at the limit of the run, 3 s" in done.stdout
        assert f"this is {part}" in done.stdout
        assert re.search(rf"{part} .* FAILED", done.stdout)


def test_failures_are_repeated_at_the_end(scenarios: Checkout) -> None:
    scenarios.stub(
        "molecule",
        r"""
        printf '  \033[2m│\033[0m E       assert 1 == 2\n'
        printf '  │ FAILED\n  │   test_streams.py::test_a_stream\n'
        printf 'much more %s\n' $(seq 100)
        exit 1
        """,
    )
    done = scenarios.run("script/test", "resilience")
    repeated = done.stdout[done.stdout.index("Failures of resilience:") :]
    assert repeated.index("assert 1 == 2") < repeated.index("test_streams.py::test_a_stream")
    assert repeated.index("test_streams.py") < repeated.index("Parts:")
    assert "much more 99" not in repeated


def test_the_integration_tests_get_the_addresses_of_their_servers(prepared: Checkout) -> None:
    """Removes the container and stops the gateway at the end."""
    prepared.stub(
        "docker",
        'echo "$@" >>calls; case $1 in port) echo "127.0.0.1:1${3%/tcp}" ;; exec) echo PONG ;; '
        "inspect) echo 192.0.2.2 ;; esac",
    )
    gateway = prepared.path / ".cache" / "gateway" / "bin"
    gateway.mkdir(parents=True)
    prepared.stub(
        "gateway",
        'echo $$ >pid; echo "export GATEWAY_URL=of-$SHIELD_REDIS_URL" >"$5"; exec sleep 60',
    )
    (gateway / "python").symlink_to(prepared.programs / "gateway")
    prepared.stub("pytest", "env; echo '===== 7 passed in 0.10s ====='")
    done = prepared.run("script/test", "integration")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "TEST_DATABASE_URL=postgresql://test:test@127.0.0.1:15432/test" in lines
    assert "TEST_REDIS_PAIR=redis://127.0.0.1:16380 redis://127.0.0.1:16381" in lines
    assert "TEST_SERVICES_HOST=192.0.2.2" in lines
    assert "TEST_REDIS_TLS_URL=rediss://localhost:16390/0" in lines
    assert "GATEWAY_URL=of-redis://127.0.0.1:16379/0" in lines
    calls = (prepared.path / "calls").read_text().splitlines()
    [start] = [call for call in calls if call.startswith("run ")]
    assert start.count("--publish=127.0.0.1::") == 10
    # Started and removed by the same name, which other checkouts do not use.
    [name] = re.findall(r"--name (ag-ui-test-services-\d+)", start)
    assert calls[-1] == f"rm --force --volumes {name}"
    with pytest.raises(ProcessLookupError):
        os.kill(int((prepared.path / "pid").read_text()), 0)


def test_the_servers_are_removed_if_their_start_fails(prepared: Checkout) -> None:
    prepared.stub("docker", 'echo "$@" >>calls; test "$1" != run')
    assert prepared.run("script/test", "integration").returncode == 1
    calls = (prepared.path / "calls").read_text().splitlines()
    [start] = [number for number, call in enumerate(calls) if call.startswith("run ")]
    assert calls[-1].startswith("rm --force --volumes ag-ui-test-services-")
    assert len(calls) - 1 > start
