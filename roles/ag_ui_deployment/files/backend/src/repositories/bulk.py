"""Bulk INSERT with one array parameter per column, so that the statement never changes."""

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import Cast, Table, Text, bindparam, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY, JSON, Insert, insert
from sqlalchemy.types import TypeEngine

from src.utils.database import Base

_NUMBER = "number_of_row"


def insert_arrays(mapped: type[Base], names: Sequence[str]) -> Insert:
    """Build an INSERT whose parameters are lists of column values.

    Rows are inserted in the order of their primary key, so that concurrent statements with common
    rows cannot deadlock. If the table generates the key, rows keep the order of the lists.

    Args:
        mapped: The table.
        names: The columns, which are also the names of the parameters. JSON columns take text.
    """
    table = cast("Table", mapped.__table__)
    columns = [table.c[name] for name in names]
    arrays = (bindparam(one.name, type_=ARRAY(_sent(one.type), dimensions=1)) for one in columns)
    new = (
        func.unnest(*arrays)
        .table_valued(
            *(column(one.name, _sent(one.type)) for one in columns), with_ordinality=_NUMBER
        )
        .render_derived(name="new")
    )
    values = (
        Cast(new.c[one.name], one.type) if isinstance(one.type, JSON) else new.c[one.name]
        for one in columns
    )
    key = [new.c[one.name] for one in table.primary_key if one.name in names]
    return insert(table).from_select(names, select(*values).order_by(*(key or [new.c[_NUMBER]])))


def arrays(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    """Transpose rows into the parameters of `insert_arrays`."""
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _sent(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    return Text() if isinstance(kind, JSON) else kind
