"""An invalid variable stops the play before any change; the message names it and the remedy."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.playbook import run_playbook
from tests.support.site_playbook import (
    DATASTORE_VARIABLES,
    REQUIRED_VARIABLES,
    inventory,
    play,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.playbook import Run

# The first task after all checks.
FIRST_CHANGE = "Packages | "

SHORT = "too-short"
INVALID_NETWORKS = ["10.0.0.1/8", "192.0.2.256", "192.0.2.0/33", "load-balancer", ""]
INVALID_ORIGINS = [
    "*",
    "a.example",
    "https://a.example/",
    "https://a.example/app",
    "https://u@a.example",
]


def quoted(values: list[str]) -> str:
    return ", ".join(f'"{value}"' for value in values)


def assert_refused(done: Run, *words: str) -> None:
    """Assert that a run failed with these words and changed nothing."""
    assert done.code != 0, done.output
    assert [word for word in words if word not in done.message] == [], done.output
    assert sum(done.changes.values()) == 0
    assert [task for task in done.tasks if FIRST_CHANGE in task] == []


@pytest.fixture(scope="module")
def invalid_values(tmp_path_factory: pytest.TempPathFactory) -> Run:
    wrong: dict[str, Any] = {
        "ag_ui_jwt_secret": SHORT,
        "ag_ui_admin_password": "eleven-long",
        "ag_ui_database_password": "",
        "ag_ui_database_owner": "shield_owner",
        "ag_ui_redis_password": "with\na line",
        "ag_ui_admin_email": "",
        "ag_ui_litellm_url": "hx-litellm-server:4000",
        "ag_ui_agent_model": "",
        "ag_ui_server_name": "not a name",
        "ag_ui_memory_limit": "much",
        "ag_ui_trusted_proxies": ["192.0.2.1", "10.0.0.0/8", "2001:db8::/32", *INVALID_NETWORKS],
        "ag_ui_metrics_allowed_addresses": ["192.0.2.1", "2001:db8::/32", *INVALID_NETWORKS],
        "ag_ui_cors_origins": ["https://a.example", "http://[::1]:3001", *INVALID_ORIGINS],
        "ag_ui_acme_email": "operator",
        "ag_ui_acme_directory": "http://acme.example/directory",
        "ag_ui_tls_mode": "acme",
        "ag_ui_acme_ca": "/nonexistent/ca.pem",
        "ag_ui_uploads_directory": "/srv",
        "ag_ui_uploads_tool_path": "/mnt/../etc",
        "ag_ui_uploads_group": "Tools server",
        "ag_ui_uploads_s3_target": "s3://documents",
        "ag_ui_uploads_s3_endpoint": "minio:9000",
        "ag_ui_uploads_s3_region": "eu central",
        "ag_ui_uploads_s3_access_key_id": "",
        "ag_ui_uploads_s3_ca": "/nonexistent/s3.pem",
        "ag_ui_upload_max_bytes": 0,
        "ag_ui_frontend_source": "https://hx-web-server:3000/app",
        "ag_ui_frontend_content_security_policy": "default-src 'self' \"x\"",
        "ag_ui_uid": 0,
        "ag_ui_worker_connections": 5,
        "ag_ui_base_image_archive": "/nonexistent/base.tar",
        "ag_ui_image_archive_sha256": "abc",
        "ag_ui_build_no_proxy": "localhost, registry",
    }
    return play(tmp_path_factory.mktemp("forms"), REQUIRED_VARIABLES | wrong)


@pytest.mark.parametrize(
    "words",
    [
        "ag_ui_jwt_secret does not fit, with its 9 characters: it must have at least 32",
        "ag_ui_admin_password does not fit, with its 11 characters: it must have at least 12",
        "ag_ui_database_password is missing",
        "ag_ui_database_owner_password is missing",
        "ag_ui_redis_password does not fit",
        "ag_ui_admin_email is missing: it must be the e-mail address",
        "ag_ui_litellm_url is",
        "ag_ui_agent_model is missing: it must be the name of a model at the gateway",
        "ag_ui_server_name is",
        "ag_ui_memory_limit is",
        f"ag_ui_trusted_proxies has {quoted(INVALID_NETWORKS)}: it must be a list of IP addresses, or networks",
        f"ag_ui_metrics_allowed_addresses has {quoted(INVALID_NETWORKS)}: it must be a list of IP addresses, or networks",
        f"ag_ui_cors_origins has {quoted(INVALID_ORIGINS)}: it must be a list of origins, https://host or",
        "ag_ui_acme_email is",
        'ag_ui_acme_directory is "http://acme.example/directory": it must be an address that begins with https://',
        "ag_ui_acme_ca: there is no file /nonexistent/ca.pem on the controller",
        'ag_ui_uploads_directory is "/srv": it must be an absolute path of at least two levels',
        'ag_ui_uploads_tool_path is "/mnt/../etc": it must be an absolute path without spaces or empty',
        'ag_ui_uploads_group is "Tools server": it must be the name of a group or empty',
        "ag_ui_upload_max_bytes is 0: it must lie between 1 and 5368709120",
        'ag_ui_uploads_s3_target is "s3://documents": it must be s3://bucket or s3://bucket/prefix, or empty, and empty while',
        'ag_ui_uploads_s3_endpoint is "minio:9000": it must be an address that begins with http:// or https://, or empty',
        'ag_ui_uploads_s3_region is "eu central": it must be the name of a region',
        "ag_ui_uploads_s3_access_key_id is missing: it must be the id of an access key",
        "ag_ui_uploads_s3_secret_access_key is missing: it must have at least 8",
        "ag_ui_uploads_s3_ca: there is no file /nonexistent/s3.pem on the controller",
        'ag_ui_frontend_source is "https://hx-web-server:3000/app": it must be the path of a directory or of an archive',
        "ag_ui_frontend_content_security_policy is",
        "ag_ui_uid is 0: it must lie between 1 and",
        "ag_ui_worker_connections is 5: it must lie between 512 and",
        "ag_ui_base_image_archive: there is no file /nonexistent/base.tar on the controller",
        'ag_ui_image_archive_sha256 is "abc": it must be the SHA-256 of the archive as 64 hexadecimal digits',
        'ag_ui_build_no_proxy is "localhost, registry": it must be host names, addresses or networks',
        "vault.yml, for example to the output of: openssl rand -base64 48",
    ],
)
def test_every_invalid_value_is_named_in_one_run(invalid_values: Run, words: str) -> None:
    assert_refused(invalid_values, words)


def test_no_secret_is_printed(invalid_values: Run) -> None:
    assert SHORT not in invalid_values.output
    assert "eleven-long" not in invalid_values.output


def test_wrong_types_and_choices_are_named(tmp_path: Path) -> None:
    wrong = {
        "ag_ui_backend_ports": ["first"],
        "ag_ui_redis_port": "many",
        "ag_ui_tls_mode": "none",
        "ag_ui_environment": [1],
    }
    done = play(tmp_path, REQUIRED_VARIABLES | wrong)
    assert_refused(
        done,
        "ag_ui_backend_ports (list): One instance of the backend",
        "ag_ui_redis_port (int): TCP port of Redis",
        "ag_ui_tls_mode (str, one of self_signed, provided, acme)",
        "ag_ui_environment (dict)",
        "Set it in group_vars/ag_ui/vars.yml",
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"ag_ui_backend_ports": [8002, 8002]},
        {"ag_ui_backend_ports": [8002, 8443], "ag_ui_https_port": 8443},
        {"ag_ui_backend_ports": []},
        {"ag_ui_backend_ports": [80]},
    ],
    ids=["twice", "the proxy's own", "none", "privileged"],
)
def test_invalid_ports_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    assert_refused(
        play(tmp_path, REQUIRED_VARIABLES | wrong),
        "ag_ui_backend_ports",
        "must all differ",
        "Choose",
    )


def test_missing_conditions_of_acme_are_named(tmp_path: Path) -> None:
    wrong = {
        "ag_ui_tls_mode": "acme",
        "ag_ui_http_port": 8080,
        "ag_ui_server_aliases": ["192.0.2.1", "www.ag-ui.example"],
    }
    assert_refused(
        play(tmp_path, REQUIRED_VARIABLES | wrong),
        "Nothing was changed. ag_ui_tls_mode is acme",
        "ag_ui_acme_terms_agreed must be true",
        "ag_ui_http_port is 8080: it must be 80",
        "must be host names, not addresses: 192.0.2.1.",
    )


def test_settings_of_the_role_cannot_be_overridden_in_the_environment(tmp_path: Path) -> None:
    further = {"AGENT_MODEL": "a-model", "PORT": "9000", "TRUSTED_PROXIES": "*", "lower": "x"}
    done = play(
        tmp_path, REQUIRED_VARIABLES | {"ag_ui_environment": further | {"SSE_RETRY_MS": 1000}}
    )
    assert_refused(done, "ag_ui_environment must not set AGENT_MODEL, PORT, TRUSTED_PROXIES, lower")


def test_unknown_setting_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    further = {"SSE_RETRY_MSEC": 1000, "AGENT_ROUNDS_MAX": 5, "REPLAYS_MAX": 4}
    assert_refused(
        play(tmp_path, REQUIRED_VARIABLES | {"ag_ui_environment": further}),
        "ag_ui_environment has names that are no settings of the backend",
        "SSE_RETRY_MSEC (did you mean SSE_RETRY_MS?)",
        "AGENT_ROUNDS_MAX (did you mean AGENT_MAX_ROUNDS?)",
    )


def test_string_values_are_converted(tmp_path: Path) -> None:
    """Values as `-e name=value` passes them."""
    strings = {
        "ag_ui_backend_ports": "8002,8003",
        "ag_ui_http_port": "0",
        "ag_ui_request_rate": "50",
        "ag_ui_uninstall": "no",
    }
    done = play(tmp_path, REQUIRED_VARIABLES | strings)
    assert_refused(done, "Redis at 127.0.0.1:1 cannot be reached")
    assert_refused(
        play(tmp_path, REQUIRED_VARIABLES | strings | {"ag_ui_backend_ports": "8002,8002"}),
        "must all differ",
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ag_ui_image_source": "archive"}, "ag_ui_image_archive, the path of a saved image"),
        ({"ag_ui_image_source": "registry"}, "ag_ui_image, the name of the image"),
        ({"ag_ui_tls_mode": "provided"}, "needs ag_ui_tls_certificate and ag_ui_tls_key"),
        ({"ag_ui_redis_tls": True}, "need ag_ui_datastores_ca, the path"),
        ({"ag_ui_database_sslmode": "verify-full"}, "need ag_ui_datastores_ca, the path"),
        ({"ag_ui_redis_user": "shield"}, "and ag_ui_redis_password is empty"),
        ({"ag_ui_redis_sentinel_user": "a"}, "and ag_ui_redis_sentinel_password is empty"),
    ],
)
def test_variable_required_by_a_choice_is_named(
    tmp_path: Path, wrong: dict[str, Any], words: str
) -> None:
    assert_refused(play(tmp_path, REQUIRED_VARIABLES | wrong), words)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("dist", "dist has no index.html with content at its top"),
        ("missing", "there is no directory or archive"),
        ("hx-web-server:3000", "an address begins with http:// or https://"),
    ],
)
def test_unusable_frontend_is_refused(tmp_path: Path, source: str, words: str) -> None:
    (tmp_path / "dist").mkdir()
    wrong = {"ag_ui_frontend_source": str(tmp_path / source)}
    done = play(tmp_path, REQUIRED_VARIABLES | wrong)
    assert_refused(done, "Nothing was changed. ag_ui_frontend_source: ", words)


def test_damaged_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "image.tar.gz"
    archive.write_bytes(b"the first half of an archive")
    wrong = {"ag_ui_image_source": "archive", "ag_ui_image_archive": str(archive)}
    done = play(tmp_path, REQUIRED_VARIABLES | wrong | {"ag_ui_image_archive_sha256": "0" * 64})
    assert_refused(done, "Nothing was changed. ag_ui_image_archive: ", f"instead of {'0' * 64}")
    done = play(tmp_path, REQUIRED_VARIABLES | wrong)
    assert_refused(done, "Nothing was changed. ag_ui_image_archive: ", "is not an archive made by")


def test_invalid_proxy_of_the_build_is_refused_without_its_password(tmp_path: Path) -> None:
    wrong = {"ag_ui_build_http_proxy": "user:hidden-word@proxy:3128"}
    done = play(tmp_path, REQUIRED_VARIABLES | wrong)
    assert_refused(done, "ag_ui_build_http_proxy must be an address", "vault.yml")
    assert "hidden-word" not in done.output


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "To confirm, set -e ag_ui_uninstall=true"),
        ({"ag_ui_uninstall": "no"}, "To confirm, set -e ag_ui_uninstall=true"),
        ({"ag_ui_uninstall": True, "ag_ui_uninstall_packages": "some"}, "ag_ui_uninstall_packages"),
    ],
    ids=["none", "denied", "wrong type"],
)
def test_uninstall_requires_a_confirmation(
    tmp_path: Path, variables: dict[str, Any], words: str
) -> None:
    hosts = inventory(tmp_path, REQUIRED_VARIABLES | variables, None)
    done = run_playbook(
        *("--check", "--inventory", hosts, "--extra-vars", '{"ansible_become": false}'),
        "playbooks/uninstall.yml",
    )
    assert_refused(done, words)
    assert [task for task in done.tasks if "Stop and disable" in task] == []


def test_string_instead_of_a_list_is_refused(tmp_path: Path) -> None:
    wrong = {"ag_ui_trusted_proxies": "192.0.2.1", "ag_ui_cors_origins": "https://a.example"}
    assert_refused(
        play(tmp_path, REQUIRED_VARIABLES | wrong),
        'ag_ui_trusted_proxies has "192.0.2.1": it must be a list of',
        'ag_ui_cors_origins has "https://a.example": it must be a list of',
    )


def test_invalid_datastore_variable_stops_the_backend_too(tmp_path: Path) -> None:
    wrong = {"shield_datastores_redis_password": SHORT}
    done = play(tmp_path, REQUIRED_VARIABLES, DATASTORE_VARIABLES | wrong)
    assert_refused(done, "shield_datastores_redis_password does not fit", "at least 16 characters")
    assert SHORT not in done.output


def test_owner_and_user_of_the_database_must_differ(tmp_path: Path) -> None:
    wrong = {"shield_datastores_database_owner": "shield"}
    assert_refused(
        play(tmp_path, REQUIRED_VARIABLES, DATASTORE_VARIABLES | wrong),
        "the roles must differ",
    )


@pytest.mark.parametrize(
    ("backend", "datastores", "words"),
    [
        ("", None, 'ag_ui_database_owner is "", and'),
        ("shield_owner", "other", 'ag_ui_database_owner is "shield_owner", and'),
    ],
    ids=["a site of one role", "another name"],
)
def test_owners_of_both_roles_must_agree(
    tmp_path: Path, backend: str, datastores: str | None, words: str
) -> None:
    owner = {"ag_ui_database_owner": backend, "ag_ui_database_owner_password": "a-password"}
    created = {"shield_datastores_database_owner": datastores} if datastores else {}
    assert_refused(
        play(tmp_path, REQUIRED_VARIABLES | owner, DATASTORE_VARIABLES | created),
        words,
        f'Set ag_ui_database_owner to "{datastores or "shield_owner"}"',
        "shield_datastores_database_owner_password",
    )


def test_same_owner_in_both_roles_is_accepted(tmp_path: Path) -> None:
    owner = {"ag_ui_database_owner": "tables", "ag_ui_database_owner_password": "a-password"}
    created = {"shield_datastores_database_owner": "tables"}
    done = play(tmp_path, REQUIRED_VARIABLES | owner, DATASTORE_VARIABLES | created)
    assert "Packages | List the installed packages" in "".join(done.tasks), done.output


def test_undefined_vault_variable_is_named(tmp_path: Path) -> None:
    wrong = {"ag_ui_jwt_secret": "{{ vault_ag_ui_jwt_secret }}"}
    assert_refused(play(tmp_path, REQUIRED_VARIABLES | wrong), "vault_ag_ui_jwt_secret")


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_unusable_ports_and_hosts_are_named_in_one_run(tmp_path: Path, taken_port: int) -> None:
    wrong = {
        "ag_ui_backend_ports": [taken_port],
        "ag_ui_database_host": "no-such-name.invalid",
    }
    assert_refused(
        play(tmp_path, REQUIRED_VARIABLES | wrong),
        f"ag_ui_backend_ports: port {taken_port} of this host is in use by",
        "Stop that program, or choose another port.",
        "ag_ui_redis_host, ag_ui_redis_port: Redis at 127.0.0.1:1 cannot be reached",
        "ag_ui_database_host: the name 'no-such-name.invalid' cannot be resolved on this host",
        "/etc/hosts",
    )


def test_unreachable_database_is_named(tmp_path: Path) -> None:
    assert_refused(
        play(tmp_path, REQUIRED_VARIABLES),
        "ag_ui_database_host, ag_ui_database_port: PostgreSQL at 127.0.0.1:1 cannot be reached",
    )
