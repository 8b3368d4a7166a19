"""Small word problems in dozens, pairs and scores, which have to be turned into single items first."""

import re

from dspex.providers.language_models.simulator.draws import Draws
from dspex.providers.language_models.simulator.tasks import Advice, Solution, Task, pick

_UNITS = {"dozen": 12, "pairs of": 2, "score": 20}
_PROBLEM = re.compile(
    r"(\w+) has (\d+) (dozen|pairs of|score) (\w+) and (gives away|buys) (\d+) single ones\."
)
_ALL = frozenset(_UNITS)


def _write(draws: Draws) -> str:
    name = pick(draws, ("Mia", "Tom", "Ada", "Noor", "Ivo", "Lin"))
    thing = pick(draws, ("pencils", "socks", "eggs", "candles", "gloves", "buttons"))
    unit = pick(draws, tuple(_UNITS))
    verb = pick(draws, ("gives away", "buys"))
    # At most as many are given away as the smallest first heap holds: two pairs.
    return (
        f"{name} has {2 + draws.below(18)} {unit} {thing} and {verb} {1 + draws.below(4)} single ones. "
        f"How many {thing} are there now?"
    )


def _solve(text: str) -> Solution | None:
    found = _PROBLEM.search(text)
    if found is None:
        return None
    many, unit, change = int(found[2]), found[3], int(found[6])
    signed = -change if found[5] == "gives away" else change
    return Solution(unit, many * _UNITS[unit] + signed, (many + signed, many * 10 + signed))


COUNTS = Task(
    name="counts",
    signature="problem -> item_count: int",
    input="problem",
    output="item_count",
    advice=(
        Advice(
            "Turn dozens, pairs and scores into single items before you add or subtract.",
            re.compile(r"(into|to) single items", re.IGNORECASE),
            _ALL,
            0.3,
        ),
        Advice(
            "A dozen is 12 and a score is 20.",
            re.compile(r"dozen (is|=|means) (12|twelve)|score (is|=|means) (20|twenty)", re.IGNORECASE),
            frozenset({"dozen", "score"}),
            0.2,
        ),
        Advice(
            "Ignore the units and use the numbers as they stand.",
            re.compile(r"ignore the units", re.IGNORECASE),
            _ALL,
            -0.2,
        ),
    ),
    write=_write,
    solve=_solve,
)
