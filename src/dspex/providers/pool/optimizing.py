"""What a worker says of an optimization, read and bounded: users' code may have written it."""

import json
import math
from collections.abc import Mapping
from typing import Any

from dspex.executions.errors import OutputTooLarge, ProgramFailed
from dspex.kit import json as exact_json
from dspex.kit.errors import Invalid
from dspex.optimizations.ports import FineTunes, OptimizerHost
from dspex.optimizations.records import Optimized, OptimizerTask
from dspex.providers.pool.conversation import Ask, Conversation
from dspex.providers.worker_protocol import worker_pb2 as wire

PHASES = ("baseline", "optimizing", "scoring")
LEVELS = ("debug", "info", "warning", "error", "critical")
LONGEST_TEXT = 2000
# Of one optimization; a worker that keeps to the rules says less.
MOST_EVENTS, MOST_LOGGED, MOST_PRINTED = 100_000, 3000, 300_000
# Bytes of what an optimizer says of itself.
LARGEST_DETAILS = 1024 * 1024


class OptimizationHeard:
    """An OptimizerHost that hears no more than it should."""

    def __init__(self, host: OptimizerHost, output_bytes: int) -> None:
        self._host = host
        self._output_bytes = output_bytes
        self._events = 0
        self._logged = 0
        self._printed = 0

    async def complete(self, asked: Any) -> Mapping[str, Any]:
        return await self._host.complete(asked)

    async def embed(self, asked: Any) -> Mapping[str, Any]:
        return await self._host.embed(asked)

    def told(self, event: Mapping[str, Any]) -> None:
        self._events += 1
        read = read_event(event, self._output_bytes)
        if read is None or self._events > MOST_EVENTS:
            return
        self._logged += read["event"] == "log"
        if read["event"] != "log" or self._logged <= MOST_LOGGED:
            self._host.told(read)

    def printed(self, stream: str, line: str) -> None:
        self._printed += len(line)
        if self._printed <= MOST_PRINTED:
            self._host.printed("stderr" if stream == "stderr" else "stdout", line[:4000])


class OptimizingConversation(Conversation):
    """Also has models fine-tuned, where the host can."""

    def __init__(self, host: OptimizerHost, output_bytes: int) -> None:
        super().__init__(OptimizationHeard(host, output_bytes))
        self._tunes = host if isinstance(host, FineTunes) else None

    def _asked(self, kind: int) -> Ask:
        if kind != wire.ModelCall.FINE_TUNING:
            return super()._asked(kind)
        if self._tunes is None:
            # A worker that keeps to the rules was told.
            raise Invalid("This node has no models fine-tuned.", code="fine_tuning_unavailable")
        return self._tunes.fine_tune


def read_event(event: Mapping[str, Any], output_bytes: int) -> dict[str, Any] | None:
    """None for what is none."""
    match event.get("event"):
        case "phase" if event.get("phase") in PHASES:
            return {"event": "phase", "phase": event["phase"]}
        case "candidate" if _counts(event.get("number")) and _scores(event.get("score")):
            state = event.get("state")
            whole = isinstance(state, dict) and len(json.dumps(state)) <= output_bytes
            return {
                "event": "candidate",
                "number": event["number"],
                "of": event["of"] if _counts(event.get("of")) else None,
                "score": event["score"],
                "best": event.get("best") is True,
                "examples": event["examples"] if _counts(event.get("examples")) else None,
                "full": event.get("full") is True,
                "ours": event.get("ours") is True,
                **({"state": state, "demos": _origins(event.get("demos"))} if whole else {}),
            }
        case "iteration" if _counts(event.get("number")):
            return {
                "event": "iteration",
                "number": event["number"],
                "of": event["of"] if _counts(event.get("of")) else None,
                "message": str(event.get("message", ""))[:LONGEST_TEXT],
            }
        case "log":
            level = event.get("level")
            return {
                "event": "log",
                "level": level if level in LEVELS else "info",
                "text": str(event.get("text", ""))[:LONGEST_TEXT],
            }
    return None


def read_optimized(said: wire.Optimized, task: OptimizerTask) -> Optimized:
    """Raises ProgramFailed (code optimizer_failed) for what is none, OutputTooLarge."""
    try:
        document = exact_json.loads(said.document_json)
        state, demos, details = document["state"], document["demos"], document["details"]
        scores = document["baseline_score"], document["score"]
        scored_on = document["scored_on"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _unreadable() from None
    if not (isinstance(state, dict) and isinstance(demos, list) and isinstance(details, dict)):
        raise _unreadable()
    if scored_on not in ("validation", "train") or not all(one is None or _scores(one) for one in scores):
        raise _unreadable()
    size = len(json.dumps(state))
    if size > task.output_bytes:
        raise OutputTooLarge(
            f"The optimized program takes {size} bytes, more than the limit of {task.output_bytes}."
        )
    if len(json.dumps(details)) > LARGEST_DETAILS:
        decisive = {
            name: details[name][:LONGEST_TEXT]
            for name in ("stopped", "unreliable")
            if isinstance(details.get(name), str)
        }
        details = {**decisive, "dropped": f"the details took more than {LARGEST_DETAILS} bytes"}
    return Optimized(state, scores[0], scores[1], scored_on, _origins(demos), details)


def _origins(demos: Any) -> list[dict[str, Any]]:
    return [one for one in demos if isinstance(one, dict)] if isinstance(demos, list) else []


def _unreadable() -> ProgramFailed:
    return ProgramFailed("The worker's answer can't be read.", code="optimizer_failed")


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _scores(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
