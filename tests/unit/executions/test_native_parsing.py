"""Corners of reply parsing that matter to us beyond being DSPy's (which tests/compile holds)."""

import pytest

from dspex.executions.errors import AdapterParseError, UnsupportedInput
from dspex.executions.native.parsing import Output, ReplyParser
from dspex.executions.native.prompts import CUSTOM_TYPE_MARKER, Template, render_value
from dspex.executions.native.values import REPAIR_LIMIT, needs_care, value_parser

PARSER = ReplyParser("chat", (Output("answer", value_parser(list[int])),))


def test_hostile_text_is_not_repaired_for_minutes() -> None:
    hostile = "[[ ## answer ## ]]\n" + "(" * (REPAIR_LIMIT + 1)
    assert needs_care(hostile)
    with pytest.raises(AdapterParseError) as refused:
        PARSER.parse(hostile)
    assert refused.value.code == "reply_too_long_to_repair"


def test_a_long_reply_that_is_json_already_is_read() -> None:
    numbers = list(range(REPAIR_LIMIT))
    assert PARSER.parse(f"[[ ## answer ## ]]\n{numbers}") == {"answer": numbers}


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
