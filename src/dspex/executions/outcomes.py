"""What became of a run, and what its calls add up to."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from dspex.executions.records import CacheStatus, ExecutionError
from dspex.gateway.errors import LMError
from dspex.gateway.records import LanguageModelCall
from dspex.kit.errors import DspexError, Exhausted


class Outcome(Struct, frozen=True):
    """`size` is that of the outputs in bytes of JSON, where they were made here."""

    outputs: Mapping[str, Any] | None = None
    violations: tuple[Mapping[str, str], ...] = ()
    error: ExecutionError | None = None
    size: int | None = None


def recorded_error(error: DspexError) -> ExecutionError:
    return ExecutionError(error.kind, error.code, type(error).__name__, error.message, error.retry_after)


def is_of_the_reply(error: DspexError, calls: Sequence[LanguageModelCall]) -> bool:
    """Whether a run with these calls failed by what the model said, not by reaching it.

    A limit may refuse the second question of a run before it is asked, which leaves no line in the trace.
    """
    if isinstance(error, LMError | Exhausted):
        return False
    return bool(calls) and calls[-1].error is None


def usage(calls: Sequence[LanguageModelCall]) -> dict[str, int]:
    """Tokens of all calls by type; a type that no call reported is left out."""
    total: dict[str, int] = {}
    for call in calls:
        for name, count in call.usage.counted():
            total[name] = total.get(name, 0) + count
    return total


def waited_ms(calls: Sequence[LanguageModelCall]) -> float:
    """How long a provider was waited for: calls of steps that ran at the same time count once."""
    if all(call.step is None for call in calls):
        return sum(call.latency_ms for call in calls)
    waited, until = 0.0, float("-inf")
    for begun, ended in sorted(
        (begun, begun + call.latency_ms) for call in calls for begun in [call.started_at.timestamp() * 1000]
    ):
        waited += max(ended - max(begun, until), 0.0)
        until = max(until, ended)
    return waited


def cost(calls: Sequence[LanguageModelCall]) -> float | None:
    """The sum, or None when any call that reached a model has no known price: unknown is never 0.

    Nobody was asked when a budget, a limit or a breaker stood in the way: that costs 0, as everybody knows.
    """
    if not calls:
        return 0.0
    costs = [call.cost_usd for call in calls if call.error is None]
    return None if not costs or None in costs else round(sum(cost for cost in costs if cost is not None), 12)


def saved(calls: Sequence[LanguageModelCall]) -> float:
    return round(sum(call.saved_usd for call in calls), 12)


def model(calls: Sequence[LanguageModelCall]) -> str | None:
    """The alias that was asked last: the costs of a run count for it. One that embeds counts where none writes."""
    writers = [call for call in calls if not call.embeds]
    return next((call.model for call in reversed(writers or calls)), None)


def cache_status(calls: Sequence[LanguageModelCall]) -> CacheStatus:
    """Of a run that may use caches: a hit when no answer was the model's own."""
    answered = [call for call in calls if call.error is None]
    return "hit" if answered and all(call.cache == "hit" for call in answered) else "miss"
