"""What is told of a reply while it comes, against what parsing makes of the whole."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dspex.executions.events import Event, FieldDelta, StatusChanged
from dspex.executions.native.parsing import ReplyParser
from dspex.executions.native.program import Stage, outputs_of
from dspex.executions.native.prompts import Template
from dspex.executions.native.repairing import Repair
from dspex.executions.telling import LONGEST_PIECE, Teller, as_text
from dspex.gateway.records import Options
from dspex.kit.errors import DspexError
from dspex.signatures.records import Field, Signature
from dspex.signatures.types import BOOL, INT, NONE, STR, FieldType, ListOf, LiteralOf, union_of
from dspex.signatures.values import outputs_to_json

TYPES: dict[str, FieldType] = {
    "answer": STR,
    "über_note": union_of((STR, NONE)),
    "count": INT,
    "tags": ListOf(STR),
    "kind": LiteralOf(("yes", "no", "per haps")),
    "sure": BOOL,
}
SPELLED = {"answer": "str", "über_note": "str | None", "count": "int", "tags": "list[str]", "sure": "bool"}
ADAPTERS = ("chat", "json")


class Heard:
    """A listener that puts together what a client would."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.fields: dict[str, str] = {}
        self.restarts = 0

    def tell(self, event: Event) -> None:
        self.events.append(event)
        match event:
            case FieldDelta(name, delta):
                assert delta
                self.fields[name] = self.fields.get(name, "") + delta
            case StatusChanged(restarted=True):
                self.restarts += 1
                self.fields.clear()


def signature(names: Sequence[str]) -> Signature:
    return Signature((), tuple(Field(name, TYPES[name]) for name in names))


def stage(adapter: str, names: Sequence[str]) -> Stage:
    kind = {**SPELLED, "kind": "Literal['yes', 'no', 'per haps']"}
    outputs = outputs_of([{"name": name, "type": kind[name]} for name in names])
    parser = ReplyParser(adapter, outputs)  # type: ignore[arg-type]
    return Stage(adapter, Template((), (), ""), Options(), parser)


def told(adapter: str, names: Sequence[str], pieces: Sequence[str]) -> tuple[Heard, dict[str, str]]:
    """What was heard of the pieces, before anything is settled; and the final values, none if it can't be parsed."""
    heard = Heard()
    teller = Teller(heard, signature(names), 1_000_000)
    one = stage(adapter, names)
    teller.enter(one)
    teller.begin("main")
    for piece in pieces:
        teller.add(piece)
    before = dict(heard.fields)
    try:
        outputs = outputs_to_json(one.parser.parse("".join(pieces), Repair()))
    except DspexError:
        return heard, before
    teller.settle(outputs)
    final = {
        name: (outputs[name] or "") if name in ("answer", "über_note") else as_text(outputs[name])
        for name in names
    }
    assert heard.fields == {name: text for name, text in final.items() if text}
    return heard, before


def cut(text: str, at: Sequence[int]) -> list[str]:
    places = [0, *sorted({one % (len(text) + 1) for one in at}), len(text)]
    return [text[a:b] for a, b in pairwise(places) if a < b]


BREAKS = ["\n", "\r\n", "\r", "\x0b", "\x85", "\u2028", " ", "  ", "\t", "\xa0"]
FRAGMENTS = [
    *BREAKS,
    "Paris",
    "[[ ## ",
    "[[ ## answer ## ]]",
    "[[ ## unknown ## ]]",
    "[[ ## completed ## ]]",
    " ## ]]",
    "[",
    "]]",
    "## ]]",
    "[[",
    "été 😀",
    "3",
    "true",
    '["a"]',
    "yes",
    '"',
    "\\",
    "{",
    "}",
]
prose = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=5)), max_size=8).map("".join)
names = st.lists(st.sampled_from(list(TYPES)), unique=True, min_size=1)
cuts = st.lists(st.integers(0, 10_000), max_size=60)


