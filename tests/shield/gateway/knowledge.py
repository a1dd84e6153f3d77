"""The knowledge base of the simulated tools: texts in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Mapping

COLLECTION: Final = "shield_knowledge"
TEXTS: Final = (
    "Pending entries of a consumer group are reclaimed with XAUTOCLAIM.",
    "The vector database runs on hx-vectordb-server, on port 6333.",
    "Backups are kept for thirty days, the monthly ones for a year.",
)


@dataclass(frozen=True, slots=True)
class Point:
    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    collection: str = COLLECTION


def _words(text: str) -> set[str]:
    return {word.strip(".,?!:;").lower() for word in text.split()}


def _score(query: str, text: str) -> float:
    """Return the share of the query's words that occur in the text."""
    query_words = _words(query)
    return round(len(query_words & _words(text)) / len(query_words), 4) if query_words else 0.0


class Knowledge:
    """Stores points by id."""

    def __init__(self) -> None:
        self.points = {point.id: point for point in (Point(str(uuid4()), text) for text in TEXTS)}

    def store(
        self,
        text: str,
        metadata: Mapping[str, Any] | None,
        collection: str | None,
        point_id: str | None,
    ) -> Point:
        point = Point(point_id or str(uuid4()), text, metadata or {}, collection or COLLECTION)
        self.points[point.id] = point
        return point

    def find(
        self,
        query: str,
        collection: str | None = None,
        limit: int = 10,
        score_threshold: float = 0.0,
        filter_conditions: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the best matches, best first."""
        conditions = (filter_conditions or {}).items()
        matches: list[dict[str, Any]] = [
            {"id": p.id, "score": _score(query, p.text), "text": p.text, "metadata": p.metadata}
            for p in self.points.values()
            if p.collection == (collection or COLLECTION) and conditions <= p.metadata.items()
        ]
        found = [match for match in matches if 0 < match["score"] >= score_threshold]
        return sorted(found, key=lambda match: -match["score"])[:limit]
