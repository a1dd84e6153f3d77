"""The seven tools: what they take, who may use them, what they do."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from src.config import Settings
from src.models.permissions import Permission
from src.models.tools import (
    Arguments,
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


@dataclass(frozen=True, slots=True)
class ToolKind:
    """A tool that we know. `job_kind` is the kind of the jobs that it starts, if it does."""

    name: str
    arguments: type[Arguments]
    permission: Permission
    job_kind: str | None = None

    @property
    def writes(self) -> bool:
        return self.permission is Permission.USE_WRITING_TOOLS


_READS, _WRITES = Permission.USE_QUERY_TOOLS, Permission.USE_WRITING_TOOLS

CATALOGUE: Mapping[str, ToolKind] = {
    tool.name: tool
    for tool in (
        ToolKind("crawl_web", CrawlWeb, _WRITES, "crawl"),
        ToolKind("ingest_doc", IngestDoc, _WRITES, "ingest"),
        ToolKind("qdrant_find", QdrantFind, _READS),
        ToolKind("qdrant_store", QdrantStore, _WRITES),
        ToolKind("lightrag_query", LightragQuery, _READS),
        ToolKind("get_job_status", GetJobStatus, _READS),
        ToolKind("health_check", HealthCheck, _READS),
    )
}
JOB_KINDS: Mapping[str, str] = {
    tool.name: tool.job_kind for tool in CATALOGUE.values() if tool.job_kind is not None
}


def tool_permissions() -> Mapping[str, Permission]:
    """The permission that each tool needs in the workspace where it is called."""
    return {name: kind.permission for name, kind in CATALOGUE.items()}


def read_arguments(tool: ToolKind, arguments: Mapping[str, Any]) -> Arguments:
    """The arguments, as far as they can be judged by themselves. Raises ArgumentsRefusedError."""
    try:
        return tool.arguments.model_validate(dict(arguments))
    except ValidationError as error:
        raise ArgumentsRefusedError(*_errors_of(error)) from None


class ArgumentCheck:
    """Holds arguments against the limits of this installation, before anything leaves."""

    def __init__(self, settings: Settings, addresses: SsrfGuard) -> None:
        self._addresses = addresses
        self._maximum = {
            "max_pages": settings.TOOLS_MAX_PAGES,
            "max_depth": settings.TOOLS_MAX_DEPTH,
        }
        self._schemas = {tool.name: self._schema(tool) for tool in CATALOGUE.values()}

    def schema(self, tool: ToolKind) -> dict[str, Any]:
        """The JSON schema of a tool's arguments, with the limits of this installation."""
        return self._schemas[tool.name]

    def _schema(self, tool: ToolKind) -> dict[str, Any]:
        schema = tool.arguments.model_json_schema()
        for name, maximum in self._maximum.items():
            if name in schema.get("properties", {}):
                schema["properties"][name]["maximum"] = maximum
        return schema

    async def check(self, arguments: Arguments) -> dict[str, Any]:
        """The arguments as they may be sent; what was left out stays so.

        Raises ArgumentsRefusedError.
        """
        given = arguments.model_dump(exclude_unset=True)
        for name, maximum in self._maximum.items():
            if given.get(name, 0) > maximum:
                raise ArgumentsRefusedError(FieldFault(name, f"is more than {maximum}"))
        if isinstance(arguments, CrawlWeb):
            # Said even where they are left out: the tool's own defaults may be above our limits.
            for name, maximum in self._maximum.items():
                given[name] = min(getattr(arguments, name), maximum)
            await self._check_targets(arguments)
        return given

    async def _check_targets(self, crawl: CrawlWeb) -> None:
        try:
            await self._addresses.check_url(crawl.url)
        except TargetRefusedError as error:
            raise ArgumentsRefusedError(FieldFault("url", str(error))) from None
        domains = crawl.allowed_domains or ()
        # All at once: each may take as long as a look-up.
        verdicts = await asyncio.gather(
            *map(self._addresses.check_domain, domains), return_exceptions=True
        )
        for number, verdict in enumerate(verdicts):
            if isinstance(verdict, TargetRefusedError):
                name = f"allowed_domains.{number}"
                raise ArgumentsRefusedError(FieldFault(name, str(verdict)))
            if isinstance(verdict, BaseException):
                raise verdict


def _errors_of(error: ValidationError) -> list[FieldFault]:
    return [
        FieldFault(".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, "))
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]
