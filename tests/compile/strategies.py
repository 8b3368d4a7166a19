"""Random signatures, demos, inputs and replies."""

import json
from typing import Any

from hypothesis import strategies as st

from dspex.signatures.records import UNSET, Field, Signature
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
    UnionOf,
    union_of,
)

SCALARS = [STR, INT, FLOAT, BOOL, ANY, DATE, DATETIME]
PERSON = ObjectOf(
    "Person",
    (
        ObjectField("name", STR, description="the full name"),
        ObjectField("age", INT, constraints=(("ge", 0), ("le", 150))),
        ObjectField("tags", ListOf(STR), required=False, default=[]),
        ObjectField("nick", UnionOf((STR, NONE)), required=False, default=None),
    ),
)
TREE = ObjectOf("Tree", (ObjectField("root", PERSON), ObjectField("born", DATE)), description="A family.")
NAMES = [
    "question",
    "context",
    "k",
    "item_count",
    "camelCase",
    "über",
    "score",
    "answer",
    "label",
    "x1",
    "when",
]

texts = st.one_of(
    st.sampled_from(
        [
            "Paris",
            "",
            "  spaced  ",
            "two\n\nlines",
            "None",
            "true",
            "3.0",
            '{"a": 1}',
            "[[ ## answer ## ]] trick",
            "[[ ## completed ## ]]",
            "line\u2028sep\x0bvt\x85nel",
            "«quoted» “curly” 😀",
            "```json\n{}\n```",
            "(((",
            "'single'",
            "Literal['yes']",
        ]
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40),
)

leaf_types: st.SearchStrategy[FieldType] = st.one_of(
    st.sampled_from(SCALARS),
    st.sampled_from(
        [
            LiteralOf(("yes", "no")),
            LiteralOf((1, 2, 3)),
            LiteralOf(("it's", 'say "hi"', "a b")),
            LiteralOf(("one", 2, True)),
            Embedding(),
            Probability(),
            Probability("confidence_score"),
            ReasoningChain(),
            PERSON,
            TREE,
        ]
    ),
)
types: st.SearchStrategy[FieldType] = st.recursive(
    leaf_types,
    lambda inner: st.one_of(
        inner.map(ListOf),
        inner.map(DictOf),
        inner.map(lambda one: one if one in (ANY, NONE) else union_of((one, NONE))),
        st.sampled_from([UnionOf((INT, STR)), UnionOf((STR, FLOAT, NONE)), UnionOf((BOOL, INT))]),
    ),
    max_leaves=3,
)
descriptions = st.one_of(
    st.none(), st.sampled_from(["", "what was asked", "multi\nline ${x}", "naïve 'quotes'"])
)
instructions = st.one_of(
    st.none(),
    st.sampled_from(["Answer briefly.", "First line.\n    Second, indented.\n\nThird.", "Ünïcode {braces}"]),
)


@st.composite
def values(draw: st.DrawFn, field_type: FieldType) -> Any:
    """A JSON value that fits the type."""
    match field_type:
        case ListOf(item):
            return draw(st.lists(values(item), max_size=3))
        case DictOf(value):
            return draw(st.dictionaries(texts, values(value), max_size=2))
        case UnionOf(options):
            return draw(values(draw(st.sampled_from(options))))
        case LiteralOf(members):
            return draw(st.sampled_from(members))
        case ObjectOf(fields=members):
            return {
                member.name: draw(st.integers(0, 150) if member.constraints else values(member.type))
                for member in members
                if member.required or draw(st.booleans())
            }
        case Embedding():
            return draw(st.lists(st.floats(-1, 1), max_size=3))
        case Probability():
            return draw(st.floats(0, 1))
        case ReasoningChain():
            return draw(st.lists(texts, max_size=2))
    simple: dict[FieldType, st.SearchStrategy[Any]] = {
        STR: texts,
        INT: st.integers(-(10**20), 10**20),
        FLOAT: st.floats(allow_nan=False, allow_infinity=False),
        BOOL: st.booleans(),
        ANY: st.one_of(
            texts, st.integers(0, 9), st.none(), st.lists(texts, max_size=2), st.just({"a": [1, None]})
        ),
        DATE: st.dates().map(str),
        DATETIME: st.datetimes().map(lambda one: one.isoformat()),
        NONE: st.none(),
    }
    return draw(simple[field_type])


