"""How far an optimizer is: from DSPy's callbacks, GEPA's own, and what optimizers log."""

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dspy
from dspy.teleprompt import GEPA, SIMBA, BootstrapFinetune
from dspy.utils.callback import BaseCallback
from msgspec import Struct

from dspex.kit.json import dumps
from dspex.providers.dspy_worker.modules import without_lms

Tell = Callable[[Mapping[str, Any]], None]
MOST_LINES, LONGEST_LINE = 2000, 2000
# Bytes of a state that is told while the optimizer runs.
LARGEST_STATE = 8 * 1024 * 1024
KEPT = 500
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# What optimizers say of their rounds: (number, of how many).
_ROUNDS = (
    re.compile(r"== Trial (?P<number>\d+) / (?P<of>\d+)"),
    re.compile(r"Iteration Depth: (?P<number>\d+)/(?P<of>\d+)"),
    re.compile(r"Starting batch (?P<number>\d+) of (?P<of>\d+)"),
    re.compile(r"Evaluated Candidate (?P<number>\d+) with score"),
    re.compile(r"==> STEP (?P<number>\d+)/(?P<of>\d+): [A-Z]{5}"),
)


class Best(Struct, frozen=True):
    """The best candidate so far, as its optimizer scored it; `full` when on all of the examples that it scores by, and

    `ours` when those are the very ones that the program is scored on before and after.
    """

    number: int
    score: float
    examples: int
    full: bool
    ours: bool
    state: Mapping[str, Any]


