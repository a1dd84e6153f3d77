"""Settings, read from the environment and from .env, and validated at startup."""

from datetime import timedelta
from typing import Literal, Self

import limits
from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from src.setting_types import (
    DOCUMENT_TYPES,
    CaCertificates,
    CaFile,
    DatabaseUrl,
    Directory,
    DocumentTypes,
    Endpoints,
    HeaderSecret,
    HeaderSecrets,
    Key,
    Keys,
    Networks,
    NonEmptyStr,
    OptionalSiteUrl,
    Origins,
    RateLimit,
    RateLimits,
    RedisUrl,
    S3Target,
    ServiceUrl,
    SiteUrl,
    SmtpUrl,
    split_endpoint,
    split_list,
)

# The largest object that S3 copies, as completed uploads are to get their final name.
S3_MAX_BYTES = 5 * 2**30


class SettingsError(Exception):
    """One or more settings are wrong; the message names each with its remedy."""


class Settings(BaseSettings):
    """Each field is an environment variable, or an entry of .env, of the same name.

    The environment takes precedence over .env. script/api-reference writes their docstrings to
    docs/operations.md.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        case_sensitive=True,
        extra="ignore",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    APP_NAME: str = "shield-ag-ui-backend"
    """Name of the service in `/` and `/health`."""
    ENV: Literal["production", "development"] = "production"
    """`DEBUG` requires `development`."""
    DEBUG: bool = False
    """Whether an internal error is answered with its traceback."""
    LOG_LEVEL: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Minimum level of log lines; the lines of the audit log are always written."""

    HOST: str = "0.0.0.0"  # noqa: S104 - for containers; the role sets loopback
    """Address to listen on."""
    PORT: int = Field(default=8002, ge=1, le=65535)
    """TCP port to listen on."""
    CORS_ORIGINS: Origins = ["http://localhost:3001", "http://localhost:80"]
    """Origins whose pages may use the API in a browser: a JSON list, or separated by commas."""
    BODY_MAX_BYTES: int = Field(default=1024 * 1024, ge=1024)
    """Larger request bodies are answered 413; `POST /agent` accepts four times as much, routes
    without a login at most 64 KiB."""
    SHUTDOWN_GRACE_SECONDS: int = Field(default=8, ge=1, le=300)
    """How long open requests may take while an instance is being stopped."""

    LITELLM_URL: ServiceUrl = "http://hx-litellm-server:4000"
    """The gateway to tools and models. Redirects are not followed: calls and runs fail with
    `gateway-refused` and name this setting, as they do if the server is not LiteLLM; the log has
    `gateway_error` with the status and the location, or `gateway_unreachable` with the reason."""
    LITELLM_API_KEY: SecretStr | None = None
    """Key of the backend for the gateway."""
    LITELLM_MCP_SERVER_ID: NonEmptyStr = "rag"
    """Name of the MCP server with Shield's tools in the configuration of the gateway."""
    LITELLM_TIMEOUT_SECONDS: PositiveFloat = 70
    """Timeout of a tool call. It must exceed the gateway's own timeout: a call that times out here
    first keeps running there."""
    LITELLM_CONNECTIONS_MAX: PositiveInt = 100
    """Connections to the gateway per instance, separately for tools and for models."""
    ORCHESTRATOR_URL: ServiceUrl = "http://hx-orchestrator-server:8000"
    """Shield's orchestrator, which is asked for the state of silent jobs."""
    QDRANT_URL: ServiceUrl = "http://hx-vectordb-server:6333"
    """Shield's vector database; not used by the backend."""

    REDIS_URL: RedisUrl = SecretStr("redis://hx-sqldb-server:6379")
    """`redis://user:password@host:6379/0`, or `rediss://` for TLS; a password is URL-encoded."""
    REDIS_CA: CaCertificates = ""
    """CA certificates (PEM) to verify Redis against, instead of the system's."""
    REDIS_SENTINELS: Endpoints = []
    """Sentinels that name the primary, `host:port`, separated by commas. Host and port of
    `REDIS_URL` are then not used; its other parts are those of the primary, and `rediss://` is for
    the Sentinels too."""
    REDIS_SENTINEL_SERVICE: NonEmptyStr = "mymaster"
    """Name by which the Sentinels know the primary."""
    REDIS_SENTINEL_USER: str = ""
    """ACL user at the Sentinels; empty for the default one."""
    REDIS_SENTINEL_PASSWORD: SecretStr | None = None
    """Password at the Sentinels, if they require one."""
    REDIS_STREAM_NAME: NonEmptyStr = "shield:events"
    """Stream of Shield's events; the names of other keys begin with it."""
    REDIS_CONSUMER_GROUP: NonEmptyStr = "ag-ui-clients"
    """Consumer group that stores the events."""
    # Redis rejects client names with spaces.
    REDIS_CONSUMER_NAME: str = Field(default="hx-dev-server", pattern=r"^[\w.:@-]{1,128}$")
    """Name of this instance in the consumer group, at Redis and at PostgreSQL: letters, digits
    and `_ . : @ -`."""

    DATABASE_URL: DatabaseUrl
    """`postgresql://user:password@host:5432/name`; a password is URL-encoded. The only parameter is
    `sslmode`."""
    DATABASE_PREVIOUS_PASSWORD: SecretStr | None = None
    """Password to log in with while PostgreSQL refuses the one in `DATABASE_URL`, because it is about
    to be changed."""
    DATABASE_CA: CaCertificates = ""
    """CA certificates (PEM) to verify PostgreSQL against, instead of the system's; used with the
    `sslmode` `verify-ca` or `verify-full`."""
    DATABASE_STANDBYS: Endpoints = []
    """Other servers of the same cluster, `host:port`, separated by commas. The backend uses the one
    server of all that accepts writes."""
    DATABASE_POOL_SIZE: int = Field(default=5, ge=2, le=100)
    """Connections to PostgreSQL per instance; twice as many at peaks."""

    JWT_SECRET: Key
    """Signs tokens; at least 32 bytes."""
    JWT_ALGORITHM: Literal["HS256", "HS384", "HS512"] = "HS256"
    """Signature algorithm of tokens."""
    JWT_PREVIOUS_SECRETS: Keys = None
    """Keys that no longer sign but whose tokens are still valid, separated by commas."""
    ACCESS_TOKEN_EXPIRE_MINUTES: int = Field(default=30, ge=1, le=24 * 60)
    """Lifetime of an access token."""
    SESSION_IDLE_MINUTES: PositiveInt = 30
    """A session ends after this time without use."""
    SESSION_HOURS: PositiveInt = 8
    """A session ends this long after the login, even if it is used."""

    REGISTRATION: Literal["closed", "invite", "open"] = "closed"
    """Who can create an account: `closed`: administrators, `invite`: also people whom they invite,
    `open`: anybody with a mailbox."""
    SMTP_URL: SmtpUrl = None
    """`smtp+starttls://user:password@host:587`, `smtps://` or (without a password, or to this host)
    `smtp://`; if it is empty no mail is sent."""
    SMTP_CA_FILE: CaFile = ""
    """Path of CA certificates (PEM) to verify the mail server against, instead of the system's."""
    MAIL_FROM: str = Field(
        default="shield-ag-ui@localhost",
        pattern=r"^([^<>@\x00-\x1f\x7f]* )?<?[!-;=?A-~]+@[A-Za-z0-9.-]+>?$",
    )
    """Sender of mails."""
    PUBLIC_URL: SiteUrl = "http://localhost"
    """Base URL of the frontend, used in links."""
    MFA_KEY: Keys = None
    """Encrypts the secrets of second factors; at least 32 bytes. Derived from `JWT_SECRET` if
    unset."""
    MFA_PREVIOUS_KEYS: Keys = None
    """Keys of secrets that are still stored, separated by commas; used for decryption only."""

    AUDIT_KEY: Keys = None
    """Signs the checkpoints of the audit log; at least 32 bytes. Derived from `JWT_SECRET` if
    unset."""
    AUDIT_PREVIOUS_KEYS: Keys = None
    """Keys of checkpoints that are still stored, separated by commas; used for verification
    only."""
    AUDIT_RETENTION_DAYS: int = Field(default=90, ge=1, le=36_500)
    """Older entries of the audit log are deleted."""
    AUDIT_CHECKPOINT_ENTRIES: PositiveInt = 1000
    """The audit log is signed after this many entries."""
    AUDIT_CHECKPOINT_MINUTES: int = Field(default=5, ge=1, le=24 * 60)
    """The audit log is signed after this time if there is a new entry."""

    RATE_LOGIN_PER_ADDRESS: RateLimits = "10/minute"
    """Logins, registrations and forgotten passwords per address, or per /64 of IPv6; logins from
    browsers that are known to the account are limited per account instead."""
    RATE_LOGIN_PER_ACCOUNT: RateLimit = "50/day"
    """Failed logins to one account from all networks and browsers that have not logged in to it
    before, together: a burst of this many, refilled at this rate. When none is left, logins from
    them are rejected until some are refilled, the account is unlocked, an operator sets its
    password, or the password is reset and the account has no second factor. One limit only."""
    RATE_MAIL_PER_MAILBOX: RateLimits = "20/hour"
    """Requests that send mail to one mailbox."""
    # The limit per minute makes a page that polls too often wait for a minute instead of an hour.
    RATE_API_PER_USER: RateLimits = "300/minute;10000/hour"
    """Requests of one user, including refreshes, without streams and logouts."""
    RATE_STREAMS_PER_USER: RateLimits = "600/minute"
    """Streams that one user opens."""
    RATE_GLOBAL: RateLimits = "60000/minute"
    """All requests together, without health and metrics."""
    TRUSTED_PROXIES: Networks = "127.0.0.1"
    """Addresses or networks, separated by commas, whose `X-Forwarded-For` and `X-Forwarded-Proto`
    are accepted."""
    # The address alone proves nothing: every local user has it.
    PROXY_KEY: HeaderSecret = None
    """Key that a proxy must send in `X-AG-UI-Proxy-Key` for its `X-Forwarded-For` to be accepted;
    at least 32 characters."""
    PROXY_PREVIOUS_KEYS: HeaderSecrets = None
    """Further keys that are accepted from proxies, separated by commas."""
    PROXY_PORT: int = Field(default=0, ge=0, le=65535)
    """TCP port on which nginx serves HTTPS on this host. `/metrics` shows when the certificate that it
    presents expires; if it is 0, it does not."""
    METRICS_TOKEN: HeaderSecret = None
    """Bearer token that `/metrics` requires, at least 32 characters; if unset, it requires none."""
    METRICS_PREVIOUS_TOKENS: HeaderSecrets = None
    """Further tokens that `/metrics` accepts, separated by commas."""

    TOOLS_ALLOW_PRIVATE_ADDRESSES: bool = False
    """Whether tools may access internal addresses."""
    TOOLS_MAX_PAGES: int = Field(default=1000, ge=1, le=1_000_000)
    """Most pages of one crawl."""
    TOOLS_MAX_DEPTH: int = Field(default=10, ge=0, le=1000)
    """Greatest depth of one crawl."""
    CALLS_PER_USER: PositiveInt = 20
    """Tool calls of one user in progress, per instance; more are answered 429."""
    JOBS_PER_USER: PositiveInt = 10
    """Queued and running jobs of one user; more are answered 429."""
    JOB_SILENT_SECONDS: PositiveInt = 120
    """After this time without events the state of a running job is requested from
    `ORCHESTRATOR_URL`."""
    BREAKER_FAILURES: PositiveInt = 5
    """Consecutive failures after which an upstream gets no calls for `BREAKER_SECONDS`."""
    BREAKER_SECONDS: PositiveFloat = 15
    """How long the circuit breaker stays open."""

    UPLOADS_DIRECTORY: Directory = ""
    """Directory of uploaded documents, which all instances of the site share, and no other site.
    If it is empty and `UPLOADS_S3_TARGET` too, uploads are off."""
    UPLOADS_S3_TARGET: S3Target = ""
    """Bucket of uploaded documents in place of a directory, `s3://bucket` or `s3://bucket/prefix`, of
    this site alone."""
    UPLOADS_S3_ENDPOINT: OptionalSiteUrl = ""
    """Address of the S3 server; if it is empty, that of Amazon for the region."""
    UPLOADS_S3_REGION: NonEmptyStr = "us-east-1"
    """Region of the bucket."""
    UPLOADS_S3_ACCESS_KEY_ID: str = ""
    """Id of the access key for the bucket; required with `UPLOADS_S3_TARGET`."""
    UPLOADS_S3_SECRET_ACCESS_KEY: SecretStr | None = None
    """Secret of the access key; required with `UPLOADS_S3_TARGET`."""
    UPLOADS_S3_CA: CaCertificates = ""
    """CA certificates (PEM) to verify the S3 server against, instead of the system's."""
    UPLOADS_TOOL_PATH: Directory = ""
    """The directory, or the prefix of the bucket, as a path at the tools' server; if it is empty, tools
    get `UPLOADS_DIRECTORY` or `UPLOADS_S3_TARGET`."""
    UPLOADS_TYPES: DocumentTypes = list(DOCUMENT_TYPES)
    """Types of documents that are accepted, by their content: a JSON list, or separated by
    commas."""
    UPLOAD_MAX_BYTES: int = Field(default=2**30, ge=1, le=2**50)
    """Size of one document; larger ones are answered 413. At most 5368709120 with
    `UPLOADS_S3_TARGET`."""
    UPLOADS_USER_MAX_BYTES: int = Field(default=5 * 2**30, ge=1, le=2**60)
    """Size of all uploads of one user, as announced; more are answered 429."""
    UPLOADS_PER_USER: PositiveInt = 100
    """Uploads of one user; more are answered 429."""
    UPLOADS_MAX_BYTES: int = Field(default=50 * 2**30, ge=1, le=2**60)
    """Size of all uploads of all users, as announced; more are answered 507."""
    UPLOADS_EXPIRE_HOURS: int = Field(default=24, ge=1, le=24 * 365)
    """An unfinished upload is deleted after this time without new bytes."""
    UPLOADS_KEPT_HOURS: int = Field(default=7 * 24, ge=1, le=24 * 3650)
    """A complete upload is deleted after this time; its ingestion must have read it by then."""

    AGENT_MODEL: NonEmptyStr = "shield-agent"
    """Name of the agent's model in the configuration of the gateway."""
    AGENT_SYSTEM_PROMPT: str = ""
    """System prompt of every conversation."""
    AGENT_MAX_ROUNDS: int = Field(default=10, ge=2, le=100)
    """Answers of the model in one run; tools of Shield that the last one calls are not run, and the
    run fails with `too_many_rounds`."""
    AGENT_MAX_TOOL_CALLS: int = Field(default=100, ge=1, le=10_000)
    """Calls of Shield's tools in one run; further calls are not run, and the model is told so. Each
    also counts against the user's rate limit."""
    AGENT_MODEL_TIMEOUT_SECONDS: PositiveFloat = 120
    """Timeout for the next chunk of the model."""
    RUNS_PER_USER: PositiveInt = 5
    """Running agent runs of one user, over all instances; more are answered 429."""
    # The minimum leaves room for the largest tool result.
    AGENT_MESSAGE_MAX_BYTES: int = Field(default=1024 * 1024, ge=256 * 1024)
    """Size of one message as JSON; a larger message of a client is answered 422, a larger answer of
    a model ends the run with `run_too_large`."""
    AGENT_STATE_MAX_BYTES: int = Field(default=256 * 1024, ge=1024)
    """Size of the state that a client sends, as JSON; larger ones are answered 422."""
    AGENT_THREAD_MAX_BYTES: int = Field(default=32 * 1024 * 1024, ge=64 * 1024)
    """Size of one conversation: its messages as JSON, the compressed logs of its runs, and 512
    bytes for each; above it no run begins (413)."""
    AGENT_USER_MAX_BYTES: int = Field(default=256 * 1024 * 1024, ge=64 * 1024)
    """Size of all conversations of one user; above it no run begins (429) until they delete
    some."""
    AGENT_TOKENS_PER_DAY: int = Field(default=0, ge=0, le=2**53)
    """Tokens per user and day (UTC), input and output together; 0 means no limit."""
    AGENT_RETENTION_DAYS: int = Field(default=90, ge=1, le=36_500)
    """Conversations without a new run for this time are deleted, and so are runs that ended before
    it and token counts of earlier days."""

    TOOL_CALLS_RETENTION_DAYS: int = Field(default=30, ge=1, le=36_500)
    """Older calls of tools are no longer listed."""

    EVENT_MAX_BYTES: int = Field(default=2 * 1024 * 1024, ge=1024)
    """Larger entries of the stream become dead letters."""
    CONSUMER_BATCH_SIZE: int = Field(default=500, ge=1, le=10_000)
    """Entries per transaction."""
    CONSUMER_CLAIM_IDLE_SECONDS: PositiveInt = 30
    """After this time another instance claims the pending entries of a dead one."""
    CONSUMER_MAX_DELIVERIES: int = Field(default=10, ge=2)
    """An entry that was delivered more often without being stored becomes a dead letter."""

    SSE_KEEPALIVE_SECONDS: PositiveInt = 15
    """Keep-alive comment on each stream after this time without data."""
    SSE_RETRY_MS: int = Field(default=2000, ge=100)
    """How long a client waits before it reconnects."""
    STREAMS_MAX: PositiveInt = 5000
    """Open streams per instance; more are answered 502, and nginx tries the next instance."""
    STREAMS_PER_USER: PositiveInt = 100
    """Open streams of one user per instance; more are answered 429."""
    CLIENT_BUFFER_BYTES: int = Field(default=8 * 1024 * 1024, ge=64 * 1024)
    """How many bytes a client may be behind before it is disconnected; it can resume."""
    CLIENT_BUFFER_EVENTS: PositiveInt = 20_000
    """How many events a client may be behind before it is disconnected; it can resume."""
    REPLAYS_MAX: PositiveInt = 8
    """Clients that read missed events from Redis or PostgreSQL at once; others are queued."""
    RING_MAX_EVENTS: PositiveInt = 20_000
    """Number of events in the ring buffer for clients that resume."""
    RING_MAX_BYTES: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Size of the ring buffer for clients that resume."""

    @model_validator(mode="after")
    def _check_debug(self) -> Self:
        if self.DEBUG and self.ENV == "production":
            raise ValueError("DEBUG: is not for production; unset it or set ENV=development")
        return self

    @model_validator(mode="after")
    def _check_sentinel_user(self) -> Self:
        if self.REDIS_SENTINEL_USER and not self.REDIS_SENTINEL_PASSWORD:
            raise ValueError("REDIS_SENTINEL_USER: needs REDIS_SENTINEL_PASSWORD")
        return self

    @model_validator(mode="after")
    def _check_s3_uploads(self) -> Self:
        if not self.UPLOADS_S3_TARGET:
            return self
        if self.UPLOADS_DIRECTORY:
            raise ValueError("UPLOADS_S3_TARGET: excludes UPLOADS_DIRECTORY; unset one of them")
        for name in ("UPLOADS_S3_ACCESS_KEY_ID", "UPLOADS_S3_SECRET_ACCESS_KEY"):
            if not getattr(self, name):
                raise ValueError(f"{name}: is missing; UPLOADS_S3_TARGET needs an access key")
        if self.UPLOAD_MAX_BYTES > S3_MAX_BYTES:
            raise ValueError(
                f"UPLOAD_MAX_BYTES: may be at most {S3_MAX_BYTES} with UPLOADS_S3_TARGET"
            )
        return self

    @property
    def redis_sentinels(self) -> list[tuple[str, int]]:
        return [split_endpoint(endpoint) for endpoint in self.REDIS_SENTINELS]

    @property
    def database_standbys(self) -> list[tuple[str, int]]:
        return [split_endpoint(endpoint) for endpoint in self.DATABASE_STANDBYS]

    @property
    def signing_keys(self) -> list[str]:
        """Keys for tokens: the first signs, all verify."""
        return [self.JWT_SECRET.get_secret_value(), *split_list(self.JWT_PREVIOUS_SECRETS)]

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
        own = [key.get_secret_value()] if key and split_list(key) else []
        return [*own, *self.signing_keys, *split_list(previous)]

    @property
    def proxy_keys(self) -> list[str]:
        """Keys that are accepted from proxies; if there is none, no key is required."""
        return _with_previous(self.PROXY_KEY, self.PROXY_PREVIOUS_KEYS)

    @property
    def metrics_tokens(self) -> list[str]:
        """Tokens that `/metrics` accepts; if there is none, no token is required."""
        return _with_previous(self.METRICS_TOKEN, self.METRICS_PREVIOUS_TOKENS)

    @property
    def login_budget(self) -> tuple[int, timedelta]:
        """Failed logins that all unknown networks together may make, and the period of the limit."""
        limit = limits.parse(self.RATE_LOGIN_PER_ACCOUNT)
        return limit.amount, timedelta(seconds=limit.get_expiry())

    @property
    def trusted_proxies(self) -> list[str]:
        return split_list(self.TRUSTED_PROXIES)


def _with_previous(secret: SecretStr | None, previous: SecretStr | None) -> list[str]:
    return [secret.get_secret_value(), *split_list(previous)] if secret else []


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: A setting is missing or invalid. The message names all of them.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


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
