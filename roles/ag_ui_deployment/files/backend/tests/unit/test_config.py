"""Settings: names, defaults, and one message that lists all errors and no secrets."""

from pathlib import Path

import pytest

from src.config import Settings, SettingsError, load_settings
from tests.support.builders import JWT_SECRET, settings_of

REQUIRED = {
    "DATABASE_URL": "postgresql://shield:p%40ss@db:5432/shield",
    "JWT_SECRET": JWT_SECRET,
}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a directory without a .env file."""
    monkeypatch.chdir(tmp_path)


def load(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in (REQUIRED | values).items():
        monkeypatch.setenv(name, value)
    return load_settings()


def error_of(monkeypatch: pytest.MonkeyPatch, **values: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, **values)
    return str(caught.value)


def test_names_and_defaults_match_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch)
    shown = settings.model_dump(
        include={
            "APP_NAME",
            "ENV",
            "DEBUG",
            "HOST",
            "PORT",
            "CORS_ORIGINS",
            "LITELLM_URL",
            "ORCHESTRATOR_URL",
            "QDRANT_URL",
            "REDIS_STREAM_NAME",
            "REDIS_CONSUMER_GROUP",
            "REDIS_CONSUMER_NAME",
            "JWT_ALGORITHM",
            "ACCESS_TOKEN_EXPIRE_MINUTES",
        }
    )
    assert shown == {
        "APP_NAME": "shield-ag-ui-backend",
        "ENV": "production",
        "DEBUG": False,
        "HOST": "0.0.0.0",  # noqa: S104 - the specification's
        "PORT": 8002,
        "CORS_ORIGINS": ["http://localhost:3001", "http://localhost:80"],
        "LITELLM_URL": "http://hx-litellm-server:4000",
        "ORCHESTRATOR_URL": "http://hx-orchestrator-server:8000",
        "QDRANT_URL": "http://hx-vectordb-server:6333",
        "REDIS_STREAM_NAME": "shield:events",
        "REDIS_CONSUMER_GROUP": "ag-ui-clients",
        "REDIS_CONSUMER_NAME": "hx-dev-server",
        "JWT_ALGORITHM": "HS256",
        "ACCESS_TOKEN_EXPIRE_MINUTES": 30,
    }
    assert settings.REDIS_URL.get_secret_value() == "redis://hx-sqldb-server:6379"


def test_further_servers_are_read_from_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        REDIS_SENTINELS="a:26379, [::1]:26380",
        DATABASE_STANDBYS='["b:5433"]',
    )
    assert settings.redis_sentinels == [("a", 26379), ("::1", 26380)]
    assert settings.database_standbys == [("b", 5433)]
    empty = load(monkeypatch, REDIS_SENTINELS="[]", DATABASE_STANDBYS="")
    assert (empty.redis_sentinels, empty.database_standbys) == ([], [])


@pytest.mark.parametrize("text", ["a", "a:0", "a:65536", "redis://a:26379", "::1:26379", '["a'])
def test_address_without_a_port_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert "REDIS_SENTINELS: " in error_of(monkeypatch, REDIS_SENTINELS=text)


def test_user_of_the_sentinels_needs_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "needs REDIS_SENTINEL_PASSWORD" in error_of(monkeypatch, REDIS_SENTINEL_USER="watch")


def test_environment_overrides_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=9001\nLOG_LEVEL=WARNING\nNOT_OURS=1\n")
    settings = load(monkeypatch, PORT="9002")
    assert (settings.PORT, settings.LOG_LEVEL) == (9002, "WARNING")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_postgresql_schemes_become_asyncpg(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    settings = load(monkeypatch, DATABASE_URL=f"{scheme}://shield:p%40ss@db:5432/shield")
    expected = "postgresql+asyncpg://shield:p%40ss@db:5432/shield"
    assert settings.DATABASE_URL.get_secret_value() == expected


@pytest.mark.parametrize(
    "text", ['["https://a.example", "http://b:81"]', "https://a.example, http://b:81,"]
)
def test_origins_are_a_json_or_comma_separated_list(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    assert load(monkeypatch, CORS_ORIGINS=text).CORS_ORIGINS == ["https://a.example", "http://b:81"]


@pytest.mark.parametrize("text", ["*", "a.example", "https://a.example/app", '["https://a"', "[1]"])
def test_invalid_origin_is_reported(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert "CORS_ORIGINS" in error_of(monkeypatch, CORS_ORIGINS=text)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("JWT_SECRET", "short", "openssl rand"),
        ("JWT_SECRET", "change-me-in-production", "openssl rand"),
        ("JWT_SECRET", "x" * 31, "openssl rand"),
        ("JWT_SECRET", "", "openssl rand"),
        ("JWT_PREVIOUS_SECRETS", "short", "openssl rand"),
        ("JWT_PREVIOUS_SECRETS", "x" * 40 + ",changeme", "openssl rand"),
        ("MFA_KEY", "short", "openssl rand"),
        ("MFA_PREVIOUS_KEYS", "x" * 40 + ",short", "openssl rand"),
        ("AUDIT_KEY", "short", "openssl rand"),
        ("AUDIT_KEY", "change-me-in-production", "openssl rand"),
        ("AUDIT_PREVIOUS_KEYS", "x" * 40 + ",short", "openssl rand"),
        ("AUDIT_RETENTION_DAYS", "36501", "less than or equal to 36500"),
        ("AUDIT_CHECKPOINT_MINUTES", "1441", "less than or equal to 1440"),
        ("UPLOADS_DIRECTORY", "uploads", "no absolute path"),
        ("UPLOADS_DIRECTORY", "/srv/../etc", "no absolute path"),
        ("UPLOADS_TOOL_PATH", "/mnt/my documents", "no absolute path"),
        ("UPLOADS_S3_TARGET", "s3://", "s3://bucket/prefix"),
        ("UPLOADS_S3_TARGET", "https://s3.example/documents", "s3://bucket/prefix"),
        ("UPLOADS_S3_TARGET", "s3://documents/../other", "s3://bucket/prefix"),
        ("UPLOADS_S3_ENDPOINT", "minio:9000", "https://host[:port]"),
        ("UPLOADS_S3_REGION", "", "at least 1"),
        ("UPLOADS_S3_CA", "/nowhere/ca.pem", "certificates in PEM form"),
        ("UPLOADS_TYPES", "pdf,exe", "'exe' is unknown; write some of pdf, docx"),
        ("UPLOADS_TYPES", "", "at least 1 item"),
        ("UPLOAD_MAX_BYTES", "0", "greater than or equal to 1"),
        ("UPLOADS_EXPIRE_HOURS", "8761", "less than or equal to 8760"),
        ("AGENT_MAX_ROUNDS", "1", "greater than or equal to 2"),
        ("RATE_API_PER_USER", "many", "10/minute"),
        ("RATE_GLOBAL", "0/minute", "10/minute"),
        ("RATE_API_PER_USER", "10/minute;0/hour", "10/minute;100/hour"),
        ("RATE_API_PER_USER", "10/minute;", "10/minute;100/hour"),
        ("RATE_LOGIN_PER_ACCOUNT", "10/minute;50/day", "one limit"),
        ("RATE_LOGIN_PER_ADDRESS", "", "10/minute"),
        ("TRUSTED_PROXIES", "127.0.0.1,proxy", "addresses or networks"),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "addresses or networks"),
        ("PROXY_KEY", "short", "at least 32 characters"),
        ("PROXY_KEY", '"; deny all; #' + "x" * 32, "letters, digits and"),
        ("METRICS_TOKEN", "x" * 31, "at least 32 characters"),
        ("PROXY_PREVIOUS_KEYS", "x" * 32 + ",short", "at least 32 characters"),
        ("METRICS_PREVIOUS_TOKENS", "x" * 32 + ',"' + "x" * 32, "letters, digits and"),
        ("JWT_ALGORITHM", "none", "HS256"),
        ("JWT_ALGORITHM", "RS256", "HS256"),
        ("DATABASE_URL", "mysql://u:p@h/d", "postgresql://"),
        ("DATABASE_URL", "postgresql://", "postgresql://"),
        ("DATABASE_URL", "postgresql://u:p@h:port/d", "postgresql://"),
        ("REDIS_URL", "http://h:6379", "redis://"),
        ("DATABASE_URL", "postgresql://u:p@h/d?sslmode=on", "verify-full"),
        ("DATABASE_URL", "postgresql://u:p@h/d?sslrootcert=/ca", "DATABASE_CA"),
        ("DATABASE_CA", "/nowhere/ca.pem", "certificates in PEM form"),
        ("REDIS_URL", "hx-sqldb-server:6379", "redis://"),
        ("REDIS_URL", "redis+sentinel://a:26379/mymaster", "names several servers"),
        ("REDIS_URL", "redis://a:26379,b:26379/0", "names several servers"),
        ("REDIS_URL", "rediss://h/0?ssl_cert_reqs=none", "REDIS_CA"),
        ("REDIS_CA", "/nowhere/ca.pem", "certificates in PEM form"),
        ("REDIS_CA", "zertifikatsbehörde", "certificates in PEM form"),
        ("LITELLM_URL", "hx-litellm-server", "http://host:port"),
        ("ORCHESTRATOR_URL", "ftp://h", "http://host:port"),
        ("QDRANT_URL", "", "http://host:port"),
        ("PORT", "0", "greater than or equal to 1"),
        ("PORT", "65536", "less than or equal to 65535"),
        ("PORT", "http", "integer"),
        ("ENV", "staging", "production"),
        ("DEBUG", "perhaps", "boolean"),
        ("LOG_LEVEL", "LOUD", "INFO"),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "0", "greater"),
        ("CONSUMER_BATCH_SIZE", "0", "greater"),
        ("SSE_KEEPALIVE_SECONDS", "0", "greater"),
        ("STREAMS_MAX", "-1", "greater"),
        ("AGENT_MODEL", "", "at least 1"),
        ("REDIS_CONSUMER_NAME", "two words", "REDIS_CONSUMER_NAME"),
        ("REDIS_STREAM_NAME", "", "REDIS_STREAM_NAME"),
    ],
)
def test_invalid_value_is_reported_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, remedy: str
) -> None:
    message = error_of(monkeypatch, **{name: value})
    (line,) = [line for line in message.splitlines() if line.startswith("  ")]
    assert line.startswith(f"  {name}: ")
    assert remedy in line


def test_missing_secrets_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    message = str(caught.value)
    assert "JWT_SECRET: is missing; make one with: openssl rand" in message
    assert "DATABASE_URL: is missing; set postgresql://" in message
    monkeypatch.setenv("JWT_SECRET", JWT_SECRET)


def test_all_errors_are_reported_without_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = {
        "PORT": "none",
        "JWT_SECRET": "hunter2-jwt",
        "DATABASE_URL": "mysql://shield:hunter2-db@h/d",
        "REDIS_URL": "rediss//:hunter2-redis@h",
        "ENV": "staging",
    }
    message = error_of(monkeypatch, **wrong)
    assert all(f"  {name}: " in message for name in wrong)
    assert "hunter2" not in message


def test_debug_is_refused_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "DEBUG: is not for production" in error_of(monkeypatch, DEBUG="true")
    assert load(monkeypatch, DEBUG="true", ENV="development").DEBUG


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"UPLOADS_DIRECTORY": "/srv/uploads"}, "UPLOADS_S3_TARGET: excludes UPLOADS_DIRECTORY"),
        ({"UPLOADS_S3_ACCESS_KEY_ID": ""}, "UPLOADS_S3_ACCESS_KEY_ID: is missing"),
        ({"UPLOADS_S3_SECRET_ACCESS_KEY": ""}, "UPLOADS_S3_SECRET_ACCESS_KEY: is missing"),
        ({"UPLOAD_MAX_BYTES": "5368709121"}, "UPLOAD_MAX_BYTES: may be at most 5368709120"),
    ],
)
def test_bucket_for_uploads_needs_an_access_key_and_no_directory(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], line: str
) -> None:
    bucket = {
        "UPLOADS_S3_TARGET": "s3://documents/site/",
        "UPLOADS_S3_ACCESS_KEY_ID": "id",
        "UPLOADS_S3_SECRET_ACCESS_KEY": "secret",
        "UPLOAD_MAX_BYTES": "5368709120",
    }
    assert load(monkeypatch, **bucket).UPLOADS_S3_TARGET == "s3://documents/site"
    assert f"  {line}" in error_of(monkeypatch, **(bucket | changed))


def test_each_setting_is_described_for_its_documentation() -> None:
    fields = Settings.model_fields
    assert [name for name, field in fields.items() if not field.description] == []


def test_names_are_case_sensitive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("port", "9001")
    assert load(monkeypatch).PORT == 8002


def test_secrets_are_hidden_in_the_settings_object() -> None:
    settings = settings_of(REDIS_URL="redis://:hunter2@h:6379/0", LITELLM_API_KEY="hunter2")
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert JWT_SECRET not in repr(settings)


@pytest.mark.parametrize("kind", ["mfa", "audit"])
def test_own_key_precedes_signing_keys(kind: str) -> None:
    def keys(**values: str) -> list[str]:
        named = {f"{kind.upper()}_{name}": value for name, value in values.items()}
        settings = settings_of(JWT_PREVIOUS_SECRETS="s" * 32, **named)
        found: list[str] = getattr(settings, f"{kind}_keys")
        return found

    signing = [JWT_SECRET, "s" * 32]
    assert keys() == keys(KEY="") == keys(KEY=" ") == signing
    given = keys(KEY="k" * 32, PREVIOUS_KEYS=f" {'p' * 32} ,{'q' * 32},")
    assert given == ["k" * 32, *signing, "p" * 32, "q" * 32]


def test_previous_header_secrets_count_beside_the_current_ones() -> None:
    settings = settings_of(
        PROXY_KEY="p" * 32,
        PROXY_PREVIOUS_KEYS="q" * 32 + ", " + "r" * 32,
        METRICS_PREVIOUS_TOKENS="m" * 32,
    )
    assert settings.proxy_keys == ["p" * 32, "q" * 32, "r" * 32]
    # Previous secrets alone would require what no deployment sends.
    assert settings.metrics_tokens == []