class Watch(BaseCallback):  # type: ignore[misc]
    """Tells of candidates and keeps the best. Called from whichever threads DSPy works in."""

    def __init__(
        self,
        tell: Tell,
        student: dspy.Module,
        full: int,
        of: int | None,
        ours: Sequence[dspy.Example] = (),
        *,
        by_set: bool = False,
        origins: Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]] = lambda state: (),
    ) -> None:
        """`full` is how many examples a whole evaluation has. Only those over `ours` are such ones `by_set`.

        `origins` says where the demonstrations in a state came from.
        """
        self.best: Best | None = None
        self.candidates: list[dict[str, Any]] = []
        self._tell = tell
        self._student = student
        self._full = full
        self._of = of
        self._ours = frozenset(map(id, ours))
        self._by_set = by_set
        self._origins = origins
        self._number = 0
        self._lock = threading.RLock()
        self._evaluating: dict[str, Mapping[str, Any]] = {}
        # Compilations under way, the inner ones last.
        self._compiling: dict[str, Any] = {}
        self._running = threading.local()
        self._runs: dict[int, tuple[dspy.Module, list[float]]] = {}

    def phase(self, phase: str) -> None:
        self._tell({"event": "phase", "phase": phase})

    def candidate(
        self,
        score: float,
        examples: int,
        full: bool,
        state: Callable[[], Mapping[str, Any]],
        *,
        ours: bool = False,
    ) -> None:
        """`score` is 0..1."""
        with self._lock:
            self._number += 1
            told: dict[str, Any] = {
                "event": "candidate",
                "number": self._number,
                "of": self._of,
                "score": score,
                "best": False,
                "examples": examples,
                "full": full,
                "ours": ours,
            }
            best = self.best
            if best is None or (ours, full, score) > (best.ours, best.full, best.score):
                found = without_lms(state())
                self.best = Best(self._number, score, examples, full, ours, found)
                told["best"] = True
                if len(dumps(found)) <= LARGEST_STATE:
                    told["state"] = found
                    told["demos"] = list(self._origins(found))
            if len(self.candidates) < KEPT:
                self.candidates.append(
                    {"number": self._number, "score": score, "examples": examples, "full": full}
                )
            self._tell(told)

    # By DSPy's Evaluate

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: Mapping[str, Any]) -> None:
        # GEPA tells of its candidates itself, and who bootstraps traces for training tries none.
        if any(isinstance(one, GEPA | BootstrapFinetune) for one in self._compiling.values()):
            return
        metadata = inputs.get("callback_metadata") or {}
        devset = inputs.get("devset") or instance.devset
        full = metadata.get("metric_key") == "eval_full" or (
            "metric_key" not in metadata and len(devset) >= min(self._full, len(instance.devset))
        )
        ours = len(devset) == len(self._ours) and all(id(one) in self._ours for one in devset)
        self._evaluating[call_id] = {
            "program": inputs["program"],
            "examples": len(devset),
            "full": ours if self._by_set else full,
            "ours": ours,
        }

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        begun = self._evaluating.pop(call_id, None)
        if begun is None or outputs is None:
            return
        program = begun["program"]
        self.candidate(
            float(outputs.score) / 100,
            begun["examples"],
            begun["full"],
            program.dump_state,
            ours=begun["ours"],
        )

    # By the runs of each program: SIMBA evaluates by itself

    def on_compile_start(self, call_id: str, instance: Any, inputs: Mapping[str, Any]) -> None:
        self._compiling[call_id] = instance

    def on_compile_end(self, call_id: str, outputs: Any, exception: Exception | None = None) -> None:
        self._compiling.pop(call_id, None)

    def on_module_start(self, call_id: str, instance: Any, inputs: Mapping[str, Any]) -> None:
        depth = getattr(self._running, "depth", 0)
        self._running.depth = depth + 1
        if depth == 0:
            self._running.program = instance

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self._running.depth = getattr(self._running, "depth", 1) - 1

    def scored(self, score: float) -> None:
        """The program that ran last in this thread got that score."""
        simba = next((one for one in self._compiling.values() if isinstance(one, SIMBA)), None)
        program = getattr(self._running, "program", None)
        if simba is None or program is None or not isinstance(program, type(self._student)):
            return
        with self._lock:
            _, scores = self._runs.setdefault(id(program), (program, []))
            scores.append(score)
            # Those that sample trajectories run once each.
            if len(scores) in (simba.bsize, self._full) and len(scores) > 1:
                full = len(scores) >= self._full
                self.candidate(sum(scores) / len(scores), len(scores), full, program.dump_state)
            if len(self._runs) > 10 * KEPT:
                self._runs.pop(next(iter(self._runs)))

    # By GEPA

    def on_valset_evaluated(self, event: Mapping[str, Any]) -> None:
        def state() -> Mapping[str, Any]:
            program = self._student.deepcopy()
            for name, predictor in program.named_predictors():
                if name in event["candidate"]:
                    predictor.signature = predictor.signature.with_instructions(event["candidate"][name])
            saved: Mapping[str, Any] = program.dump_state()
            return saved

        self.candidate(
            event["average_score"],
            event["num_examples_evaluated"],
            event["num_examples_evaluated"] >= event["total_valset_size"],
            state,
            ours=event["num_examples_evaluated"] == len(self._ours),
        )

    def on_budget_updated(self, event: Mapping[str, Any]) -> None:
        left = event["metric_calls_remaining"]
        used = event["metric_calls_used"]
        self._tell(
            {
                "event": "iteration",
                "number": used,
                "of": None if left is None else used + left,
                "message": "metric calls",
            }
        )


@contextmanager
def logged(tell: Tell) -> Iterator[None]:
    """Meanwhile DSPy's log lines go there, and nowhere else."""
    logger = logging.getLogger("dspy")
    before, level = list(logger.handlers), logger.level
    logger.handlers = [Lines(tell)]
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers = before
        logger.setLevel(level)


class Lines(logging.Handler):
    """What DSPy and GEPA log, told as lines within bounds; lines that begin a round tell of that as well."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.INFO)
        self._tell = tell
        self._told = 0

    def emit(self, record: logging.LogRecord) -> None:
        text = _COLOURS.sub("", record.getMessage()).strip()
        if not text:
            return
        for form in _ROUNDS:
            if (found := form.search(text)) is not None:
                number, of = int(found["number"]), found.groupdict().get("of")
                self._tell(
                    {
                        "event": "iteration",
                        "number": number,
                        # MIPROv2 counts the program as it was as its first trial, and says so later.
                        "of": None if of is None else max(number, int(of)),
                        "message": text[:LONGEST_LINE],
                    }
                )
                break
        self._told += 1
        if self._told > MOST_LINES:
            return
        if self._told == MOST_LINES:
            text = f"(more than {MOST_LINES} lines; the rest is dropped)"
        level = record.levelname.lower()
        self._tell({"event": "log", "level": level, "text": text[:LONGEST_LINE]})
