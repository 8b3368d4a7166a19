"""How far an optimization is, from what its worker tells: users' code speaks there, so all of it is bounded."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from dspex.gateway.records import LanguageModelCall
from dspex.kit import json
from dspex.kit.clock import Clock
from dspex.optimizations.records import Best, Counters, Event, Kept, Standing
from dspex.optimizations.rules import MOST_POINTS

PHASES = ("baseline", "optimizing", "scoring")
# Of one optimization, all attempts together; of one line.
MOST_EVENTS = 5000
MOST_TEXT = 2000
MOST_STATE = 8_000_000
MOST_DEMOS = 1000


class Report:
    """Changes as it is told; `taken` gives what is to be written, and `lost` gives it back when that failed."""

    def __init__(self, standing: Standing, last_event: int, clock: Clock) -> None:
        self.standing = standing
        self._counters = standing.counters
        self._clock = clock
        self._number = last_event
        self._events: list[Event] = []
        self._changed = True
        self._began = clock.monotonic()
        self._ran_before = standing.counters.running_s
        # What answers to the program were worth since the present phase began: those of before as well as those paid
        # for now. What the metric asks is no cost of a prediction.
        self.phase_worth = 0.0

    @property
    def counters(self) -> Counters:
        running = self._ran_before + self._clock.monotonic() - self._began
        return replace(self._counters, running_s=round(running, 3))

    def taken(self) -> tuple[Standing, Sequence[Event]] | None:
        """None when nothing has changed."""
        if not self._changed:
            return None
        self._changed = False
        events, self._events = self._events, []
        self.standing = replace(self.standing, counters=self.counters)
        return self.standing, events

    def lost(self, events: Sequence[Event]) -> None:
        self._changed = True
        self._events = [*events, *self._events]

    def told(self, event: Mapping[str, Any]) -> None:
        kind = event.get("event")
        take: Callable[[Mapping[str, Any]], None] | None = {
            "phase": self._phase,
            "candidate": self._candidate,
            "iteration": self._iteration,
            "log": self._log,
        }.get(str(kind))
        if take is not None:
            take(event)

    def printed(self, stream: str, line: str) -> None:
        self._append({"event": "log", "level": stream, "text": line[:MOST_TEXT]})

    def say(self, body: Mapping[str, Any]) -> None:
        """Something of our own."""
        self._append(body)

    def _phase(self, event: Mapping[str, Any]) -> None:
        phase = event.get("phase")
        if phase in PHASES and phase != self.standing.phase:
            self.phase_worth = 0.0
            self.standing = replace(self.standing, phase=phase)
            self._append({"event": "phase", "phase": phase})
        score = _score(event.get("baseline_score"))
        if score is not None:
            self.baseline(score)

    def baseline(self, score: float) -> None:
        self.standing = replace(self.standing, baseline_score=score)
        self._changed = True

    def _candidate(self, event: Mapping[str, Any]) -> None:
        score = _score(event.get("score"))
        number, of = _count(event.get("number")), _count(event.get("of"))
        standing = self.standing
        state = event.get("state")
        best = standing.best
        full, ours = event.get("full") is True, event.get("ours") is True
        if event.get("best") is True and score is not None and isinstance(state, Mapping):
            # A later attempt tells all anew: what is known is not made worse by that. A score on a few examples, or on
            # those that were learned from, says less than any on those that were held out.
            surpasses = best is None or (ours, full, score) >= (best.ours, best.full, best.score)
            if surpasses and _fits(state):
                best = Best(score, state, number, full, ours, _demos(event.get("demos")))
        seen = {point.get("number") for point in standing.curve}
        point = {
            "number": number,
            "score": score,
            "best": None if best is None else best.score,
            "cost_usd": self.counters.spent_usd,
            "full": full,
        }
        self.standing = replace(
            standing,
            best=best,
            candidates=max(standing.candidates, number or standing.candidates + 1),
            of=of or standing.of,
        )
        if number is None or number not in seen:
            self.standing = replace(self.standing, curve=(*standing.curve, point)[-MOST_POINTS:])
            told = {**point, "of": of, "examples": _count(event.get("examples"))}
            told["is_best"] = event.get("best") is True
            self._append({"event": "candidate", **told})
        self._changed = True

    def _iteration(self, event: Mapping[str, Any]) -> None:
        message = event.get("message")
        iteration = {
            "number": _count(event.get("number")),
            "of": _count(event.get("of")),
            "message": message[:MOST_TEXT] if isinstance(message, str) else None,
        }
        if iteration != self.standing.iteration:
            self.standing = replace(self.standing, iteration=iteration)
            self._append({"event": "iteration", **iteration})

    def _log(self, event: Mapping[str, Any]) -> None:
        text, level = event.get("text"), event.get("level")
        if isinstance(text, str):
            said = level[:20] if isinstance(level, str) else "info"
            self._append({"event": "log", "level": said, "text": text[:MOST_TEXT]})

    def _append(self, body: Mapping[str, Any]) -> None:
        self._changed = True
        # The last places are for what says how it ended.
        if self._number >= MOST_EVENTS and body.get("event") not in ("status", "result"):
            return
        self._number += 1
        self._events.append(Event(self._number, self._clock.now(), body))

    def paid(self, kept: Kept, lines: Sequence[LanguageModelCall], *, metric: bool = False) -> None:
        """An answer that is in the journal now."""
        counters = self._counters
        usage = kept.reply.get("usage") or {}
        saved = sum(line.saved_usd for line in lines)
        if not metric:
            self.phase_worth += (kept.cost_usd or 0.0) + saved
        self._set(
            replace(
                counters,
                lm_calls=counters.lm_calls + 1,
                cost_usd=round(counters.cost_usd + (kept.cost_usd or 0.0), 12),
                unpriced=counters.unpriced + (kept.cost_usd is None),
                saved_usd=round(counters.saved_usd + saved, 12),
                input_tokens=counters.input_tokens + (usage.get("input_tokens") or 0),
                output_tokens=counters.output_tokens + (usage.get("output_tokens") or 0),
            )
        )

    def wasted(self, lines: Sequence[LanguageModelCall], cost_usd: float) -> None:
        """Attempts that gave no answer."""
        counters = self._counters
        failed = sum(line.error is not None for line in lines)
        wasted = round(counters.wasted_usd + cost_usd, 12)
        self._set(replace(counters, failed_calls=counters.failed_calls + failed, wasted_usd=wasted))

    def replayed(self, kept: Kept, *, metric: bool = False) -> None:
        if not metric:
            self.phase_worth += kept.cost_usd or 0.0
        self._set(replace(self._counters, replayed_calls=self._counters.replayed_calls + 1))

    def repeated(self, kept: Kept | None = None, *, metric: bool = False) -> None:
        if kept is not None and not metric:
            self.phase_worth += kept.cost_usd or 0.0
        self._set(replace(self._counters, repeated_calls=self._counters.repeated_calls + 1))

    def _set(self, counters: Counters) -> None:
        self._counters = counters
        self._changed = True


def _score(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return round(float(value), 9)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _demos(told: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(told, Sequence) or isinstance(told, str):
        return ()
    demos = tuple(one for one in told[:MOST_DEMOS] if isinstance(one, Mapping))
    return demos if len(json.dumps(demos)) <= MOST_STATE else ()


def _fits(state: Mapping[str, Any]) -> bool:
    return bool(state) and len(json.dumps(state)) <= MOST_STATE
