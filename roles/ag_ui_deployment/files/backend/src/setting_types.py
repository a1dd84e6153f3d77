"""Types of settings. Each checks a value, and its error message says what to write instead.

The URLs are not of Pydantic's URL types, which rewrite them: they add a port and a path, and encode
the password again.
"""

import re
import ssl
from collections.abc import Collection
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import SplitResult, parse_qsl, urlsplit

import limits
import orjson
from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BeforeValidator,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
)
from pydantic_settings import NoDecode

_PLACEHOLDERS = frozenset({"change-me-in-production", "changeme", "secret"})
_KEY_MIN_BYTES = 32
_MAKE_ONE = "make one with: openssl rand -base64 48"
# Valid both as a bearer token (RFC 6750) and inside a quoted string in the nginx configuration.
_HEADER_SECRET = re.compile(rf"[\w.~+/=-]{{{_KEY_MIN_BYTES},}}", re.ASCII)
_ASYNC_DRIVER = "postgresql+asyncpg"
# The names that libpq uses.
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# An IPv6 address in brackets is none.
_JSON_LIST = re.compile(r'\s*\[\s*["\]]')
_ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}", re.ASCII)
# What UPLOADS_TYPES may name; services/uploads/document_types.py finds them by their content.
DOCUMENT_TYPES = (
    *("pdf", "docx", "xlsx", "pptx", "odt", "ods", "odp", "epub", "rtf"),
    *("html", "xml", "markdown", "csv", "json", "text"),
)
_DIRECTORY = re.compile(r"(/[A-Za-z0-9._-]+)+", re.ASCII)
# By the rules of Amazon for names of buckets.
_S3_TARGET = re.compile(
    r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_-][A-Za-z0-9._-]*)*", re.ASCII
)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_http_url: TypeAdapter[AnyHttpUrl] = TypeAdapter(AnyHttpUrl)


def split_list(value: SecretStr | str | None) -> list[str]:
    """Split a comma-separated list; empty items are omitted."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value or ""
    return [item.strip() for item in text.split(",") if item.strip()]


def _require_key(key: str) -> None:
    if key in _PLACEHOLDERS or len(key.encode()) < _KEY_MIN_BYTES:
        raise ValueError(f"needs at least {_KEY_MIN_BYTES} random bytes; {_MAKE_ONE}")


def _check_key(value: SecretStr) -> SecretStr:
    _require_key(value.get_secret_value())
    return value


def _check_keys(value: SecretStr | None) -> SecretStr | None:
    for key in split_list(value):
        _require_key(key)
    return value


def _empty_to_none(value: SecretStr | None) -> SecretStr | None:
    return value or None


def _check_header_secret(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not _HEADER_SECRET.fullmatch(value.get_secret_value()):
        raise ValueError(
            f"needs at least {_KEY_MIN_BYTES} characters, letters, digits and - . _ ~ + / =; "
            f"{_MAKE_ONE}"
        )
    return value


def _check_header_secrets(value: SecretStr | None) -> SecretStr | None:
    for secret in split_list(value):
        _check_header_secret(SecretStr(secret))
    return value


def _split_url(value: SecretStr, schemes: Collection[str], example: str) -> SplitResult:
    try:
        parts = urlsplit(value.get_secret_value())
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"is no usable address; write {example} (URL-encode the password)")
    return parts


def _check_redis_url(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    if "," in parts.netloc.rpartition("@")[2] or "sentinel" in parts.scheme:
        raise ValueError(
            "names several servers; write the Sentinels into REDIS_SENTINELS, and here one "
            "address (Redis Cluster is not supported)"
        )
    parts = _split_url(value, {"redis", "rediss"}, "redis://[user:password@]host:6379/0")
    if parts.query or parts.fragment:
        raise ValueError("ends after the number of the database; REDIS_CA has the authorities")
    return value


def _check_database_url(value: SecretStr) -> SecretStr:
    """Add the driver to the scheme, since SQLAlchemy's async engine requires it in the URL."""
    schemes = {"postgresql", "postgres", _ASYNC_DRIVER}
    parts = _split_url(value, schemes, "postgresql://user:password@host:5432/name")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if query.pop("sslmode", "prefer") not in _SSL_MODES:
        raise ValueError(f"has a wrong sslmode; write one of {', '.join(_SSL_MODES)}")
    if query:
        raise ValueError("has a parameter that is not sslmode; DATABASE_CA has the authorities")
    _, rest = value.get_secret_value().split("://", 1)
    return SecretStr(f"{_ASYNC_DRIVER}://{rest}")


def _check_smtp_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        schemes = {"smtp", "smtp+starttls", "smtps"}
        parts = _split_url(value, schemes, "smtp+starttls://user:password@host:587")
        if parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError("ends after host and port (URL-encode the password)")
        if parts.scheme == "smtp" and parts.password and parts.hostname not in _LOOPBACK:
            raise ValueError("would send the password in clear: write smtp+starttls:// or smtps://")
    return value


def _check_service_url(value: str) -> str:
    try:
        _http_url.validate_python(value)
    except ValidationError:
        raise ValueError("is no address; write http://host:port") from None
    return value.rstrip("/")


