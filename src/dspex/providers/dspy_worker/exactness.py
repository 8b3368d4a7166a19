"""Signatures from Python as documents that DSPy takes for the very same thing, or not at all."""

from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin

import dspy
from dspy.adapters import ChatAdapter, JSONAdapter
from pydantic import BaseModel

from dspex.kit.errors import Invalid
from dspex.providers.dspy_worker.modules import signature_class
from dspex.providers.dspy_worker.pythonic import signature_document, type_name
from dspex.providers.dspy_worker.references import resolve
from dspex.signatures.document import signature_from_document

_ADVICE = {list: "write list[Any]", dict: "write dict[str, Any]"}


def signature_of(reference: str) -> dict[str, Any]:
    """The document of a `dspy.Signature` class.

    Raises Invalid: not_a_signature, and bad_signature that names the field when one has no exact place in the published
    table of types, or when DSPy would ask a model something else.
    """
    found = resolve(reference)
    if not (isinstance(found, type) and issubclass(found, dspy.Signature)):
        raise Invalid(f"{reference!r} is no dspy.Signature class.", code="not_a_signature")
    document = signature_document(found)
    theirs: Any = found
    ours: Any = signature_class(signature_from_document(document))
    for name, field in theirs.fields.items():
        differs = _difference(field.annotation, ours.fields[name].annotation)
        if differs is not None:
            raise Invalid(
                f"The field {name!r}, {type_name(field.annotation)}, has no exact place in the table of types: "
                f"{differs}.",
                code="bad_signature",
            )
    for adapter in (ChatAdapter(), JSONAdapter()):
        if adapter.format_system_message(theirs) != adapter.format_system_message(ours):
            raise Invalid(
                f"{reference!r} says more than a signature document can, so that DSPy would write another prompt.",
                code="bad_signature",
            )
    return document


def _difference(theirs: Any, ours: Any) -> str | None:
    """Why one annotation is not the other; None where they are the same to DSPy."""
    if theirs == ours:
        return None
    if _is_model(theirs) and _is_model(ours):
        return _difference_of_models(theirs, ours)
    if isinstance(theirs, type) and issubclass(theirs, Enum):
        return "write its values as a Literal"
    if _origin(theirs) is not None and _origin(theirs) is _origin(ours):
        mine, others = get_args(theirs), get_args(ours)
        if len(mine) == len(others):
            return next((one for one in map(_difference, mine, others) if one is not None), None)
    return _ADVICE.get(theirs) or f"the nearest is {type_name(ours)}"


def _difference_of_models(theirs: type[BaseModel], ours: type[BaseModel]) -> str | None:
    name = theirs.__name__
    if theirs.model_config.get("extra", "ignore") != "ignore" or set(theirs.model_config) - {"extra"}:
        return f"{name} has a model_config of its own"
    decorators = theirs.__pydantic_decorators__
    if any(getattr(decorators, kind) for kind in decorators.__dataclass_fields__):
        return f"{name} has validators, serializers or computed fields of its own"
    if theirs.model_fields.keys() != ours.model_fields.keys():
        return f"{name} has other members"
    for member, field in theirs.model_fields.items():
        differs = _difference(field.annotation, ours.model_fields[member].annotation)
        if differs is not None:
            return f"{name}.{member}: {differs}"
    return (
        None
        if theirs.model_json_schema() == ours.model_json_schema()
        else f"{name} can't be made anew exactly"
    )


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _origin(annotation: Any) -> Any:
    origin = get_origin(annotation)
    return Union if origin is UnionType else origin