@st.composite
def chat_replies(draw: st.DrawFn) -> tuple[list[str], str]:
    chosen = draw(names)
    written = draw(prose)
    for name in draw(st.permutations(chosen + draw(st.lists(st.sampled_from(chosen), max_size=1)))):
        value = draw(st.one_of(prose, _spelled(name)))
        between = draw(st.sampled_from(["\n", " ", "\r\n", "", "\n\n", "   "]))
        indent = draw(st.sampled_from(["", "  ", "\t"]))
        written += f"{draw(st.sampled_from(BREAKS))}{indent}[[ ## {name} ## ]]{between}{value}"
    return chosen, written + draw(st.sampled_from(["", "\n\n[[ ## completed ## ]]", "\n", "[[ ## "]))


def _spelled(name: str) -> st.SearchStrategy[str]:
    fitting = {"count": "12", "tags": '["a", "b c"]', "kind": "per haps", "sure": "True"}
    return st.just(fitting.get(name, "It is Paris.\n\n  Indeed [[ ## so ## ."))


@settings(max_examples=400)
@given(chat_replies(), cuts)
@example((["answer"], "[[ ## answer ## ]] a  \r\n\r\n[[ ## x"), list(range(60)))
@example((["answer"], "  [[ ## answer ## ]] indented\nrest"), [])
@example((["answer"], "[[ ## answer ## ]]\na\r\nb\rc"), list(range(60)))
def test_every_cut_of_a_chat_reply_tells_what_parsing_gives(
    reply: tuple[list[str], str], at: list[int]
) -> None:
    chosen, text = reply
    heard, _ = told("chat", chosen, cut(text, at))
    assert heard.restarts == 0, "a chat reply never has to be taken back"


json_values = st.one_of(
    prose,
    st.text(max_size=8),
    st.integers(),
    st.none(),
    st.booleans(),
    st.lists(prose, max_size=2),
    st.dictionaries(prose, st.integers(), max_size=2),
)


@st.composite
def json_replies(draw: st.DrawFn) -> tuple[list[str], str]:
    chosen = draw(names)
    members: dict[str, Any] = {name: draw(json_values) for name in draw(st.permutations(chosen))}
    for name in chosen:
        if draw(st.booleans()):
            fitting = {"count": 12, "tags": ["a", 'b"]}'], "kind": "yes", "sure": True}
            members[name] = fitting.get(name, 'It is "Paris" \\ \n\t😀 {[,]}.')
    members |= draw(st.dictionaries(st.sampled_from(["other", "x"]), json_values, max_size=2))
    indent = draw(st.sampled_from([None, 2]))
    return chosen, json.dumps(members, ensure_ascii=draw(st.booleans()), indent=indent)


@settings(max_examples=400)
@given(json_replies(), cuts)
@example((["answer"], '{"answer": "\\ud83d\\ude00\\u00e9\\n"}'), list(range(60)))
@example((["answer"], '{"answer": "\\ud83d\\ud83d\\ude00 \\ud83d"}'), list(range(60)))
def test_every_cut_of_a_json_reply_tells_what_parsing_gives(
    reply: tuple[list[str], str], at: list[int]
) -> None:
    chosen, text = reply
    heard, _ = told("json", chosen, cut(text, at))
    assert heard.restarts == 0


@settings(max_examples=300)
@given(
    json_replies(), st.sampled_from(["```json\n", "```\n", "Sure:\n", " "]), prose, cuts, st.integers(0, 80)
)
def test_json_that_has_to_be_repaired_comes_to_what_repairing_gives(
    reply: tuple[list[str], str], before: str, after: str, at: list[int], missing: int
) -> None:
    chosen, text = reply
    told("json", chosen, cut(before + text[: len(text) - missing] + after, at))


@pytest.mark.parametrize("adapter", ADAPTERS)
@given(text=prose, at=cuts)
def test_what_is_no_reply_at_all_harms_nobody(adapter: str, text: str, at: list[int]) -> None:
    told(adapter, ["answer", "count"], cut(text, at))


