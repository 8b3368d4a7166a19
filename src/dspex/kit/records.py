"""Records as documents."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import fields

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def asdict(record: "Struct | DataclassInstance") -> dict[str, Any]:
    """The fields by name; records within it, its tuples, lists and mappings too. Other values stay what they are."""
    names = dataclasses.fields(record) if dataclasses.is_dataclass(record) else fields(record)
    return {one.name: _plain(getattr(record, one.name)) for one in names}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, tuple):
        return tuple(_plain(one) for one in value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    is_record = isinstance(value, Struct) or dataclasses.is_dataclass(value)
    return asdict(value) if is_record else value
