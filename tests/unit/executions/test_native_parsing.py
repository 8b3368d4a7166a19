"""Corners of reply parsing that matter to us beyond being DSPy's (which tests/compile holds)."""

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from dspex.executions.errors import AdapterParseError, UnreadableReply, UnsupportedInput
from dspex.executions.native.parsing import Output, ReplyParser, first_object
from dspex.executions.native.prompts import CUSTOM_TYPE_MARKER, Template, render_value
from dspex.executions.native.repairing import Repair
from dspex.executions.native.values import value_parser

PARSER = ReplyParser("chat", (Output("answer", value_parser(list[int])),))


def test_what_is_nested_too_deeply_is_not_asked_for_again() -> None:
    for adapter in ("chat", "json"):
        parser = ReplyParser(adapter, (Output("answer", value_parser(list)),))
        with pytest.raises(UnreadableReply):
            parser.parse("{" * 400, Repair()) if adapter == "json" else parser.parse(
                "[[ ## answer ## ]]\n" + "[" * 1500, Repair()
            )


def test_errors_quote_the_reply_but_not_all_of_it() -> None:
    with pytest.raises(AdapterParseError) as refused:
        PARSER.parse("no marker " * 1000, Repair())
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


def test_prose_that_pythons_parser_gives_up_on_is_an_unreadable_reply() -> None:
    with pytest.raises(UnreadableReply):
        PARSER.parse("[[ ## answer ## ]]\n" + "a long story " * 1000, Repair())


def test_an_error_for_every_item_is_told_in_short() -> None:
    items = ", ".join(["'x'"] * 300)
    with pytest.raises(AdapterParseError, match="300 validation errors") as refused:
        PARSER.parse(f"[[ ## answer ## ]]\n[{items}]", Repair())
    assert len(refused.value.message) < 400


@given(st.text(alphabet="{}a", max_size=40))
def test_the_first_object_is_what_dspys_expression_finds(text: str) -> None:
    found = regex.search(r"\{(?:[^{}]|(?R))*\}", text, regex.DOTALL)
    assert first_object(text) == (found.group() if found else None)