def _check_site_url(value: str) -> str:
    parts = urlsplit(value)
    plain = not (parts.query or parts.fragment or parts.username)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not plain:
        raise ValueError("is no address of a site; write https://host[:port][/path]")
    return value.rstrip("/")


def _split_items(value: object) -> object:
    if not isinstance(value, str):
        return value
    if _JSON_LIST.match(value):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"is no JSON list ({error}); separate the items by commas") from None
    return split_list(value)


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Split `host:port`; an IPv6 address is in brackets."""
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]"), int(port)


def _check_endpoints(endpoints: list[str]) -> list[str]:
    for endpoint in endpoints:
        if not _ENDPOINT.fullmatch(endpoint) or not 0 < split_endpoint(endpoint)[1] < 2**16:
            raise ValueError(f"{endpoint!r} is no address with a port; write host:port,host:port")
    return endpoints


def _check_origins(origins: list[str]) -> list[str]:
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path:
            raise ValueError(f"{origin!r} is no origin; write scheme://host[:port]")
    return origins


def _check_networks(value: str) -> str:
    for item in split_list(value):
        try:
            ip_network(item)
        except ValueError:
            raise ValueError(
                f"{item!r} is no address; write addresses or networks, separated by commas"
            ) from None
    return value


def _check_directory(value: str) -> str:
    if value and (not _DIRECTORY.fullmatch(value) or ".." in value.split("/")):
        raise ValueError(
            "is no absolute path; write one without spaces and .. such as /srv/uploads"
        )
    return value


def _check_s3_target(value: str) -> str:
    value = value.rstrip("/")
    if value and not _S3_TARGET.fullmatch(value):
        raise ValueError("is no address of a bucket; write s3://bucket or s3://bucket/prefix")
    return value


def _check_document_types(types: list[str]) -> list[str]:
    for type_ in types:
        if type_ not in DOCUMENT_TYPES:
            raise ValueError(f"{type_!r} is unknown; write some of {', '.join(DOCUMENT_TYPES)}")
    return types


def _check_ca_file(value: str) -> str:
    if value:
        try:
            ssl.create_default_context(cafile=value)
        except (OSError, ValueError):
            raise ValueError("is no readable file of certificates in PEM form") from None
    return value


def _check_ca_certificates(value: str) -> str:
    if value:
        try:
            ssl.create_default_context(cadata=value)
        except (ssl.SSLError, TypeError, ValueError):
            raise ValueError("holds no certificates in PEM form") from None
    return value


def _check_rate_limits(value: str) -> str:
    try:
        usable = all(limit.amount > 0 for limit in limits.parse_many(value))
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(
            "is no limit; write a number per time: 10/minute, or several: 10/minute;100/hour"
        )
    return value


def _check_single(value: str) -> str:
    if len(limits.parse_many(value)) > 1:
        raise ValueError("takes one limit only, such as 50/day")
    return value


NonEmptyStr = Annotated[str, Field(min_length=1)]

Key = Annotated[SecretStr, AfterValidator(_check_key)]
# A comma-separated list of keys; may be empty.
Keys = Annotated[SecretStr | None, AfterValidator(_check_keys)]
HeaderSecret = Annotated[
    SecretStr | None, AfterValidator(_empty_to_none), AfterValidator(_check_header_secret)
]
# A comma-separated list of them; may be empty.
HeaderSecrets = Annotated[SecretStr | None, AfterValidator(_check_header_secrets)]

RedisUrl = Annotated[SecretStr, AfterValidator(_check_redis_url)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_check_database_url)]
SmtpUrl = Annotated[
    SecretStr | None, AfterValidator(_empty_to_none), AfterValidator(_check_smtp_url)
]
# Without a slash at the end.
ServiceUrl = Annotated[str, AfterValidator(_check_service_url)]
# The same, without a query.
SiteUrl = Annotated[str, AfterValidator(_check_site_url)]
# May be empty.
OptionalSiteUrl = Annotated[str, AfterValidator(lambda value: value and _check_site_url(value))]
# A JSON list or a comma-separated list.
Origins = Annotated[
    list[str], NoDecode, BeforeValidator(_split_items), AfterValidator(_check_origins)
]
# The same: host:port.
Endpoints = Annotated[
    list[str], NoDecode, BeforeValidator(_split_items), AfterValidator(_check_endpoints)
]

# A comma-separated list of IP addresses and networks.
Networks = Annotated[str, AfterValidator(_check_networks)]
# Absolute; may be empty.
Directory = Annotated[str, AfterValidator(_check_directory)]
# Without a slash at the end; may be empty.
S3Target = Annotated[str, AfterValidator(_check_s3_target)]
# A JSON list or a comma-separated list.
DocumentTypes = Annotated[
    list[str],
    NoDecode,
    BeforeValidator(_split_items),
    AfterValidator(_check_document_types),
    Field(min_length=1),
]
# PEM, as a path and as the content; may be empty.
CaFile = Annotated[str, AfterValidator(_check_ca_file)]
CaCertificates = Annotated[str, AfterValidator(_check_ca_certificates)]

# Such as 10/minute, or 10/minute;100/hour.
RateLimits = Annotated[str, AfterValidator(_check_rate_limits)]
RateLimit = Annotated[RateLimits, AfterValidator(_check_single)]
