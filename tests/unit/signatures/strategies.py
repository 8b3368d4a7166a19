"""Hypothesis strategies for types, JSON values of them, and whole signatures."""

import keyword
import zlib
from typing import Any

from hypothesis import strategies as st

from dspex.signatures.constraints import in_order
from dspex.signatures.names import name_problem
from dspex.signatures.records import UNSET, Field, Signature
from dspex.signatures.strict import check_default
from dspex.signatures.types import (
    ANY,
    BOOL,
    DATE,
    DATETIME,
    FLOAT,
    INT,
    NONE,
    STR,
    DictOf,
    Embedding,
    FieldType,
    ListOf,
    LiteralOf,
    ObjectField,
    ObjectOf,
    Probability,
    ReasoningChain,
    Scalar,
    UnionOf,
    parts_of,
    union_of,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.from_regex(r"[a-zé][a-zé0-9_]{0,6}", fullmatch=True).filter(
    lambda name: name_problem(name, "input") is None and not keyword.iskeyword(name)
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
_LITERALS = st.lists(
    TEXT | st.integers() | st.booleans(), min_size=1, max_size=3, unique_by=lambda value: (type(value), value)
)
_LEAVES: st.SearchStrategy[FieldType] = st.one_of(
    st.sampled_from([STR, INT, FLOAT, BOOL, ANY, DATE, DATETIME, ReasoningChain(), Embedding()]),
    st.sampled_from([Probability("probability"), Probability("confidence_score"), Embedding(2)]),
    _LITERALS.map(lambda values: LiteralOf(tuple(values))),
)


def types(*, objects: bool = True) -> st.SearchStrategy[FieldType]:
    def deeper(inner: st.SearchStrategy[FieldType]) -> st.SearchStrategy[FieldType]:
        options = st.lists(inner | st.just(NONE), min_size=2, max_size=3).map(union_of)
        made = [inner.map(ListOf), inner.map(DictOf), options]
        return st.one_of(*made, _objects(inner)) if objects else st.one_of(*made)

    return st.recursive(_LEAVES, deeper, max_leaves=4)


def _objects(inner: st.SearchStrategy[FieldType]) -> st.SearchStrategy[FieldType]:
    @st.composite
    def build(draw: st.DrawFn) -> ObjectOf:
        names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
        members = []
        for name in names:
            member_type = draw(inner)
            required = draw(st.booleans())
            default = None
            if not required and draw(st.booleans()):
                default = check_default(member_type, {}, draw(values_of(member_type)))
            members.append(ObjectField(name, member_type, required, default, draw(st.none() | TEXT)))
        # A title stands for one shape; the shape's own text makes it unique.
        description = draw(st.none() | TEXT)
        title = f"Object{zlib.crc32(repr((members, description)).encode())}"
        return ObjectOf(title, tuple(members), description)

    return build()


def values_of(field_type: FieldType) -> st.SearchStrategy[Any]:
    """JSON values that the type takes."""
    match field_type:
        case Scalar(name):
            return _SCALARS[name]
        case ListOf(item):
            return st.lists(values_of(item), max_size=2)
        case DictOf(value):
            return st.dictionaries(TEXT, values_of(value), max_size=2)
        case UnionOf(options):
            return st.one_of(*(values_of(option) for option in options))
        case LiteralOf(values):
            return st.sampled_from(values)
        case ObjectOf(fields=members):
            required = {one.name: values_of(one.type) for one in members if one.required}
            optional = {one.name: values_of(one.type) for one in members if not one.required}
            return st.fixed_dictionaries(required, optional=optional)
        case Embedding(dimensions):
            return st.lists(FINITE, min_size=dimensions or 0, max_size=dimensions or 3)
        case Probability():
            return st.floats(0, 1) | st.sampled_from([0, 1])
        case ReasoningChain():
            return st.lists(TEXT, max_size=2)


_SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "str": TEXT,
    "int": st.integers(),
    "float": FINITE | st.integers(-(2**53), 2**53),
    "bool": st.booleans(),
    "none": st.none(),
    "any": st.recursive(
        st.none() | st.booleans() | st.integers() | FINITE | TEXT,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
        max_leaves=3,
    ),
    "date": st.dates().map(lambda one: one.isoformat()),
    "datetime": st.datetimes().map(lambda one: one.isoformat()),
}


@st.composite
def fields(draw: st.DrawFn, name: str, *, objects: bool) -> Field:
    field_type = draw(types(objects=objects))
    constraints: dict[str, Any] = {}
    if field_type == STR and draw(st.booleans()):
        constraints = {"min_length": 0, "pattern": draw(st.sampled_from(["", "^.*$"]))}
    elif field_type == FLOAT and draw(st.booleans()):
        constraints = {"ge": -(2**53)}
    default: Any = UNSET
    if not constraints and draw(st.booleans()):
        default = check_default(field_type, {}, draw(values_of(field_type)))
    typed = field_type != STR or draw(st.booleans())
    return Field(name, field_type, draw(st.none() | TEXT), default, in_order(constraints), typed)


@st.composite
def signatures(draw: st.DrawFn, *, objects: bool = True) -> Signature:
    names = draw(st.lists(NAMES, min_size=2, max_size=4, unique=True))
    made = tuple(draw(fields(name, objects=objects)) for name in names)
    cut = draw(st.integers(1, len(made) - 1))
    return Signature(made[:cut], made[cut:], draw(st.none() | TEXT), draw(st.none() | TEXT))


def has_union(field_type: FieldType) -> bool:
    return any(isinstance(part, UnionOf) for part in parts_of(field_type))
