"""JSON repair that can't be made to hold a processor.

`json_repair` takes time in proportion to the length of a text times the depth of what is open in it: 32 KB
behind 200 opening brackets take ten seconds. What would take more than about two is refused.
"""

import json
from typing import Any

import json_repair

from dspex.executions.errors import AdapterParseError

# Characters times open brackets; a million take one to two seconds, twenty thousand some milliseconds.
WORK_LIMIT = 1_000_000
QUICK_WORK = 20_000
_OPEN = {"[": "]", "{": "}", "(": ")"}
_CLOSE = frozenset(_OPEN.values())


def repair(text: str) -> Any:
    """`json_repair.loads`; "" where it finds nothing.

    Raises AdapterParseError (code reply_too_hard_to_repair) for text over the limit that is not JSON already;
    ValueError or RecursionError for text nested too deeply, as json_repair does.
    """
    if len(text) > QUICK_WORK or _brackets(text) > 1:
        try:
            return json.loads(text)
        except ValueError:
            if repair_work(text) > WORK_LIMIT:
                raise AdapterParseError(
                    f"The model's reply is no JSON, and its {len(text)} characters with "
                    f"{repair_work(text) // len(text)} brackets open at once are too much to repair.",
                    code="reply_too_hard_to_repair",
                ) from None
    return json_repair.loads(text)


def repair_work(text: str) -> int:
    """An upper bound of what repairing takes, in characters times brackets open at once; linear to find."""
    stack: list[str] = []
    deepest = 0
    for character in text:
        if character in _OPEN:
            stack.append(_OPEN[character])
            deepest = max(deepest, len(stack))
        elif character in _CLOSE and stack and stack[-1] == character:
            # One that closes something else is not counted: for the repair both stay open.
            stack.pop()
    return (deepest + 1) * len(text)


def is_quick(text: str) -> bool:
    """Whether parsing this text certainly takes only milliseconds, so that it need not leave the event loop."""
    return len(text) * (_brackets(text) + 1) <= QUICK_WORK or repair_work(text) <= QUICK_WORK


def _brackets(text: str) -> int:
    return text.count("[") + text.count("{") + text.count("(")
