"""JSON lines as they arrive, in pieces cut anywhere."""

from collections.abc import AsyncIterator
from typing import Any

from dspex.kit import json
from dspex.kit.errors import Invalid, Problem

DEEP = 200
# So many bad lines are named; whoever has more has sent something else.
TOLD = 100


async def lines_of(chunks: AsyncIterator[bytes], longest: int) -> AsyncIterator[tuple[int, bytes]]:
    """Number, from 1, and text of each line that is not blank. A last line needs no line feed.

    Raises Invalid (code line_too_long) for a line of more than `longest` bytes.
    """
    rest, number = bytearray(), 0
    async for chunk in chunks:
        rest += chunk
        *whole, last = rest.split(b"\n")
        for line in whole:
            number += 1
            _check_length(line, longest, number)
            if line.strip():
                yield number, bytes(line)
        rest = bytearray(last)
        _check_length(rest, longest, number + 1)
    if rest.strip():
        yield number + 1, bytes(rest)


def _check_length(line: bytes | bytearray, longest: int, number: int) -> None:
    if len(line) > longest:
        raise Invalid(
            f"Line {number} is longer than {longest} bytes, the limit of the inputs of one item.",
            code="line_too_long",
            problems=[Problem(f"/{number}", "line_too_long", f"at most {longest} bytes")],
        )


def read_line(number: int, line: bytes) -> dict[str, Any] | Problem:
    """The inputs in a line, or why there are none; the pointer is the line's number."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Problem(f"/{number}", "not_json", f"line {number} is not JSON: {json.why_not_json(error)}")
    if not isinstance(value, dict):
        return Problem(f"/{number}", "not_an_object", f"line {number} is no JSON object of inputs")
    if line.count(b"[") + line.count(b"{") > DEEP and json.nests_deeper_than(value, DEEP):
        return Problem(f"/{number}", "nested_too_deeply", f"line {number} is nested too deeply")
    return value