@pytest.mark.parametrize(
    ("adapter", "reply"),
    [
        (
            "chat",
            "[[ ## answer ## ]]\nIt is Paris.\n\nReally.\n\n[[ ## count ## ]]\n3\n\n[[ ## completed ## ]]",
        ),
        ("json", '{"answer": "It is Paris.\\n\\nReally.", "count": 3}'),
    ],
)
def test_a_character_at_a_time_is_told_as_it_comes(adapter: str, reply: str) -> None:
    heard = Heard()
    teller = Teller(heard, signature(["answer", "count"]), 1_000_000)
    teller.enter(stage(adapter, ["answer", "count"]))
    teller.begin("main")
    said = ""
    for character in reply:
        teller.add(character)
        said += character
        if said.endswith("It is"):
            assert heard.fields == {"answer": "It is"}
        if said.endswith("Really."):
            assert heard.fields == {"answer": "It is Paris.\n\nReally."}
    assert heard.fields["count"] == "3", "a field that is no text is told when the next one begins"


def test_an_attempt_that_fails_takes_back_what_was_told() -> None:
    heard = Heard()
    teller = Teller(heard, signature(["answer"]), 1_000_000)
    teller.enter(stage("chat", ["answer"]))
    teller.begin("main")
    teller.add("[[ ## answer ## ]]\nLyo")
    assert heard.fields == {"answer": "Lyo"}
    teller.begin("other")
    assert (heard.fields, heard.restarts) == ({}, 1)
    teller.add("[[ ## answer ## ]]\nParis")
    teller.settle({"answer": "Paris"})
    assert (heard.fields, heard.restarts) == ({"answer": "Paris"}, 1)


def test_a_later_stage_tells_in_its_own_form() -> None:
    heard = Heard()
    teller = Teller(heard, signature(["answer", "count"]), 1_000_000)
    teller.enter(stage("chat", ["answer", "count"]))
    teller.begin("main")
    teller.add("[[ ## answer ## ]]\nLyon")
    teller.enter(stage("json", ["answer", "count"]))
    teller.begin("main")
    teller.add('{"count": 4, "answer": "Par')
    assert heard.fields == {"count": "4", "answer": "Par"}
    assert [one.message for one in heard.events if isinstance(one, StatusChanged)] == [
        "The model main is asked.",
        "The model main is asked again, for JSON.",
    ]


def test_an_answer_that_nobody_streamed_is_told_whole() -> None:
    heard = Heard()
    Teller(heard, signature(["answer", "tags", "über_note"]), 10).settle(
        {"answer": "Paris", "tags": ["a"], "über_note": None}
    )
    assert heard.events == [FieldDelta("answer", "Paris"), FieldDelta("tags", '["a"]')]


def test_other_values_than_those_told_are_told_anew() -> None:
    heard = Heard()
    teller = Teller(heard, signature(["answer"]), 1_000_000)
    teller.enter(stage("json", ["answer"]))
    teller.begin("main")
    teller.add('{"answer": "first", "answer": "second"}')
    assert heard.fields == {"answer": "first"}
    teller.settle({"answer": "second"})
    assert (heard.fields, heard.restarts) == ({"answer": "second"}, 1)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_what_could_take_long_is_left_to_the_parser(adapter: str) -> None:
    hostile = {"chat": "[[ ## tags ## ]]\n" + "[" * 50_000, "json": '{"tags": ' + "[" * 50_000}[adapter]
    for size in (7, LONGEST_PIECE, len(hostile)):
        heard, _ = told(adapter, ["tags"], [hostile[at : at + size] for at in range(0, len(hostile), size)])
        assert heard.fields == {}


def test_text_beyond_what_may_be_answered_is_not_followed() -> None:
    heard = Heard()
    teller = Teller(heard, signature(["answer"]), 100)
    teller.enter(stage("chat", ["answer"]))
    teller.begin("main")
    teller.add("[[ ## answer ## ]]\n")
    for _ in range(50):
        teller.add("ten chars.")
    assert len(heard.fields["answer"]) <= 100


@given(st.text(alphabet="[# ans]\n\r ", max_size=60), cuts)
def test_lines_that_are_almost_headers(text: str, at: list[int]) -> None:
    assume(text)
    heard, _ = told("chat", ["answer"], cut(f"[[ ## answer ## ]]\n{text}", at))
    assert heard.restarts == 0