@st.composite
def signatures(draw: st.DrawFn) -> Signature:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=6, unique=True))
    cut = draw(st.integers(1, len(names) - 1))
    inputs, outputs = [], []
    for index, name in enumerate(names):
        field_type = draw(types)
        default: Any = UNSET
        if draw(st.integers(0, 4)) == 0:
            default = draw(values(field_type))
        constraints: tuple[tuple[str, Any], ...] = ()
        if field_type in (INT, FLOAT) and default is UNSET and draw(st.booleans()):
            constraints = (("ge", 0), ("le", 10))
        if field_type == STR and default is UNSET and draw(st.integers(0, 3)) == 0:
            constraints = (("min_length", 1), ("max_length", 500))
        field = Field(name, field_type, draw(descriptions), default, constraints)
        (inputs if index < cut else outputs).append(field)
    return Signature(tuple(inputs), tuple(outputs), draw(instructions))


@st.composite
def demos(draw: st.DrawFn, signature: Signature) -> list[dict[str, Any]]:
    """Complete ones, incomplete ones, ones with a stray field."""
    fields = (*signature.inputs, *signature.outputs)
    made = []
    for _ in range(draw(st.integers(0, 2))):
        demo = {field.name: draw(values(field.type)) for field in fields if draw(st.integers(0, 5))}
        if draw(st.booleans()):
            demo["augmented"] = True
        made.append(demo)
    return made


@st.composite
def inputs(draw: st.DrawFn, signature: Signature) -> dict[str, Any]:
    """JSON inputs the validator takes: all required ones, optional ones sometimes absent."""
    given = {}
    for field in signature.inputs:
        limits = dict(field.constraints)
        optional = field.default is not UNSET or (
            isinstance(field.type, UnionOf) and NONE in field.type.options
        )
        if optional and draw(st.booleans()):
            continue
        if "ge" in limits:
            given[field.name] = draw(st.integers(0, 10)) if field.type == INT else draw(st.floats(0, 10))
        elif "min_length" in limits:
            given[field.name] = draw(texts.filter(lambda text: 1 <= len(text) <= 500))
        else:
            given[field.name] = draw(values(field.type))
    return given


# Python and JSON beyond what a value is: read as literals, repaired, or refused.
LITERALS = [
    "NaN",
    "-Infinity",
    "[NaN, 1, Infinity]",
    '{"a": -Infinity, "age": NaN}',
    "nan",
    "inf",
    "1e999",
    "set()",
    "{1, 2}",
    "b'a'",
    "[b'a', (1,)]",
    "...",
    "[..., None]",
    "1j",
    "{'a': 1j}",
    "{'a': {1}}",
    "{1: 2}",
    "{(): 2}",
    "0x1F",
    "1_000",
    "'a' 'b'",
    '{"a": 1, "a": 2}',
    '{"name": "x", "age": 1, "name": "y"}',
    '{"root": {"name": "x", "age": 1, "age": 2}, "born": "2026-01-31", "root": {}}',
    "True",
    "[1, 2",
    '["a", "b',
    "{'name': 'it\\'s', 'age': '3'}",
]
DEEP = st.builds(
    lambda levels, pair, core: pair[0] * levels + core + pair[1] * levels,
    st.integers(50, 300),
    st.sampled_from([("[", "]"), ('{"a": ', "}"), ("[[", "]]"), ("(", ",)"), ("[", ""), ('{"a": [', "]}")]),
    st.sampled_from(["", "1", '"x"', "{}", "None"]),
)


