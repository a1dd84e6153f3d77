"""The arguments and results of tools."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from src.models.page import Page
from src.utils.hosts import TargetRefusedError, canonical_host, canonical_url, is_visible
from src.utils.json_types import Json, JsonObject

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_OBJECT_MAX_BYTES = 16 * 1024
_OBJECT_MAX_DEPTH = 8
_FIELDS_MAX = 50
# Upper bounds. The configured limits are checked when a tool is called.
MAX_PAGES, MAX_DEPTH = 1_000_000, 1000


def _no_control_characters(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("has control characters; leave them out")
    return text


def _domain(text: str) -> str:
    domain = canonical_host(text)
    if not isinstance(domain, str):
        raise TargetRefusedError("is no domain name")
    return domain


def _path(text: str) -> str:
    if not is_visible(text):
        raise ValueError("has invisible characters, or spaces around it; leave them out")
    if _SCHEME.match(text):
        raise ValueError("is no path; write one that the tools' server knows")
    if ".." in text.replace("\\", "/").split("/"):
        raise ValueError("goes up with ..; write the path that is meant")
    return text


def _bounded(value: JsonObject) -> JsonObject:
    if _depth(value) > _OBJECT_MAX_DEPTH:
        raise ValueError(f"is nested deeper than {_OBJECT_MAX_DEPTH} levels")
    try:
        size = len(orjson.dumps(value))
    except orjson.JSONEncodeError:
        raise ValueError("holds what is no JSON") from None
    if size > _OBJECT_MAX_BYTES:
        raise ValueError(f"is larger than {_OBJECT_MAX_BYTES} bytes")
    return value


def _depth(value: Any) -> int:
    """The nesting depth of a value, at most one more than the limit."""
    depth, level = 0, [value]
    while depth <= _OBJECT_MAX_DEPTH:
        level = [child for child in level if isinstance(child, dict | list)]
        if not level:
            break
        depth += 1
        level = [child for child in level for child in _children(child)]
    return depth


def _children(value: JsonObject | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("is no number")
    return value


def _not_boolean(value: object) -> object:
    # Pydantic would convert a boolean to 0 or 1.
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - Pydantic reports only ValueError
    return value


_PRINTABLE = AfterValidator(_no_control_characters)
_NOT_BOOLEAN = BeforeValidator(_not_boolean)
_LINE = r"^[^\x00-\x1f\x7f]+$"

_UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"

Integer = Annotated[int, _NOT_BOOLEAN]
Question = Annotated[str, StringConstraints(min_length=1, max_length=4000), _PRINTABLE]
LongText = Annotated[str, StringConstraints(min_length=1, max_length=100_000), _PRINTABLE]
SingleLine = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_LINE)]
FilePath = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1024, pattern=_LINE),
    AfterValidator(_path),
]
Url = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2048),
    AfterValidator(canonical_url),
    Field(examples=["https://example.org/"], json_schema_extra={"format": "uri"}),
]
Domain = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253),
    AfterValidator(_domain),
    Field(examples=["example.org"], json_schema_extra={"format": "hostname"}),
]
UploadId = Annotated[str, StringConstraints(max_length=36, pattern=_UUID)]
ResourceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
BoundedObject = Annotated[JsonObject, AfterValidator(_bounded)]
RequestedWorkspace = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100, pattern=_LINE),
    Field(examples=["default"]),
]


class _KnownFields(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _limit_fields(cls, value: Any) -> Any:
        # Pydantic reports an error for each unknown field, and a body can hold 100,000.
        if isinstance(value, Mapping) and len(value) > _FIELDS_MAX:
            raise ValueError(f"has more than {_FIELDS_MAX} fields")
        return value


class Arguments(_KnownFields):
    """What a tool takes; the names are the tool's own."""

    model_config = ConfigDict(frozen=True)


