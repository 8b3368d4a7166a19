"""Strict, lossless validation of one type: the rules, as pydantic-core schemas.

Strict: True is not 1, "yes" is not true, "3" is not 3. Lossless: 1 becomes 1.0 where a float is wanted, 3.0
becomes 3 where an int is, and ISO 8601 text becomes a date or a datetime. NaN and infinities are refused.
"""

import datetime
import math
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticCustomError, SchemaError, SchemaValidator, ValidationError
from pydantic_core import core_schema as cs

from dspex.signatures.annotations import Models
from dspex.signatures.problems import kind_of, problems_of
from dspex.signatures.type_strings import type_to_string
from dspex.signatures.types import (
    BOOL,
    FLOAT,
    INT,
    NONE,
    STR,
    Constraint,
    DictOf,
    Embedding,
    FieldType,
    ListOf,
    LiteralOf,
    ObjectOf,
    Probability,
    ReasoningChain,
    Scalar,
    UnionOf,
)
from dspex.signatures.values import to_json

EXACT = 2**53
# Of an untyped value: JSON encoders give up somewhere behind this.
MAX_DEPTH = 100
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_DATETIME = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?([Zz]|[+-]\d{2}:\d{2})?", re.ASCII
)


def strict_schema(
    field_type: FieldType, constraints: Mapping[str, Constraint], models: Models
) -> cs.CoreSchema:
    """Validates a JSON value, or an already typed one, into the typed Python value."""
    match field_type:
        case Scalar("int"):
            return cs.no_info_before_validator_function(
                _whole, cs.int_schema(strict=True, **_only(constraints))
            )
        case UnionOf(options):
            return _union(options, constraints, models)
        case LiteralOf(values):
            return _literal(values)
        case ObjectOf():
            return _object(field_type, models)
        case ListOf(item):
            return cs.list_schema(strict_schema(item, {}, models), strict=True, **_only(constraints))
        case DictOf(value):
            return cs.dict_schema(
                cs.str_schema(strict=True),
                strict_schema(value, {}, models),
                strict=True,
                **_only(constraints),
            )
        case Embedding(dimensions):
            exact = {} if dimensions is None else {"min_length": dimensions, "max_length": dimensions}
            return cs.list_schema(_float({}), strict=True, **_only({**constraints, **exact}))
        case Probability():
            # One bound of each side is enough for pydantic-core, whichever is narrower holds.
            return cs.chain_schema([_float({"ge": 0, "le": 1}), _float(constraints)])
        case ReasoningChain():
            return cs.list_schema(cs.str_schema(strict=True), strict=True, **_only(constraints))
        case Scalar(name):
            return _scalar(name, constraints)


def _only(constraints: Mapping[str, Constraint]) -> dict[str, Any]:
    return dict(constraints)


def _scalar(name: str, constraints: Mapping[str, Constraint]) -> cs.CoreSchema:
    match name:
        case "str":
            return cs.str_schema(strict=True, **_only(constraints))
        case "float":
            return _float(constraints)
        case "bool":
            return cs.bool_schema(strict=True)
        case "date":
            return cs.no_info_plain_validator_function(_date)
        case "datetime":
            return cs.no_info_plain_validator_function(_datetime)
        case "none":
            return cs.none_schema()
        case _:
            return cs.no_info_plain_validator_function(_json_value)


def _float(constraints: Mapping[str, Constraint]) -> cs.CoreSchema:
    return cs.no_info_before_validator_function(
        _exact, cs.float_schema(strict=True, allow_inf_nan=False, **_only(constraints))
    )


def _exact(value: Any) -> Any:
    if type(value) is int and not -EXACT <= value <= EXACT:
        raise PydanticCustomError(
            "out_of_range", "must lie between -2**53 and 2**53 when written without a point"
        )
    return value


def _whole(value: Any) -> Any:
    if type(value) is float and value.is_integer() and -EXACT <= value <= EXACT:
        return int(value)
    return value


def _date(value: Any) -> datetime.date:
    if type(value) is datetime.date:
        return value
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return datetime.date.fromisoformat(value)
        except ValueError:
            pass
    raise PydanticCustomError("wrong_type", "must be a date such as '2024-05-31', not {given}", _given(value))


def _datetime(value: Any) -> datetime.datetime:
    if isinstance(value, datetime.datetime):
        return value
    if isinstance(value, str) and _DATETIME.fullmatch(value):
        try:
            return datetime.datetime.fromisoformat(value.upper())
        except ValueError:
            pass
    raise PydanticCustomError(
        "wrong_type", "must be a datetime such as '2024-05-31T09:30:00Z', not {given}", _given(value)
    )


def _given(value: Any) -> dict[str, str]:
    text = repr(value) if isinstance(value, str) and len(value) <= 40 else kind_of(value)
    return {"given": text}


def _json_value(value: Any) -> Any:
    """Any JSON value, unchanged."""
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise PydanticCustomError("too_deep", f"must not be more than {MAX_DEPTH} levels deep")
        below: list[Any] = []
        for one in level:
            if isinstance(one, float) and not math.isfinite(one):
                raise PydanticCustomError(
                    "out_of_range", "must not hold NaN or an infinity, which JSON does not have"
                )
            if isinstance(one, list):
                below.extend(one)
            elif isinstance(one, dict) and all(isinstance(key, str) for key in one):
                below.extend(one.values())
            elif one is not None and not isinstance(one, str | int | float):
                raise PydanticCustomError("wrong_type", "must be a JSON value, not {given}", _given(one))
        level, depth = below, depth + 1
    return value


def _union(
    options: tuple[FieldType, ...], constraints: Mapping[str, Constraint], models: Models
) -> cs.CoreSchema:
    others = [option for option in options if option != NONE]
    if len(others) == 1:
        # One problem for each bad spot inside, instead of one for the whole.
        return cs.nullable_schema(strict_schema(others[0], constraints, models))
    # The first option that fits wins. Text stays text, and a whole number an int, where that is an option.
    others.sort(key=lambda option: option not in (STR, INT, BOOL))
    choices = [
        cs.int_schema(strict=True, **_only(constraints))
        if option == INT and FLOAT in others
        else strict_schema(option, constraints, models)
        for option in others
    ]
    spelled = " | ".join(type_to_string(option) for option in options).replace("{", "{{").replace("}", "}}")
    united = cs.union_schema(
        list(choices),
        mode="left_to_right",
        custom_error_type="wrong_type",
        custom_error_message=f"must be one of these types, within their limits: {spelled}",
    )
    return cs.nullable_schema(united) if NONE in options else united


def _literal(values: tuple[str | int | bool, ...]) -> cs.CoreSchema:
    allowed = {(type(value), value) for value in values}
    spelled = ", ".join(map(repr, values))

    def check(value: Any) -> Any:
        try:
            if (type(value), value) in allowed:
                return value
        except TypeError:
            pass  # unhashable, so none of them
        raise PydanticCustomError(
            "not_allowed",
            "must be one of {allowed}, not {given}",
            {"allowed": spelled, **_given_value(value)},
        )

    return cs.no_info_plain_validator_function(check)


def _given_value(value: Any) -> dict[str, str]:
    return {"given": repr(value)} if isinstance(value, int) else _given(value)


def _object(shape: ObjectOf, models: Models) -> cs.CoreSchema:
    model = models.model_of(shape)
    members: dict[str, cs.TypedDictField] = {}
    for member in shape.fields:
        schema = strict_schema(member.value_type, dict(member.constraints), models)
        if not member.required:
            schema = cs.with_default_schema(
                schema,
                default_factory=_copies_of(member.default),
                validate_default=member.default is not None,
            )
        members[member.name] = cs.typed_dict_field(schema)

    def members_of(value: Any) -> Any:
        return (
            value.__dict__ if isinstance(value, BaseModel) and type(value).__name__ == shape.name else value
        )

    def make(values: dict[str, Any]) -> BaseModel:
        return model.model_construct(**values)

    # Not `model_schema`: pydantic-core would use the lax validator that the model class brings along.
    return cs.no_info_before_validator_function(
        members_of,
        cs.no_info_after_validator_function(
            make, cs.typed_dict_schema(members, strict=True, extra_behavior="ignore")
        ),
    )


def _copies_of(default: Any) -> Callable[[], Any]:
    return lambda: deepcopy(default)


def check_default(field_type: FieldType, constraints: Mapping[str, Constraint], value: Any) -> Any:
    """The default as JSON in its one spelling (1 for a float is 1.0). Raises ValueError when it does not fit.

    A constraint that pydantic-core can't take (a regular expression with look-around) is one too.
    """
    try:
        validator = SchemaValidator(strict_schema(field_type, constraints, Models()))
    except SchemaError as error:
        raise ValueError(str(error).splitlines()[-1].strip()) from None
    try:
        return to_json(validator.validate_python(value))
    except ValidationError as error:
        problem = problems_of(error, "")[0]
        raise ValueError(
            f"{problem.pointer}: {problem.message}" if problem.pointer else problem.message
        ) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