@st.composite
def _long(draw: st.DrawFn, field_type: FieldType) -> str:
    """3 000 to 40 000 characters: a fenced list, prose, or prose around a list."""
    length = draw(st.sampled_from([3_000, 9_000, 40_000]))
    value = draw(values(ListOf(field_type)))
    item = json.dumps(value) + "," if value else '{"name": "Ann", "age": 3},'
    items = item * (length // len(item) + 1)
    sentence = draw(
        st.sampled_from(["It's so, they said. ", "A (b) [c] {d}: e, f. ", "word ", "«a» 'b' \"c\" "])
    )
    prose = sentence * (length // len(sentence) + 1)
    shape = draw(st.integers(0, 4))
    if shape == 0:
        return f"```json\n[{items[:-1]}]\n```"
    if shape == 1:
        return f"[{items[:-1]}]"
    if shape == 2:
        return f"{prose[: length // 2]}\n```json\n[{items[: length // 2]}]\n```"
    return prose if shape == 3 else json.dumps(prose)


def odd(field_type: FieldType) -> st.SearchStrategy[str]:
    """The text of a field that no sane model writes."""
    literals = st.sampled_from(LITERALS)
    return st.one_of(literals, literals, literals, DEEP, _long(field_type))


def _rendered(value: Any, spelling: int) -> str:
    if isinstance(value, str) and spelling != 3:
        return value
    if spelling == 0:
        return json.dumps(value, ensure_ascii=False)
    if spelling == 1:
        return repr(value)
    if spelling == 2:
        return "```json\n" + json.dumps(value) + "\n```"
    return f'"{value}"'


@st.composite
def chat_replies(draw: st.DrawFn, outputs: list[tuple[str, FieldType]]) -> str:
    """Well formed, reordered, repeated, with missing markers, extra text, odd spellings."""
    order = draw(st.permutations(outputs))
    if draw(st.integers(0, 3)) == 0:
        order = order[: draw(st.integers(0, len(order)))]
    lines = [draw(texts)] if draw(st.integers(0, 3)) == 0 else []
    for name, field_type in order:
        value = draw(values(field_type)) if draw(st.integers(0, 4)) else draw(texts)
        text = _rendered(value, draw(st.integers(0, 3)))
        if draw(st.integers(0, 7)) == 0:
            text = draw(odd(field_type))
        head = draw(
            st.sampled_from(["[[ ## {} ## ]]\n", "[[ ## {} ## ]] ", "  [[ ## {} ## ]]\n", "[[##{}##]]\n"])
        )
        lines.append(head.format(name) + text)
        if draw(st.integers(0, 7)) == 0:
            lines.append(f"[[ ## {name} ## ]]\n{draw(texts)}")
    if draw(st.integers(0, 3)):
        lines.append("[[ ## completed ## ]]")
    return draw(st.sampled_from(["\n\n", "\n", "\r\n"])).join(lines)


@st.composite
def json_replies(draw: st.DrawFn, outputs: list[tuple[str, FieldType]]) -> str:
    """JSON, nearly JSON, JSON in prose, JSON of another kind."""
    body = {}
    for name, field_type in draw(st.permutations(outputs)):
        if draw(st.integers(0, 7)):
            value = draw(values(field_type)) if draw(st.integers(0, 4)) else draw(st.one_of(texts, st.none()))
            body[name] = value if draw(st.integers(0, 5)) else str(value)
    text = json.dumps(body, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 2])))
    spelling = draw(st.integers(0, 10))
    if spelling == 9 and body:
        name = draw(st.sampled_from(list(body)))
        return f'{text.rstrip()[:-1]}, "{name}": {json.dumps(draw(st.one_of(texts, st.none())))}}}'
    if spelling == 10:
        members = [f'"{name}": {draw(odd(field_type))}' for name, field_type in outputs]
        return f"{{{', '.join(members)}}}"
    if spelling == 0:
        return text[: draw(st.integers(0, len(text)))]
    if spelling == 1:
        return f"Here you are:\n```json\n{text}\n```\nAnything else?"
    if spelling == 2:
        return repr(body)
    if spelling == 3:
        return json.dumps([body])
    if spelling == 4:
        return f"[note] {text} trailing {{}}"
    return text


@st.composite
def completions(
    draw: st.DrawFn, outputs: list[tuple[str, FieldType]], json_first: bool
) -> list[dict[str, Any]]:
    """Two chat completion bodies: for the first request and for the JSON fallback."""
    kinds = (json_replies, chat_replies) if json_first else (chat_replies, json_replies)
    return [_body(draw, draw(st.one_of(kind(outputs), kind(outputs), texts))) for kind in kinds]


def _body(draw: st.DrawFn, content: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    odd = draw(st.integers(0, 24))
    if odd == 0:
        message["content"] = None
    elif odd == 1:
        message = {"role": "assistant", "content": None, "refusal": "I can't help with that."}
    elif odd == 2:
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        message["tool_calls"] = [call]
    elif odd == 3:
        message["content"] = [{"type": "text", "text": content}, {"type": "text", "text": "!"}]
    elif odd == 4:
        message["reasoning_content"] = "thinking"
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": draw(st.sampled_from(["stop", "length", None])),
    }
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }
