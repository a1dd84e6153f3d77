"""Settings, read from the environment and from .env, and validated at startup."""

import re
import ssl
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated, Literal, Self
from urllib.parse import parse_qsl, urlsplit

import limits
import orjson
from pydantic import (
    AnyHttpUrl,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PLACEHOLDER_SECRETS = frozenset({"change-me-in-production", "changeme", "secret"})
JWT_SECRET_MIN_BYTES = 32
ASYNC_DRIVER = "postgresql+asyncpg"
# The names that libpq uses.
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

# Valid both as a bearer token (RFC 6750) and inside a quoted string in the nginx configuration.
_HEADER_SECRET = re.compile(rf"[\w.~+/=-]{{{JWT_SECRET_MIN_BYTES},}}", re.ASCII)

_http_url: TypeAdapter[AnyHttpUrl] = TypeAdapter(AnyHttpUrl)

Origins = Annotated[list[str], NoDecode]


class SettingsError(Exception):
    """One or more settings are wrong; the message names each with its remedy."""


class Settings(BaseSettings):
    """Each field is an environment variable, or an entry of .env, of the same name.

    The environment takes precedence over .env.
    """

    model_config = SettingsConfigDict(
        env_file=".env", case_sensitive=True, extra="ignore", hide_input_in_errors=True
    )

    APP_NAME: str = "shield-ag-ui-backend"
    ENV: Literal["production", "development"] = "production"
    DEBUG: bool = False
    LOG_LEVEL: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    HOST: str = "0.0.0.0"  # noqa: S104 - for containers; the role sets loopback
    PORT: int = Field(default=8002, ge=1, le=65535)
    CORS_ORIGINS: Origins = ["http://localhost:3001", "http://localhost:80"]
    BODY_MAX_BYTES: int = Field(default=1024 * 1024, ge=1024)
    SHUTDOWN_GRACE_SECONDS: int = Field(default=8, ge=1, le=300)

    LITELLM_URL: str = "http://hx-litellm-server:4000"
    LITELLM_API_KEY: SecretStr | None = None
    # Name of the MCP server with Shield's tools in the configuration of the gateway.
    LITELLM_MCP_SERVER_ID: str = Field(default="rag", min_length=1)
    # Must exceed the gateway's own timeout: a call that times out here first keeps running there.
    LITELLM_TIMEOUT_SECONDS: float = Field(default=70, gt=0)
    LITELLM_CONNECTIONS_MAX: int = Field(default=100, ge=1)
    ORCHESTRATOR_URL: str = "http://hx-orchestrator-server:8000"
    QDRANT_URL: str = "http://hx-vectordb-server:6333"

    REDIS_URL: SecretStr = SecretStr("redis://hx-sqldb-server:6379")
    # CA certificates (PEM) to verify Redis against, in place of the CA store of the system.
    REDIS_CA: str = ""
    REDIS_STREAM_NAME: str = Field(default="shield:events", min_length=1)
    REDIS_CONSUMER_GROUP: str = Field(default="ag-ui-clients", min_length=1)
    # Redis rejects client names with spaces.
    REDIS_CONSUMER_NAME: str = Field(default="hx-dev-server", pattern=r"^[\w.:@-]{1,128}$")

    DATABASE_URL: SecretStr
    # The same for PostgreSQL; used with sslmode verify-ca or verify-full.
    DATABASE_CA: str = ""
    DATABASE_POOL_SIZE: int = Field(default=5, ge=2, le=100)

    JWT_SECRET: SecretStr
    JWT_ALGORITHM: Literal["HS256", "HS384", "HS512"] = "HS256"
    # Comma-separated former values of JWT_SECRET. They only verify tokens.
    JWT_PREVIOUS_SECRETS: SecretStr | None = None
    ACCESS_TOKEN_EXPIRE_MINUTES: int = Field(default=30, ge=1, le=24 * 60)
    SESSION_IDLE_MINUTES: int = Field(default=30, ge=1)
    SESSION_HOURS: int = Field(default=8, ge=1)

    REGISTRATION: Literal["closed", "invite", "open"] = "closed"
    # smtp://user:password@host:25, smtp+starttls:// or smtps://. If unset, no mail is sent.
    SMTP_URL: SecretStr | None = None
    # Path of a file with CA certificates (PEM) to verify the mail server against, in place of the
    # CA store of the system.
    SMTP_CA_FILE: str = ""
    MAIL_FROM: str = Field(
        default="shield-ag-ui@localhost",
        pattern=r"^([^<>@\x00-\x1f\x7f]* )?<?[!-;=?A-~]+@[A-Za-z0-9.-]+>?$",
    )
    # URL of the frontend. Links in emails begin with it.
    PUBLIC_URL: str = "http://localhost"
    # Encrypts the secrets of second factors. Derived from JWT_SECRET if unset.
    MFA_KEY: SecretStr | None = None
    # Comma-separated former keys. They only decrypt.
    MFA_PREVIOUS_KEYS: SecretStr | None = None

    # Signs the checkpoints of the audit log. Derived from JWT_SECRET if unset.
    AUDIT_KEY: SecretStr | None = None
    # Comma-separated former keys. They only verify.
    AUDIT_PREVIOUS_KEYS: SecretStr | None = None
    AUDIT_RETENTION_DAYS: int = Field(default=90, ge=1, le=36_500)
    AUDIT_CHECKPOINT_ENTRIES: int = Field(default=1000, ge=1)
    AUDIT_CHECKPOINT_MINUTES: int = Field(default=5, ge=1, le=24 * 60)

    RATE_LOGIN_PER_ADDRESS: str = "10/minute"
    # Failed logins from all networks and browsers together that never logged in to the account.
    RATE_LOGIN_PER_ACCOUNT: str = "50/day"
    RATE_MAIL_PER_MAILBOX: str = "20/hour"
    # All limits apply. The one per minute makes a page that polls too often wait for a minute
    # instead of an hour.
    RATE_API_PER_USER: str = "300/minute;10000/hour"
    RATE_STREAMS_PER_USER: str = "600/minute"
    RATE_GLOBAL: str = "60000/minute"
    # Comma-separated addresses or networks of the proxies whose X-Forwarded-For is trusted.
    TRUSTED_PROXIES: str = "127.0.0.1"
    # Secret that the proxies send. The address alone proves nothing: every local user has it.
    PROXY_KEY: SecretStr | None = None
    # Bearer token that /metrics requires. If unset, /metrics requires none.
    METRICS_TOKEN: SecretStr | None = None

    # Whether tools may fetch loopback and private addresses.
    TOOLS_ALLOW_PRIVATE_ADDRESSES: bool = False
    TOOLS_MAX_PAGES: int = Field(default=1000, ge=1, le=1_000_000)
    TOOLS_MAX_DEPTH: int = Field(default=10, ge=0, le=1000)
    # Concurrent tool calls of one user in one instance.
    CALLS_PER_USER: int = Field(default=20, ge=1)
    JOBS_PER_USER: int = Field(default=10, ge=1)
    # A running job without events for this long is looked up at the orchestrator.
    JOB_SILENT_SECONDS: int = Field(default=120, ge=1)
    BREAKER_FAILURES: int = Field(default=5, ge=1)
    BREAKER_SECONDS: float = Field(default=15, gt=0)

    # Name of the model in the configuration of the gateway.
    AGENT_MODEL: str = Field(default="shield-agent", min_length=1)
    AGENT_SYSTEM_PROMPT: str = ""
    # Completions of the model in one run. Tool calls of the last one are not executed.
    AGENT_MAX_ROUNDS: int = Field(default=10, ge=2, le=100)
    # Calls of Shield's tools in one run. Each also counts against the user's rate limit.
    AGENT_MAX_TOOL_CALLS: int = Field(default=100, ge=1, le=10_000)
    AGENT_MODEL_TIMEOUT_SECONDS: float = Field(default=120, gt=0)
    RUNS_PER_USER: int = Field(default=5, ge=1)
    # Size as JSON. The minimum leaves room for the largest tool result.
    AGENT_MESSAGE_MAX_BYTES: int = Field(default=1024 * 1024, ge=256 * 1024)
    AGENT_STATE_MAX_BYTES: int = Field(default=256 * 1024, ge=1024)
    # Size of the messages as JSON plus the compressed event logs of the runs.
    AGENT_THREAD_MAX_BYTES: int = Field(default=32 * 1024 * 1024, ge=64 * 1024)
    AGENT_USER_MAX_BYTES: int = Field(default=256 * 1024 * 1024, ge=64 * 1024)
    # Per user and day (UTC). 0 means unlimited.
    AGENT_TOKENS_PER_DAY: int = Field(default=0, ge=0, le=2**53)
    AGENT_RETENTION_DAYS: int = Field(default=90, ge=1, le=36_500)

    EVENT_MAX_BYTES: int = Field(default=2 * 1024 * 1024, ge=1024)
    CONSUMER_BATCH_SIZE: int = Field(default=500, ge=1, le=10_000)
    CONSUMER_CLAIM_IDLE_SECONDS: int = Field(default=30, ge=1)
    CONSUMER_MAX_DELIVERIES: int = Field(default=10, ge=2)

    SSE_KEEPALIVE_SECONDS: int = Field(default=15, ge=1)
    SSE_RETRY_MS: int = Field(default=2000, ge=100)
    STREAMS_MAX: int = Field(default=5000, ge=1)
    STREAMS_PER_USER: int = Field(default=100, ge=1)
    # Limits of unsent data per client. At the limit it is disconnected and can resume.
    CLIENT_BUFFER_BYTES: int = Field(default=8 * 1024 * 1024, ge=64 * 1024)
    CLIENT_BUFFER_EVENTS: int = Field(default=20_000, ge=1)
    # Concurrent replays from Redis or PostgreSQL. Further clients wait.
    REPLAYS_MAX: int = Field(default=8, ge=1)
    RING_MAX_EVENTS: int = Field(default=20_000, ge=1)
    RING_MAX_BYTES: int = Field(default=64 * 1024 * 1024, ge=1024)

    @field_validator("CORS_ORIGINS", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        """Accept a JSON list or a comma-separated list."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            try:
                return orjson.loads(value)
            except orjson.JSONDecodeError as error:
                raise ValueError(f"is no JSON list ({error}); write http://a,http://b") from None
        return [origin.strip() for origin in value.split(",") if origin.strip()]

    @field_validator("CORS_ORIGINS")
    @classmethod
    def _check_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            parts = urlsplit(origin)
            if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path:
                raise ValueError(f"{origin!r} is no origin; write scheme://host[:port]")
        return origins

    @field_validator("LITELLM_URL", "ORCHESTRATOR_URL", "QDRANT_URL")
    @classmethod
    def _check_http_url(cls, value: str) -> str:
        try:
            _http_url.validate_python(value)
        except ValidationError:
            raise ValueError("is no address; write http://host:port") from None
        return value.rstrip("/")

    @field_validator("REDIS_URL")
    @classmethod
    def _check_redis_url(cls, value: SecretStr) -> SecretStr:
        parts = urlsplit(value.get_secret_value())
        if "," in parts.netloc.rpartition("@")[2] or "sentinel" in parts.scheme:
            raise ValueError(
                "is of Sentinel or of Redis Cluster, which are not supported; write the name "
                "that leads to the primary"
            )
        _require_url(value, {"redis", "rediss"}, "redis://[user:password@]host:6379/0")
        if parts.query or parts.fragment:
            raise ValueError("ends after the number of the database; REDIS_CA has the authorities")
        return value

    @field_validator("DATABASE_URL")
    @classmethod
    def _normalise_database_url(cls, value: SecretStr) -> SecretStr:
        """Add the driver to the scheme, since SQLAlchemy's async engine requires it in the URL."""
        schemes = {"postgresql", "postgres", ASYNC_DRIVER}
        _require_url(value, schemes, "postgresql://user:password@host:5432/name")
        _, rest = value.get_secret_value().split("://", 1)
        query = dict(parse_qsl(urlsplit(f"//{rest}").query, keep_blank_values=True))
        if query.pop("sslmode", "prefer") not in SSL_MODES:
            raise ValueError(f"has a wrong sslmode; write one of {', '.join(SSL_MODES)}")
        if query:
            raise ValueError("has a parameter that is not sslmode; DATABASE_CA has the authorities")
        return SecretStr(f"{ASYNC_DRIVER}://{rest}")

    @field_validator("SMTP_URL", mode="before")
    @classmethod
    def _no_empty_url(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("SMTP_URL")
    @classmethod
    def _check_smtp_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            schemes = {"smtp", "smtp+starttls", "smtps"}
            _require_url(value, schemes, "smtp+starttls://user:password@host:587")
            parts = urlsplit(value.get_secret_value())
            if parts.path not in {"", "/"} or parts.query or parts.fragment:
                raise ValueError("ends after host and port (URL-encode the password)")
            if parts.scheme == "smtp" and parts.password and not _is_loopback(parts.hostname):
                raise ValueError(
                    "would send the password in clear: write smtp+starttls:// or smtps://"
                )
        return value

    @field_validator("SMTP_CA_FILE")
    @classmethod
    def _check_ca_file(cls, value: str) -> str:
        if value:
            try:
                ssl.create_default_context(cafile=value)
            except (OSError, ValueError):
                raise ValueError("is no readable file of certificates in PEM form") from None
        return value

    @field_validator("REDIS_CA", "DATABASE_CA")
    @classmethod
    def _check_ca(cls, value: str) -> str:
        if value:
            try:
                ssl.create_default_context(cadata=value)
            except (ssl.SSLError, ValueError):
                raise ValueError("holds no certificates in PEM form") from None
        return value

    @field_validator("PUBLIC_URL")
    @classmethod
    def _check_public_url(cls, value: str) -> str:
        parts = urlsplit(value)
        plain = not (parts.query or parts.fragment or parts.username)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not plain:
            raise ValueError("is no address of a site; write https://host[:port][/path]")
        return value.rstrip("/")

    @field_validator("MFA_KEY", "MFA_PREVIOUS_KEYS", "AUDIT_KEY", "AUDIT_PREVIOUS_KEYS")
    @classmethod
    def _check_keys(cls, value: SecretStr | None) -> SecretStr | None:
        for key in _listed(value):
            _require_key(key)
        return value

    @property
    def mfa_keys(self) -> list[str]:
        """Keys for the secrets of second factors: the first encrypts, all decrypt.

        The JWT secrets are included, so that secrets stored before MFA_KEY was set stay readable.
        """
        return self._keys(self.MFA_KEY, self.MFA_PREVIOUS_KEYS)

    @property
    def audit_keys(self) -> list[str]:
        """Keys for the checkpoints of the audit log: the first signs, all verify.

        The JWT secrets are included, so that checkpoints signed before AUDIT_KEY was set stay valid.
        """
        return self._keys(self.AUDIT_KEY, self.AUDIT_PREVIOUS_KEYS)

    def _keys(self, key: SecretStr | None, previous: SecretStr | None) -> list[str]:
        own = [key.get_secret_value()] if key and _listed(key) else []
        return [*own, *self.signing_keys, *_listed(previous)]

    @property
    def login_budget(self) -> tuple[int, timedelta]:
        """Failed logins that all unknown networks together may make, and the period of the limit."""
        limit = limits.parse(self.RATE_LOGIN_PER_ACCOUNT)
        return limit.amount, timedelta(seconds=limit.get_expiry())

    @property
    def signing_keys(self) -> list[str]:
        """Keys for tokens: the first signs, all verify."""
        return [self.JWT_SECRET.get_secret_value(), *self.previous_jwt_secrets]

    @field_validator("PROXY_KEY", "METRICS_TOKEN")
    @classmethod
    def _check_header_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        if not _HEADER_SECRET.fullmatch(value.get_secret_value()):
            raise ValueError(
                f"needs at least {JWT_SECRET_MIN_BYTES} characters, letters, digits and - . _ ~ + / =; "
                "make one with: openssl rand -base64 48"
            )
        return value

    @field_validator("JWT_SECRET")
    @classmethod
    def _check_jwt_secret(cls, value: SecretStr) -> SecretStr:
        _require_key(value.get_secret_value())
        return value

    @field_validator("JWT_PREVIOUS_SECRETS")
    @classmethod
    def _check_previous_secrets(cls, value: SecretStr | None) -> SecretStr | None:
        for secret in _listed(value):
            _require_key(secret)
        return value

    @field_validator(
        "RATE_LOGIN_PER_ADDRESS",
        "RATE_LOGIN_PER_ACCOUNT",
        "RATE_MAIL_PER_MAILBOX",
        "RATE_API_PER_USER",
        "RATE_STREAMS_PER_USER",
        "RATE_GLOBAL",
    )
    @classmethod
    def _check_limit(cls, value: str) -> str:
        try:
            usable = all(limit.amount > 0 for limit in limits.parse_many(value))
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(
                "is no limit; write a number per time: 10/minute, or several: 10/minute;100/hour"
            )
        return value

    @field_validator("RATE_LOGIN_PER_ACCOUNT")
    @classmethod
    def _check_single_limit(cls, value: str) -> str:
        if len(limits.parse_many(value)) > 1:
            raise ValueError("takes one limit only, such as 50/day")
        return value

    @field_validator("TRUSTED_PROXIES")
    @classmethod
    def _check_proxies(cls, value: str) -> str:
        for one in _listed(value):
            try:
                ip_network(one)
            except ValueError:
                raise ValueError(
                    f"{one!r} is no address; write addresses or networks, separated by commas"
                ) from None
        return value

    @property
    def trusted_proxies(self) -> list[str]:
        return _listed(self.TRUSTED_PROXIES)

    @property
    def previous_jwt_secrets(self) -> list[str]:
        return _listed(self.JWT_PREVIOUS_SECRETS)

    @model_validator(mode="after")
    def _check_debug(self) -> Self:
        if self.DEBUG and self.ENV == "production":
            raise ValueError("DEBUG: is not for production; unset it or set ENV=development")
        return self


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: A setting is missing or invalid. The message names all of them.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _require_key(secret: str) -> None:
    if secret in PLACEHOLDER_SECRETS or len(secret.encode()) < JWT_SECRET_MIN_BYTES:
        raise ValueError(
            f"needs at least {JWT_SECRET_MIN_BYTES} random bytes; make one with: "
            "openssl rand -base64 48"
        )


def _is_loopback(host: str | None) -> bool:
    return host in {"localhost", "127.0.0.1", "::1"}


def _listed(value: SecretStr | str | None) -> list[str]:
    """Split a comma-separated setting."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value or ""
    return [one.strip() for one in text.split(",") if one.strip()]


def _require_url(value: SecretStr, schemes: set[str], example: str) -> None:
    try:
        parts = urlsplit(value.get_secret_value())
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"is no usable address; write {example} (URL-encode the password)")


def _explain(error: ValidationError) -> str:
    lines = ["The settings are wrong; correct them in the environment or in .env:"]
    for problem in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing":
            message = _MISSING.get(name, "is missing; set it")
        lines.append(f"  {name}: {message}" if name else f"  {message}")
    return "\n".join(lines)


_MISSING = {
    "JWT_SECRET": "is missing; make one with: openssl rand -base64 48",
    "DATABASE_URL": "is missing; set postgresql://user:password@host:5432/name",
}
