"""The configuration that the role renders for the backend."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.role_templates import inventory, render
from tests.support.site_playbook import REQUIRED_VARIABLES

if TYPE_CHECKING:
    from pathlib import Path

# Groups of hosts that share their proxies, with each host's inventory variables.
SITES: dict[str, dict[str, dict[str, Any]]] = {
    "alone": {"alone-1": {}},
    "open": {"open-1": {"ag_ui_bind_address": "192.0.2.1"}},
    "several": {
        "several-1": {"ag_ui_bind_address": "192.0.2.1"},
        "several-2": {"ag_ui_bind_address": "192.0.2.2", "ag_ui_backend_ports": [8002, 8004]},
        "several-3": {},
    },
    "chatty": {"chatty-1": {"ag_ui_agent_model": "provider/model-1.5:latest"}},
    "mailing": {
        "mailing-1": {"ag_ui_smtp_url": "smtps://me:it's@mail.example", "ag_ui_log_level": "DEBUG"}
    },
    "balanced": {"balanced-1": {"ag_ui_trusted_proxies": ["192.0.2.0/24", "2001:db8::5"]}},
}


def rendered(folder: Path, template: str) -> Path:
    """Render a template of the role on every host; return the folder."""
    return render(folder, template, inventory(SITES, REQUIRED_VARIABLES))


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rendered(tmp_path_factory.mktemp("environments"), "backend.env.j2")


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rendered(tmp_path_factory.mktemp("proxies"), "nginx-site.conf.j2")


@pytest.mark.parametrize(
    ("host", "proxies"),
    [
        ("alone-1", "127.0.0.1"),
        ("open-1", "127.0.0.1,192.0.2.1"),
        ("several-1", "127.0.0.1,192.0.2.1,192.0.2.2"),
        ("several-3", "127.0.0.1,192.0.2.1,192.0.2.2"),
        ("balanced-1", "127.0.0.1,192.0.2.0/24,2001:db8::5"),
    ],
)
def test_proxies_of_the_group_are_trusted(environments: Path, host: str, proxies: str) -> None:
    lines = (environments / host).read_text().splitlines()
    assert f"TRUSTED_PROXIES='{proxies}'" in lines


@pytest.mark.parametrize(
    ("host", "model"), [("alone-1", "shield-agent"), ("chatty-1", "provider/model-1.5:latest")]
)
def test_agent_model_comes_from_the_inventory(environments: Path, host: str, model: str) -> None:
    assert f"AGENT_MODEL='{model}'" in (environments / host).read_text().splitlines()


@pytest.mark.parametrize(
    ("host", "level", "url"),
    [
        ("alone-1", "INFO", []),
        ("mailing-1", "DEBUG", [r"SMTP_URL='smtps://me:it\'s@mail.example'"]),
    ],
)
def test_variable_named_after_a_setting_sets_it_unless_empty(
    environments: Path, host: str, level: str, url: list[str]
) -> None:
    lines = (environments / host).read_text().splitlines()
    assert f"LOG_LEVEL='{level}'" in lines
    assert [line for line in lines if line.startswith("SMTP_URL=")] == url


def test_settings_of_the_role_are_reserved(environments: Path, tmp_path: Path) -> None:
    template = tmp_path / "reserved.j2"
    template.write_text("{{ __ag_ui_reserved_settings | to_json }}")
    folder = tmp_path / "rendered"
    folder.mkdir()
    render(folder, str(template), inventory({"alone": {"alone-1": {}}}, REQUIRED_VARIABLES))
    reserved = json.loads((folder / "alone-1").read_text())
    lines = (environments / "mailing-1").read_text().splitlines()
    written = {line.partition("=")[0] for line in lines if not line.startswith("#")}
    of_the_unit = {"PORT", "REDIS_CONSUMER_NAME"}
    previous = {f"{name}_KEYS" for name in ("AUDIT_PREVIOUS", "MFA_PREVIOUS", "PROXY_PREVIOUS")}
    previous |= {"DATABASE_PREVIOUS_PASSWORD", "JWT_PREVIOUS_SECRETS", "METRICS_PREVIOUS_TOKENS"}
    only_if_given = {"DATABASE_CA", "LITELLM_API_KEY", "REDIS_CA"} | previous
    only_if_given |= {"REDIS_SENTINEL_PASSWORD", "REDIS_SENTINEL_USER"}
    only_if_given |= {"UPLOADS_DIRECTORY", "UPLOADS_TOOL_PATH", "UPLOADS_S3_TARGET"}
    only_if_given |= {"UPLOADS_S3_ACCESS_KEY_ID", "UPLOADS_S3_SECRET_ACCESS_KEY"}
    only_if_given |= {"UPLOADS_S3_CA", "UPLOADS_S3_ENDPOINT"}
    assert sorted(reserved) == sorted(written | of_the_unit | only_if_given)


def test_former_secrets_are_accepted_while_they_are_replaced(tmp_path: Path) -> None:
    facts = {
        "__ag_ui_generated": {
            "values": {"proxy_key": "p" * 48, "metrics_token": "m" * 48},
            "accepted": {"proxy_key": ["q" * 48], "mfa_key": ["n" * 48, "o" * 48]},
        },
        "__ag_ui_preflight": {"nginx": "1.22.1", "ipv6": True, "previous_logins": ["shield"]},
    }
    given = {
        "ag_ui_mfa_previous_keys": "k" * 48,
        "ag_ui_jwt_previous_secrets": "j" * 48,
        "ag_ui_database_previous_password": "former's",
    }
    hosts = inventory({"alone": {"alone-1": given}}, REQUIRED_VARIABLES)
    folder = render(tmp_path, "backend.env.j2", hosts, json.dumps(facts))
    lines = (folder / "alone-1").read_text().splitlines()
    assert [line for line in lines if "_PREVIOUS_" in line] == [
        f"JWT_PREVIOUS_SECRETS='{'j' * 48}'",
        f"MFA_PREVIOUS_KEYS='{'n' * 48},{'o' * 48},{'k' * 48}'",
        f"PROXY_PREVIOUS_KEYS='{'q' * 48}'",
        r"DATABASE_PREVIOUS_PASSWORD='former\'s'",
    ]


@pytest.mark.parametrize(
    ("host", "trusted"),
    [("alone-1", []), ("several-1", []), ("balanced-1", ["192.0.2.0/24", "2001:db8::5"])],
)
def test_nginx_trusts_the_configured_proxies(proxies: Path, host: str, trusted: list[str]) -> None:
    lines = [line.strip() for line in (proxies / host).read_text().splitlines()]
    real_ip = ["real_ip_header X-Forwarded-For;", "real_ip_recursive on;"]
    expected = [f"set_real_ip_from {one};" for one in trusted] + (real_ip if trusted else [])
    assert [line for line in lines if "real_ip" in line] == expected
    # The backend gets the client address that nginx determined.
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in lines
