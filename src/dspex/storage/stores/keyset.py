"""The condition of a keyset page, apart from `paging`: it needs SQLAlchemy."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa


def past(columns: Sequence[sa.ColumnElement[Any]], values: Sequence[Any], *, descending: bool) -> Any:
    """Rows behind the given position, where every column is ordered the same way."""
    left = sa.tuple_(*columns)
    right = sa.tuple_(
        *(sa.literal(value, column.type) for column, value in zip(columns, values, strict=True))
    )
    return left < right if descending else left > right
