"""Records as documents."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def asdict(record: "Struct | DataclassInstance") -> dict[str, Any]:
    """The fields by name; records within it, its tuples, lists and mappings too. Other values stay what they are."""
    # Not msgspec's `fields`, which reads the annotations anew each time.
    names = (
        record.__struct_fields__
        if isinstance(record, Struct)
        else (f.name for f in dataclasses.fields(record))
    )
    return {name: _plain(getattr(record, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, tuple):
        return tuple(_plain(one) for one in value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    is_record = isinstance(value, Struct) or dataclasses.is_dataclass(value)
    return asdict(value) if is_record else value