class CrawlWeb(Arguments):
    url: Url = Field(description="Where to begin; http or https, a public host")
    max_pages: Integer = Field(default=10, ge=1, le=MAX_PAGES, description="How many pages at most")
    allowed_domains: list[Domain] | None = Field(
        default=None, min_length=1, max_length=50, description="Follow links only to these domains"
    )
    max_depth: Integer = Field(
        default=2, ge=0, le=MAX_DEPTH, description="How many links deep at most"
    )


class IngestDoc(Arguments):
    """Exactly one of `file_path` and `upload_id` is given."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [name], "properties": {name: {"type": "string", "maxLength": 1024}}}
                for name in ("file_path", "upload_id")
            ]
        }
    )

    file_path: FilePath | None = Field(
        default=None, description="The document, as the tools' server knows it"
    )
    upload_id: UploadId | None = Field(
        default=None,
        validate_default=True,
        description="In place of file_path: the id of a complete upload of one's own",
    )
    source_name: SingleLine | None = Field(default=None, description="The name to store it under")

    @field_validator("upload_id")
    @classmethod
    def _one_document(cls, upload_id: str | None, info: ValidationInfo) -> str | None:
        # An invalid file_path has an error of its own.
        if "file_path" in info.data and (info.data["file_path"] is None) is (upload_id is None):
            raise ValueError("or file_path has to be given, and not both")
        return upload_id


class QdrantFind(Arguments):
    query: Question = Field(description="What to look for")
    collection: ResourceName | None = None
    limit: Integer = Field(default=10, ge=1, le=100)
    score_threshold: Annotated[float, _NOT_BOOLEAN, AfterValidator(_finite)] = Field(
        default=0.0, ge=0, le=1
    )
    filter_conditions: BoundedObject | None = Field(
        default=None, description="As Qdrant takes them"
    )


class QdrantStore(Arguments):
    text: LongText = Field(description="What to store")
    metadata: BoundedObject | None = None
    collection: ResourceName | None = None
    point_id: ResourceName | None = Field(default=None, description="To replace what has this id")


class LightragQuery(Arguments):
    query: Question = Field(description="The question")
    mode: Literal["naive", "local", "global", "hybrid"] = "hybrid"
    only_need_context: bool = Field(default=False, description="The sources without an answer")


class GetJobStatus(Arguments):
    job_id: SingleLine


class CancelJob(Arguments):
    job_id: SingleLine


class HealthCheck(Arguments):
    pass


class _InWorkspace(BaseModel):
    workspace: RequestedWorkspace | None = Field(
        default=None, description="Where it belongs; the default workspace if left out"
    )

    def arguments(self) -> Mapping[str, Json]:
        return self.model_dump(exclude={"workspace"}, exclude_unset=True)


class CrawlRequest(CrawlWeb, _InWorkspace):
    pass


class IngestRequest(IngestDoc, _InWorkspace):
    pass


class QueryRequest(LightragQuery, _InWorkspace):
    pass


class ToolRequest(_KnownFields):
    """`arguments` are those that GET /api/tools names for the tool."""

    arguments: JsonObject = Field(default_factory=dict)
    workspace: RequestedWorkspace | None = None


class AcceptedJob(BaseModel):
    """A job that has been accepted: its details are at `job`, its stream is at `events`."""

    status: Literal["accepted"] = "accepted"
    id: str
    job_id: Annotated[str, Field(deprecated=True, description="As id")]
    workspace: str
    job: str
    events: str


class QueryAnswer(BaseModel):
    """`answer` is null where only the context was asked for."""

    answer: str | None
    context: list[Any]


class ToolAnswer(BaseModel):
    """What the tool has answered, as it is."""

    tool: str
    result: Any


class ToolInfo(BaseModel):
    """A tool that the caller may use; `input_schema` is the JSON schema of its arguments.

    `writes` tools change something; those with `starts_job` answer 202 with a job.
    """

    name: str
    title: str
    description: str
    writes: bool
    starts_job: bool
    input_schema: JsonObject


class ToolList(Page[ToolInfo]):
    pass
