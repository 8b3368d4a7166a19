"""The type grammar as text: `list[str] | None` and the like, to and from our types."""

import ast
from collections.abc import Callable, Sequence

from dspex.signatures.types import (
    ANY,
    NONE,
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
    union_of,
)

_NAMED: dict[str, FieldType] = {
    "str": Scalar("str"),
    "int": Scalar("int"),
    "float": Scalar("float"),
    "bool": Scalar("bool"),
    "date": Scalar("date"),
    "datetime": Scalar("datetime"),
    "Any": ANY,
    "None": NONE,
    "Text": Scalar("str"),
    "list": ListOf(ANY),
    "List": ListOf(ANY),
    "dict": DictOf(ANY),
    "Dict": DictOf(ANY),
    "embedding": Embedding(),
    "probability": Probability("probability"),
    "confidence_score": Probability("confidence_score"),
    "reasoning_chain": ReasoningChain(),
}
_GENERIC = ("Literal", "Optional", "Union")
_QUALIFIED = {
    "typing": ("Any", "Dict", "List", "Text", *_GENERIC),
    "datetime": ("date", "datetime"),
}
_ADVICE = {
    "string": "str",
    "String": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "object": "dict[str, Any]",
    "array": "list[Any]",
    "any": "Any",
    "null": "None",
    "tuple": "list[T]",
    "Tuple": "list[T]",
    "set": "list[T]",
    "Set": "list[T]",
    "frozenset": "list[T]",
    "bytes": "str",
    "complex": "list[float]",
    "Enum": "Literal['a', 'b']",
    "Sequence": "list[T]",
    "Mapping": "dict[str, T]",
}
KNOWN = (
    "str, int, float, bool, Any, date, datetime, list[T], dict[str, T], Optional[T], T | None, Union[T, U], "
    "Literal['a', 'b'], embedding, embedding[384], probability, confidence_score, reasoning_chain"
)

Refuse = Callable[[ast.AST, str], Exception]


def type_of_node(node: ast.expr, refuse: Refuse) -> FieldType:
    """The type an expression spells. `refuse` makes the error for a node and what to write instead."""
    match node:
        case ast.Constant(value=None):
            return NONE
        case ast.Constant(value=str()):
            raise refuse(node, "a type is written without quotes")
        case ast.Name() | ast.Attribute():
            name = _name_of(node, refuse)
            if name in _GENERIC:
                raise refuse(node, f"{name} needs its types in brackets, as in {name}[...]")
            return _NAMED[name]
        case ast.Subscript(value=(ast.Name() | ast.Attribute()) as base, slice=inner):
            arguments = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _generic(node, _name_of(base, refuse), arguments, refuse)
        case ast.BinOp(op=ast.BitOr()):
            return _alternatives(node, refuse)
    raise refuse(node, f"this is not a type; the types are {KNOWN}")


def _name_of(node: ast.Name | ast.Attribute, refuse: Refuse) -> str:
    if isinstance(node, ast.Attribute):
        qualifier = node.value.id if isinstance(node.value, ast.Name) else ""
        if node.attr in _QUALIFIED.get(qualifier, ()):
            return node.attr
        raise refuse(node, f"unknown type; the types are {KNOWN}")
    if node.id in _NAMED or node.id in _GENERIC:
        return node.id
    if node.id in _ADVICE:
        raise refuse(node, f"unknown type {node.id!r}; write {_ADVICE[node.id]}")
    raise refuse(
        node,
        f"unknown type {node.id!r}; the types are {KNOWN}. Nested objects are written in the structured form",
    )


def _generic(node: ast.AST, name: str, arguments: Sequence[ast.expr], refuse: Refuse) -> FieldType:
    if name == "Literal":
        return _literal(node, arguments, refuse)
    if name == "embedding":
        return _embedding(node, arguments, refuse)
    if name == "Union":
        return union_of([type_of_node(one, refuse) for one in arguments])
    wanted = {"list": 1, "List": 1, "Optional": 1, "dict": 2, "Dict": 2}.get(name)
    if wanted is None:
        raise refuse(node, f"{name} takes no types in brackets; write {name}")
    if len(arguments) != wanted:
        plural = "type" if wanted == 1 else "types, the first of them str,"
        raise refuse(node, f"{name} takes exactly {wanted} {plural} in brackets")
    if wanted == 2:
        key = type_of_node(arguments[0], refuse)
        if key != Scalar("str"):
            raise refuse(arguments[0], f"the keys of a dict are strings; write {name}[str, ...]")
        return DictOf(type_of_node(arguments[1], refuse))
    inner = type_of_node(arguments[0], refuse)
    return union_of([inner, NONE]) if name == "Optional" else ListOf(inner)


def _alternatives(node: ast.expr, refuse: Refuse) -> FieldType:
    operands: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        operands.append(node.right)
        node = node.left
    result = type_of_node(node, refuse)
    for operand in reversed(operands):
        other = type_of_node(operand, refuse)
        # DSPy reads `None | T` as Optional[T], so None comes second.
        result = union_of([other, result] if result == NONE else [result, other])
    return result


def _literal(node: ast.AST, arguments: Sequence[ast.expr], refuse: Refuse) -> FieldType:
    values: dict[tuple[type, object], str | int | bool] = {}
    for one in arguments:
        match one:
            case ast.Constant(value=str() | bool() | int() as value):
                pass
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as number)) if (
                number is not True
            ):
                value = -number
            case ast.Constant(value=None):
                raise refuse(one, "write None outside of Literal, as in Optional[Literal['a', 'b']]")
            case _:
                raise refuse(one, "Literal takes strings, whole numbers, True and False")
        values.setdefault((type(value), value), value)
    if not values:
        raise refuse(node, "Literal needs at least one value, as in Literal['a', 'b']")
    return LiteralOf(tuple(values.values()))


def _embedding(node: ast.AST, arguments: Sequence[ast.expr], refuse: Refuse) -> FieldType:
    match arguments:
        case [ast.Constant(value=int() as dimensions)] if dimensions is not True and 0 < dimensions < 2**31:
            return Embedding(dimensions)
    raise refuse(node, "embedding takes its number of dimensions, as in embedding[384]")


def type_to_string(field_type: FieldType) -> str:
    """The type in the grammar of the string form; an object is written as its name."""
    match field_type:
        case Scalar(name):
            return {"any": "Any", "none": "None"}.get(name, name)
        case ListOf(item):
            return f"list[{type_to_string(item)}]"
        case DictOf(value):
            return f"dict[str, {type_to_string(value)}]"
        case UnionOf(options):
            spelled = [type_to_string(option) for option in options]
            return f"Union[{', '.join(spelled)}]" if options[0] == NONE else " | ".join(spelled)
        case LiteralOf(values):
            return f"Literal[{', '.join(map(repr, values))}]"
        case ObjectOf(name):
            return name
        case Embedding(dimensions):
            return "embedding" if dimensions is None else f"embedding[{dimensions}]"
        case Probability(spelling):
            return spelling
        case ReasoningChain():
            return "reasoning_chain"
