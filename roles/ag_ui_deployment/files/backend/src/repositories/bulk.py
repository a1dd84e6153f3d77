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
    arrays = (
        bindparam(table_column.name, type_=ARRAY(_parameter_type(table_column.type), dimensions=1))
        for table_column in columns
    )
    new = (
        func.unnest(*arrays)
        .table_valued(
            *(
                column(table_column.name, _parameter_type(table_column.type))
                for table_column in columns
            ),
            with_ordinality=_NUMBER,
        )
        .render_derived(name="new")
    )
    values = (
        Cast(new.c[table_column.name], table_column.type)
        if isinstance(table_column.type, JSON)
        else new.c[table_column.name]
        for table_column in columns
    )
    key = [
        new.c[table_column.name] for table_column in table.primary_key if table_column.name in names
    ]
    return insert(table).from_select(names, select(*values).order_by(*(key or [new.c[_NUMBER]])))


def arrays(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    """Transpose rows into the parameters of `insert_arrays`."""
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _parameter_type(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    return Text() if isinstance(kind, JSON) else kind
