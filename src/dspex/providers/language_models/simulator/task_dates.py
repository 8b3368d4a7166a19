"""Dates in sentences to ISO 8601. House rule: the day comes first, short years are of this century."""

import re
from datetime import date

from dspex.providers.language_models.simulator.draws import Draws
from dspex.providers.language_models.simulator.tasks import Advice, Solution, Task, pick

_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_SHORT = {month[:3]: number for number, month in enumerate(_MONTHS, 1)}
_FRAMES = (
    "The contract starts on {date}.",
    "We met on {date} in Lyon.",
    "Payment was due {date}.",
    "She wrote to us on {date}.",
)
_NUMERIC = re.compile(r"\b(\d{2})/(\d{2})/(\d{4})\b")
_NAMED = re.compile(r"\b(\d{1,2})(?:st|nd|rd|th) of ([A-Z][a-z]+) (\d{4})\b")
_BRIEF = re.compile(r"\b([A-Z][a-z]{2}) (\d{1,2}), (\d{2})\b")
_ALL = frozenset({"numeric", "named", "brief"})


def _write(draws: Draws) -> str:
    day, month, year = 1 + draws.below(28), 1 + draws.below(12), 2001 + draws.below(29)
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(day % 10 if day not in {11, 12, 13} else 0, "th")
    written = (
        f"{day:02d}/{month:02d}/{year}",
        f"{day}{suffix} of {_MONTHS[month - 1]} {year}",
        f"{_MONTHS[month - 1][:3]} {day}, {year % 100:02d}",
    )
    return pick(draws, _FRAMES).format(date=pick(draws, written))


def _solve(text: str) -> Solution | None:
    if found := _NUMERIC.search(text):
        return _solution("numeric", int(found[3]), int(found[2]), int(found[1]))
    if (found := _NAMED.search(text)) and found[2] in _MONTHS:
        return _solution("named", int(found[3]), _MONTHS.index(found[2]) + 1, int(found[1]))
    if (found := _BRIEF.search(text)) and found[1] in _SHORT:
        return _solution("brief", 2000 + int(found[3]), _SHORT[found[1]], int(found[2]))
    return None


def _solution(kind: str, year: int, month: int, day: int) -> Solution | None:
    try:
        right = date(year, month, day).isoformat()
    except ValueError:
        return None
    mistakes = {
        "numeric": f"{year}-{day:02d}-{month:02d}" if day != month else f"{month:02d}/{day:02d}/{year}",
        "named": f"{day:02d}-{month:02d}-{year}",
        "brief": f"{year - 100}-{month:02d}-{day:02d}",
    }
    return Solution(kind, right, (mistakes[kind],))


DATES = Task(
    name="dates",
    signature="text -> iso_date",
    input="text",
    output="iso_date",
    advice=(
        Advice(
            "Write every date as YYYY-MM-DD.",
            re.compile(r"YYYY-MM-DD|ISO 8601", re.IGNORECASE),
            _ALL,
            0.25,
        ),
        Advice(
            "Numeric dates put the day first, and a year of two digits is of the 2000s.",
            re.compile(r"day first|day comes? (first|before)", re.IGNORECASE),
            frozenset({"numeric", "brief"}),
            0.3,
        ),
        Advice(
            "Numeric dates put the month first.",
            re.compile(r"month first", re.IGNORECASE),
            frozenset({"numeric"}),
            -0.3,
        ),
    ),
    write=_write,
    solve=_solve,
)
