"""Corners of reply parsing that matter to us beyond being DSPy's (which tests/compile holds)."""

import json
import time

import pytest

from dspex.executions.errors import AdapterParseError, UnreadableReply, UnsupportedInput
from dspex.executions.native.parsing import Output, ReplyParser
from dspex.executions.native.prompts import CUSTOM_TYPE_MARKER, Template, render_value
from dspex.executions.native.repairing import is_quick, repair
from dspex.executions.native.values import value_parser

PARSER = ReplyParser("chat", (Output("answer", value_parser(list[int])),))


HOSTILE = [
    "{" * 199 + "x" * 32_000,
    "{" * 150 + "x" * 30_000 + "}" * 150,
    '[" ' * 10_000,
    "[{]}" * 8_000,
    "(" * 40_000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_refused_at_once(text: str) -> None:
    assert not is_quick(text)
    started = time.process_time()
    with pytest.raises(AdapterParseError) as refused:
        repair(text)
    assert refused.value.code == "reply_too_hard_to_repair"
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (json.dumps(list(range(40_000))), list(range(40_000))),
        (
            "```json\n" + json.dumps([{"a": n} for n in range(5_000)]) + "\n```",
            [{"a": n} for n in range(5_000)],
        ),
        (repr([{"a": n, "b": "x"} for n in range(3_000)]), [{"a": n, "b": "x"} for n in range(3_000)]),
        ("a long story about nothing " * 2_000, ""),
    ],
)
def test_long_replies_are_read_all_the_same(text: str, value: object) -> None:
    assert repair(text) == value


def test_short_replies_stay_on_the_event_loop() -> None:
    assert is_quick("[[ ## answer ## ]]\n['a', 'b']\n\n[[ ## completed ## ]]")


def test_what_is_nested_too_deeply_is_not_asked_for_again() -> None:
    for adapter in ("chat", "json"):
        parser = ReplyParser(adapter, (Output("answer", value_parser(list)),))
        with pytest.raises(UnreadableReply):
            parser.parse("{" * 400) if adapter == "json" else parser.parse(
                "[[ ## answer ## ]]\n" + "[" * 1500
            )


def test_errors_quote_the_reply_but_not_all_of_it() -> None:
    with pytest.raises(AdapterParseError) as refused:
        PARSER.parse("no marker " * 1000)
    assert len(refused.value.message) < 400
    assert "lacks answer" in refused.value.message


def test_dspys_marker_for_other_types_is_not_sent() -> None:
    template = Template((), (("a", "[[ ## a ## ]]\n"),), "\n\ntail")
    with pytest.raises(UnsupportedInput):
        template.fill({"a": f"x{CUSTOM_TYPE_MARKER}y"})


def test_absent_inputs_leave_no_blank_lines() -> None:
    template = Template((), (("a", "A\n"), ("b", "\n\nB\n")), "\n\ntail")
    assert template.fill({"b": "2"})[-1].content == "B\n2\n\ntail"
    assert template.fill({})[-1].content == "tail"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "None"), (True, "True"), (1.0, "1.0"), (["ü"], '["ü"]'), ({"a": [1]}, '{"a": [1]}')],
)
def test_values_are_written_as_dspy_writes_them(value: object, text: str) -> None:
    assert render_value(value) == text
