"""Figures, their limits, and their text output."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Row = dict[str, Any]


@dataclass(frozen=True)
class Limit:
    """A bound for the value of a figure."""

    kind: Literal["at least", "at most"]
    value: float

    def holds(self, value: float) -> bool:
        return value >= self.value if self.kind == "at least" else value <= self.value


@dataclass(frozen=True)
class Figure:
    """A measured value with its unit and an optional limit."""

    name: str
    value: float
    unit: str = ""
    limit: Limit | None = None

    @property
    def missed(self) -> bool:
        return self.limit is not None and not self.limit.holds(self.value)

    def as_json(self) -> Row:
        limit = f"{self.limit.kind} {self.limit.value:g}" if self.limit else None
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "limit": limit,
            "missed": self.missed,
        }


@dataclass
class Report:
    """The result of a part: every run as a row, and the figures computed from the rows.

    `columns` selects what the table shows of a run.
    """

    part: str
    how: str
    columns: Callable[[Row], Row]
    runs: list[Row] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def figure(self, name: str, value: float, unit: str = "", limit: Limit | None = None) -> None:
        self.figures.append(Figure(name, value, unit, limit))

    def as_text(self) -> str:
        runs = table([self.columns(run) for run in self.runs])
        return f"=== {self.part}: {self.how}\n\n{runs}\n\n{figure_table(self.figures)}\n"

    def as_json(self) -> Row:
        return {
            "part": self.part,
            "how": self.how,
            "runs": self.runs,
            "figures": [figure.as_json() for figure in self.figures],
        }


def at_least(value: float) -> Limit:
    return Limit("at least", value)


def at_most(value: float) -> Limit:
    return Limit("at most", value)


def median_of(rows: Iterable[Mapping[str, Any]], column: str, **selected: Any) -> float:
    """Return the median of a column over the rows with the wanted values."""
    matching = (row for row in rows if all(row[name] == value for name, value in selected.items()))
    return statistics.median(float(row[column]) for row in matching)


def ratio(value: float, other: float) -> float:
    """Return the quotient; infinity if the divisor is 0."""
    return value / other if other else float("inf")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format rows as a table with column names; numbers are right-aligned."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[format_value(row.get(column)) for column in columns] for row in rows]
    right = [any(isinstance(row.get(column), (int, float)) for row in rows) for column in columns]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [columns, *cells]
    ]
    return "\n".join(lines)


def figure_table(figures: Sequence[Figure]) -> str:
    return "\n".join(
        f"{figure.name:<58} {format_value(figure.value):>12} {figure.unit:<12}{_verdict(figure)}".rstrip()
        for figure in figures
    )


def _verdict(figure: Figure) -> str:
    if figure.limit is None:
        return ""
    verdict = "MISSED" if figure.missed else "ok"
    return f"{figure.limit.kind} {format_value(figure.limit.value)}   {verdict}"


_WITHOUT_DECIMALS = 100


def format_value(value: Any) -> str:
    """Format a value with a sensible number of decimals."""
    if value is None:
        return "-"
    if isinstance(value, float) and abs(value) < _WITHOUT_DECIMALS:
        return f"{value:.2f}"
    if isinstance(value, (int, float)):
        return f"{value:,.0f}"
    return str(value)
