"""Programs that write code, over something that speaks as Deno does."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dspex.programs.ports import Refused
from tests.plugins.pools import ScriptedHost, chat, defined, open_pools

PROGRAM = defined("question -> answer: int", "program_of_thought")
# As DSPy's runner in Deno, without the walls.
DENO = """\
#!{python}
import contextlib, io, json, sys

class Final(Exception):
    pass

def submit(value):
    raise Final(value)

if sys.argv[1] == "--version":
    print("deno {version} (stable)")
elif sys.argv[1] == "run" and {starts}:
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["method"] == "shutdown":
            break
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(asked["params"]["code"], {{"SUBMIT": submit}})
            result = {{"output": printed.getvalue()}}
        except Final as final:
            result = {{"final": final.args[0]}}
        print(json.dumps({{"jsonrpc": "2.0", "id": asked["id"], "result": result}}), flush=True)
elif sys.argv[1] == "run":
    sys.exit("no network")
"""


def installed(place: Path, version: str = "2.1.4", *, starts: bool = True) -> dict[str, str]:
    """The environment of a pool that finds such a Deno."""
    deno = place / "deno"
    deno.write_text(DENO.format(python=sys.executable, version=version, starts=starts))
    deno.chmod(0o755)
    return {"PATH": f"{place}:{os.environ['PATH']}"}


async def test_what_the_model_writes_is_run_and_what_comes_of_it_answered(tmp_path: Path) -> None:
    def reply(asked: Mapping[str, Any]) -> str:
        if "final_generated_code" in str(asked["messages"]):
            assert '{"answer": 42}' in asked["messages"][-1]["content"]
            return chat(reasoning="It was computed.", answer=42)
        return chat(reasoning="Compute it.", generated_code='```python\nSUBMIT({"answer": 6 * 7})\n```')

    host = ScriptedHost(reply)
    async with open_pools(workers=1, environment=installed(tmp_path)) as pools:
        answer = await pools.run(PROGRAM, {"question": "6 * 7?"}, host)
    assert answer.outputs == {"reasoning": "It was computed.", "answer": 42}
    assert len(host.asked) == 2


@pytest.mark.parametrize(
    ("version", "starts", "words"),
    [
        ("1.46.3", True, "Unsupported Deno version 1.46.3"),
        ("2.1.4", False, r"does not start: [^`]*no network.*`DENO_DIR`"),
    ],
)
async def test_a_sandbox_that_would_fail_the_first_request_is_refused_before(
    tmp_path: Path, version: str, starts: bool, words: str
) -> None:
    async with open_pools(workers=1, environment=installed(tmp_path, version, starts=starts)) as pools:
        (found,) = await pools.pools.inspect([PROGRAM])
    assert isinstance(found, Refused)
    assert re.search(words, found.reason), found.reason
