"""What the work of an optimization costs: the size of its prompts, by what ran or by what is asked, times a price."""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from dspex.executions.records import ExecutionStatistics
from dspex.gateway.records import Usage
from dspex.optimizations.estimates import Range, Work

# Executions of a program before what they cost says anything of the next ones.
ENOUGH = 5
# How far the next ones may be from the mean of those.
LESS, MORE = 0.8, 1.2
# Tokens of what DSPy writes around the inputs, and of an answer, where nothing was run yet.
AROUND, ANSWER = Range(150, 400), Range(10, 200)
# Bytes of a token, and of what DSPy writes around a demonstration.
TOKEN_BYTES = Range(3, 4.5)
AROUND_DEMO = 60
# Tokens of a call that writes instructions, and what those add to a prompt.
QUESTION, WRITTEN = Range(200, 2000), Range(20, 400)
LONGER = 250

Price = Callable[[Usage], Awaitable[float | None]]


class Call(Struct, frozen=True):
    """Tokens of one call of the program as it is, and of one demonstration more."""

    prompt: Range
    answer: Range
    demo: Range


def by_executions(seen: ExecutionStatistics, predictors: int, row_bytes: int) -> Call | None:
    """As the program's calls were; None where too few are on record."""
    made = (seen.executions - seen.cache_hits) * predictors
    if made < ENOUGH * predictors or not seen.total_tokens:
        return None
    prompt, answer = seen.input_tokens / made, seen.output_tokens / made
    demo = _demo(row_bytes, answer)
    return Call(
        Range(prompt * LESS, prompt * MORE),
        Range(answer * LESS, answer * MORE),
        Range(demo.low / predictors, demo.high),
    )


def by_prompt(predictors: int, row_bytes: int) -> Call:
    prompt = Range(row_bytes / TOKEN_BYTES.high, row_bytes / TOKEN_BYTES.low) + AROUND
    demo = _demo(row_bytes, ANSWER.high)
    return Call(prompt, ANSWER, Range(demo.low / predictors, demo.high))


def _demo(row_bytes: int, answer: float) -> Range:
    """A bootstrapped one, by default one of four, shows what the program wrote itself: more than a row has."""
    whole = row_bytes + AROUND_DEMO
    return Range(whole / TOKEN_BYTES.high, whole / TOKEN_BYTES.low + answer / 4)


async def dollars(work: Work, call: Call, price: Price) -> Range | None:
    """None while the model has no price."""
    low = await _dollars(
        price,
        (work.plain.low, call.prompt.low, call.answer.low),
        (work.shown.low, call.prompt.low + work.demos.low * call.demo.low, call.answer.low),
        (work.written.low, QUESTION.low, WRITTEN.low),
    )
    prompt = call.prompt.high + LONGER * work.rewritten
    high = await _dollars(
        price,
        (work.plain.high, prompt, call.answer.high),
        (work.shown.high, prompt + work.demos.high * call.demo.high, call.answer.high),
        (work.written.high, QUESTION.high, WRITTEN.high),
    )
    return None if low is None or high is None else Range(round(low, 6), round(high, 6))


async def _dollars(price: Price, *parts: tuple[float, float, float]) -> float | None:
    """Of so many calls with so long prompts and answers, each."""
    total = 0.0
    for calls, prompt, answer in parts:
        usage = Usage(round(prompt), round(answer), round(prompt) + round(answer))
        if calls and (cost := await price(usage)) is not None:
            total += calls * cost
        elif calls:
            return None
    return total
