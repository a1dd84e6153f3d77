"""The known tools, their arguments and permissions, and the checks of arguments."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from src.config import Settings
from src.models.permissions import Permission
from src.models.tools import (
    Arguments,
    CancelJob,
    CrawlWeb,
    GetJobStatus,
    HealthCheck,
    IngestDoc,
    LightragQuery,
    QdrantFind,
    QdrantStore,
)
from src.services.tools.errors import ArgumentsRefusedError
from src.services.tools.ssrf_guard import SsrfGuard
from src.utils.errors import FieldFault
from src.utils.hosts import TargetRefusedError
from src.utils.json_types import Json, JsonObject


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A known tool. `job_kind` is the kind of the jobs that it starts, None if it starts none."""

    name: str
    arguments: type[Arguments]
    permission: Permission
    job_kind: str | None = None

    @property
    def writes(self) -> bool:
        return self.permission is Permission.USE_WRITING_TOOLS


# Not every gateway has this tool.
CANCEL_JOB = "cancel_job"
_READS, _WRITES = Permission.USE_QUERY_TOOLS, Permission.USE_WRITING_TOOLS

CATALOGUE: Mapping[str, ToolDefinition] = {
    tool.name: tool
    for tool in (
        ToolDefinition("crawl_web", CrawlWeb, _WRITES, "crawl"),
        ToolDefinition("ingest_doc", IngestDoc, _WRITES, "ingest"),
        ToolDefinition("qdrant_find", QdrantFind, _READS),
        ToolDefinition("qdrant_store", QdrantStore, _WRITES),
        ToolDefinition("lightrag_query", LightragQuery, _READS),
        ToolDefinition("get_job_status", GetJobStatus, _READS),
        ToolDefinition(CANCEL_JOB, CancelJob, _WRITES),
        ToolDefinition("health_check", HealthCheck, _READS),
    )
}
JOB_KINDS: Mapping[str, str] = {
    tool.name: tool.job_kind for tool in CATALOGUE.values() if tool.job_kind is not None
}


def tool_permissions() -> Mapping[str, Permission]:
    """The permission that each tool requires in the workspace of the call."""
    return {name: kind.permission for name, kind in CATALOGUE.items()}


def parse_arguments(tool: ToolDefinition, arguments: Mapping[str, Json]) -> Arguments:
    """Validate the types and formats of arguments.

    Raises:
        ArgumentsRefusedError: An argument is invalid.
    """
    try:
        return tool.arguments.model_validate(dict(arguments))
    except ValidationError as error:
        raise ArgumentsRefusedError(*_errors_of(error)) from None


class ArgumentChecker:
    """Checks arguments against the configured limits before a call is sent."""

    def __init__(self, settings: Settings, ssrf_guard: SsrfGuard) -> None:
        self._ssrf_guard = ssrf_guard
        self._limits = {
            "max_pages": settings.TOOLS_MAX_PAGES,
            "max_depth": settings.TOOLS_MAX_DEPTH,
        }
        self._schemas = {tool.name: self._schema(tool) for tool in CATALOGUE.values()}

    def schema(self, tool: ToolDefinition) -> JsonObject:
        """The JSON Schema of a tool's arguments, with the configured limits."""
        return self._schemas[tool.name]

    def _schema(self, tool: ToolDefinition) -> JsonObject:
        schema = tool.arguments.model_json_schema()
        for name, maximum in self._limits.items():
            if name in schema.get("properties", {}):
                schema["properties"][name]["maximum"] = maximum
        return schema

    async def check(self, arguments: Arguments) -> JsonObject:
        """Check arguments and return them for sending.

        Arguments that the caller omitted are not sent, except the limits of a crawl.

        Raises:
            ArgumentsRefusedError: An argument exceeds a limit, or a host is not allowed.
        """
        values = arguments.model_dump(exclude_unset=True)
        for name, maximum in self._limits.items():
            if values.get(name, 0) > maximum:
                raise ArgumentsRefusedError(FieldFault(name, f"is more than {maximum}"))
        if isinstance(arguments, IngestDoc):
            # The tool does not know uploads, and gets the path of the file instead.
            values.pop("upload_id", None)
            values = {name: value for name, value in values.items() if value is not None}
        if isinstance(arguments, CrawlWeb):
            # Always sent, since the tool's own defaults may exceed the configured limits.
            for name, maximum in self._limits.items():
                values[name] = min(getattr(arguments, name), maximum)
            await self._check_targets(arguments)
        return values

    async def _check_targets(self, crawl: CrawlWeb) -> None:
        try:
            await self._ssrf_guard.check_url(crawl.url)
        except TargetRefusedError as error:
            raise ArgumentsRefusedError(FieldFault("url", str(error))) from None
        domains = crawl.allowed_domains or ()
        # Concurrently, since each may wait for a lookup.
        results = await asyncio.gather(
            *map(self._ssrf_guard.check_domain, domains), return_exceptions=True
        )
        for index, result in enumerate(results):
            if isinstance(result, TargetRefusedError):
                name = f"allowed_domains.{index}"
                raise ArgumentsRefusedError(FieldFault(name, str(result)))
            if isinstance(result, BaseException):
                raise result


def _errors_of(error: ValidationError) -> list[FieldFault]:
    return [
        FieldFault(".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, "))
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]
