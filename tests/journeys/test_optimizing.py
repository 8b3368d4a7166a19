"""The guide from examples to a better version does what it says, number by number."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.conftest_simulator import running_simulator
from tests.plugins.commands import dspex

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "optimize.md").read_text(encoding="utf-8")
_STEP = re.compile(r"(?m)^    (dspex (?:.*\\\n)*.*)\n(?:\n```\n(?P<printed>[^`]*)```)?")
# An id, and how long it took, are others each time.
_OWN = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


def steps() -> Iterator[tuple[list[str], str | None]]:
    """The commands in the guide, each with what stands below it as printed; the last step stands in its text."""
    text = GUIDE.replace("At the end:\n\n```", "```").replace("A line shows how far it is. ", "")
    for found in _STEP.finditer(text):
        command = shlex.split(found.group(1).replace("\\\n", " "))
        if command[1] != "simulator":
            yield command[1:], found.group("printed")


def test_the_guide_works_from_top_to_bottom(tmp_path: Path) -> None:
    place = tmp_path / "optimize"
    shutil.copytree(ROOT / "examples" / "optimize", place)
    compared = 0
    with running_simulator("--teach") as teacher:
        file = place / "dspex.yaml"
        told = file.read_text().replace("http://127.0.0.1:8100/v1", teacher.base_url)
        file.write_text(told, encoding="utf-8")
        for arguments, printed in steps():
            if arguments[:1] == ["deploy"]:
                # Of the file as it is now, not as of the last command.
                file.write_text(told.replace("min_score: 0.7", "min_score: 0.9"), encoding="utf-8")
                assert "scored 0.8167 and needs 0.9" in dspex(place, *arguments, status=1).stderr
                file.write_text(told, encoding="utf-8")
            done = dspex(place, *arguments)
            if printed is not None:
                compared += 1
                assert _numbers(done.stdout) == _numbers(printed), arguments
            if arguments[:2] == ["programs", "show"]:
                assert "BootstrapFewShotWithRandomSearch, of version 1" in done.stdout
        rows = place / "tickets.jsonl"
        more = rows.read_text().splitlines()[0].replace("order 4349", "order 1")
        rows.write_text(rows.read_text() + more + "\n", encoding="utf-8")
        again = dspex(place, "optimize", "estimate", "tickets", "tickets", "--validation", "held-out")
        assert "61 to learn from" in again.stdout
    assert compared == 3


def _numbers(text: str) -> list[str]:
    """Line by line without ids. With eight threads it may be another call that is asked for twice."""
    kept = [_OWN.sub("…", line.rstrip()) for line in text.strip().splitlines()]
    return [line for line in kept if not line.startswith(("calls ", "cost "))]
