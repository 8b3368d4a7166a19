"""docs/operating.md lists every error code that the source can raise, and no other, with the true status."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from dspex.interfaces.rest.problems import status_of
from dspex.kit.errors import Kind

ROOT = Path(__file__).parents[2]
SECTIONS = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8").partition("## Error codes")[2]
ROW = re.compile(r"^\| `(?P<code>\w+)` \| (?P<kinds>[\w, ]+) \| (?P<statuses>[\d, –]+) \|", re.MULTILINE)
ROWS = [
    (one["code"], one["kinds"].split(", "), one["statuses"].split(", ")) for one in ROW.finditer(SECTIONS)
]
CODE = re.compile(r"""\b(?:default_)?code(?:: ClassVar\[str\])? ?= ?f?"([^"]+)\"""")
OF_RECORDS = re.compile(r"""\bExecutionError\(\s*"\w+",\s*"(\w+)\"""")
# Codes that are put together, and what becomes of them.
MADE = {
    "invalid_{side}": {"invalid_inputs", "invalid_outputs"},
    "{what}_invalid": {"script_invalid", "faults_invalid"},
}
# The simulator answers in OpenAI's form, where whatever is invalid is 400.
OF_SIMULATOR = {
    "script_invalid",
    "faults_invalid",
    "latency_unreadable",
    "chat_request_invalid",
    "embedding_input",
    "tuning_file_invalid",
}


def codes() -> Iterator[str]:
    for file in sorted((ROOT / "src" / "dspex").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        for found in [*CODE.findall(text), *OF_RECORDS.findall(text)]:
            yield from MADE[found] if "{" in found else {found}


def test_every_code_is_documented_and_no_other() -> None:
    documented, raised = {code for code, _, _ in ROWS}, set(codes())
    assert raised - documented == set(), "codes that docs/operating.md does not list"
    assert documented - raised == set(), "codes in docs/operating.md that nothing raises"


def test_no_code_is_listed_twice() -> None:
    listed = [code for code, _, _ in ROWS]
    assert sorted(listed) == sorted(set(listed))


@pytest.mark.parametrize(("code", "kinds", "statuses"), ROWS, ids=[code for code, _, _ in ROWS])
def test_kinds_and_statuses_are_those_of_the_interface(
    code: str, kinds: list[str], statuses: list[str]
) -> None:
    assert set(kinds) <= {*get_args(Kind), "cancelled"}
    if statuses == ["–"]:
        return
    expected = ["400"] if code in OF_SIMULATOR else [str(status_of(kind, code)) for kind in kinds]
    assert statuses == expected
