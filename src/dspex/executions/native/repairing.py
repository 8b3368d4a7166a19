"""JSON repair in measured time.

What `json_repair` takes can't be foretold: 300 characters can cost 35 ms, and with nested objects it grows with the
cube of the length. So on the event loop it works against the clock, and what it does not finish is read again in a
process apart, where no clock is needed.
"""

import ast
import json
from time import perf_counter
from typing import Any

import json_repair
from json_repair.json_parser import JSONParser

# Between two looks at the clock lie up to three passes over a text, 0.1 us a character each.
LONGEST = 10_000
# Python's own parser takes up to 2.5 us for a character and can't be stopped.
LONGEST_LITERAL = 4000


class TooSlow(Exception):
    """The time is over. No ValueError: neither `json_repair` nor the adapters' rules may take it for one."""


class Repair:
    """Reads the texts of one reply. With `limit_s` it raises TooSlow once that many seconds are over."""

    def __init__(self, limit_s: float | None = None) -> None:
        self._until = None if limit_s is None else perf_counter() + limit_s

    def loads(self, text: str) -> Any:
        """`json_repair.loads`; "" where it finds nothing. Raises ValueError or RecursionError as it does."""
        if self._until is None:
            return json_repair.loads(text)
        try:
            return json.loads(text)
        except ValueError:
            if len(text) > LONGEST:
                raise TooSlow from None
        try:
            return _Hurried(text, self._until).parse()
        except RecursionError as error:
            raise ValueError("Input nesting exceeds the supported parser recursion depth.") from error

    def literal(self, text: str) -> Any:
        """`ast.literal_eval`, with all its errors."""
        if self._until is not None and (len(text) > LONGEST_LITERAL or perf_counter() > self._until):
            raise TooSlow
        return ast.literal_eval(text)


class _Hurried(JSONParser):
    """Looks at the clock for every character that is looked at."""

    def __init__(self, text: str, until: float) -> None:
        super().__init__(text, None, False, try_valid_json_suffix=True)
        self._until = until

    def get_char_at(self, count: int = 0) -> str | None:
        if perf_counter() > self._until:
            raise TooSlow
        try:
            return self.json_str[self.index + count]
        except IndexError:
            return None
