"""The course of an optimization: score the program as it is, let the optimizer work, score what it found."""

from collections.abc import Mapping
from typing import Any

import dspy
from msgspec.structs import replace

from dspex.evaluations.evidence import MOST_UNKNOWN
from dspex.executions.errors import OutputTooLarge, ProgramFailed
from dspex.kit.errors import DspexError
from dspex.kit.json import dumps
from dspex.programs.records import COMPOSED
from dspex.providers.dspy_worker.building import Built, build
from dspex.providers.dspy_worker.modules import without_lms
from dspex.providers.dspy_worker.optimizing.compiling import Given, compiled, fitted
from dspex.providers.dspy_worker.optimizing.compositions import ensemble, neighbours
from dspex.providers.dspy_worker.optimizing.conversation import BudgetSpent, OptimizingConversation
from dspex.providers.dspy_worker.optimizing.examples import Origins, predictors_of
from dspex.providers.dspy_worker.optimizing.measuring import Scored, compared, score_over
from dspex.providers.dspy_worker.optimizing.task import Task
from dspex.providers.dspy_worker.optimizing.tuning import tunable
from dspex.providers.dspy_worker.optimizing.watching import Tell, Watch, logged
from dspex.providers.dspy_worker.pipeline import PipelineModule
from dspex.providers.dspy_worker.synchronous import synchronous

LONGEST_INSTRUCTIONS = 4000
# DSPy's words after too many examples failed.
_GAVE_UP = "Execution cancelled due to errors"


def _fell_short(found: dspy.Module) -> bool:
    """Whether BetterTogether gave up before its last step."""
    return bool(getattr(found, "flag_compilation_error_occurred", False))


def _doubts(baseline: Scored, scored: Scored | None) -> dict[str, Any]:
    """{"unreliable"}: why no version comes of it, where too many examples could not be scored."""
    total = baseline.examples
    unknown = baseline.failed if scored is None else total - compared(baseline, scored)[2]
    if unknown <= MOST_UNKNOWN * total:
        return {}
    reason = baseline.reason if scored is None or scored.reason is None else scored.reason
    return {
        "unreliable": f"{unknown} of {total} examples could not be scored before and after, more than "
        f"{MOST_UNKNOWN:.0%}. The first: {reason}"
    }


class Course:
    """Runs within the settings of the optimization."""

    def __init__(
        self,
        task: Task,
        built: Built,
        given: Given,
        watch: Watch,
        origins: Origins,
        conversation: OptimizingConversation,
        tell: Tell,
    ) -> None:
        self._tell = tell
        self._task = task
        self._built = built
        self._given = given
        self._watch = watch
        self._origins = origins
        self._conversation = conversation
        self._set = list(given.validation or given.train)
        self._before = without_lms(given.student.dump_state())
        self._config = fitted(task.optimizer, task.config, given)

    def result(self) -> dict[str, Any]:
        self._watch.phase("baseline")
        baseline = self._score(self._given.student)
        if baseline.failed + baseline.refused == baseline.examples:
            self._unscored(baseline)
        self._watch.phase("optimizing")
        try:
            found = self._optimized()
        except BudgetSpent:
            return self._stopped(baseline)
        state = self._state(found)
        program = found if COMPOSED in state else self._loaded(state)
        tuned = self._tuned(found)
        for name, predictor in program.named_predictors():
            if name in tuned:
                predictor.lm = tuned[name]
        self._watch.phase("scoring")
        try:
            scored: Scored | None = self._score(program)
        except BudgetSpent:
            scored = None
        document = self._document(state, baseline, scored, found)
        if tuned:
            # No state says it: a version of this program needs such a model in the registry.
            document["details"]["fine_tuned"] = {name: lm.model for name, lm in tuned.items()}
        return document

    def _tuned(self, found: dspy.Module) -> dict[str, Any]:
        """The models that were made for predictors, by their names."""
        before = {
            name: one.lm.model for name, one in self._with_models().student.named_predictors() if one.lm
        }
        return {
            name: one.lm
            for name, one in found.named_predictors()
            if one.lm is not None and name in before and one.lm.model != before[name]
        }

    def _score(self, program: dspy.Module) -> Scored:
        return score_over(program, self._set, self._given.metric, self._task.threads)

    def _unscored(self, baseline: Scored) -> None:
        error = baseline.error
        if isinstance(error, DspexError):
            raise error
        raise ProgramFailed(
            f"The program could not be scored as it is: {baseline.reason}", code="optimizer_failed"
        ) from error

    def _optimized(self) -> dspy.Module:
        task = self._task
        if task.optimizer == "KNNFewShot":
            return self._composed(neighbours(task, self._config))
        if task.optimizer == "Ensemble":
            return self._composed(ensemble(self._config))
        with logged(self._tell):
            try:
                found = compiled(task.optimizer, self._config, self._with_models())
                if _fell_short(found) and len(found.candidate_programs) == 1:
                    raise RuntimeError("its first step failed; the log says why")
                return found
            except (DspexError, MemoryError):
                raise
            except Exception as error:
                raise self._failure(error) from error

    def _with_models(self) -> Given:
        """What changes models wants to find one at each predictor."""
        if self._task.optimizer not in ("BetterTogether", "BootstrapFinetune"):
            return self._given
        student = self._given.student.deepcopy()
        if isinstance(student, PipelineModule):
            student.give_models()
        else:
            student.set_lm(self._built.lm)
        for predictor in student.predictors():
            predictor.lm = tunable(predictor.lm, self._conversation)
        return replace(self._given, student=student)

    def _failure(self, error: Exception) -> Exception:
        """What the optimizer failed with; a model call's own failure where DSPy says no more than that it gave up."""
        failed = self._conversation.failed
        if failed is not None and self._given.metric.failure is None and _GAVE_UP in str(error):
            return failed
        said = f"{self._task.optimizer} failed: {type(error).__name__}: {str(error)[:2000]}"
        if self._given.metric.failure is not None:
            said += f" The metric failed before: {self._given.metric.failure}"
        elif self._conversation.failed is not None:
            said += f" A model call failed before: {self._conversation.failed}"
        return ProgramFailed(said, code="optimizer_failed")

    def _composed(self, composition: Mapping[str, Any]) -> dspy.Module:
        return self._loaded({**self._before, COMPOSED: composition})

    def _state(self, found: dspy.Module) -> dict[str, Any]:
        state = without_lms(found.dump_state())
        size = len(dumps(state))
        if size > self._task.output_bytes:
            raise OutputTooLarge(
                f"The optimized program takes {size} bytes, more than the limit of {self._task.output_bytes}."
            )
        return state

    def _loaded(self, state: Mapping[str, Any]) -> dspy.Module:
        """The program as a version of it will be built. Raises ProgramFailed when it would not be the same."""
        built = build({**self._task.definition, "state": state})
        again = without_lms(built.module.dump_state())
        if dumps(again, sort_keys=True) != dumps(state, sort_keys=True):
            raise ProgramFailed(
                "The optimized program does not load as it was saved; its module keeps what DSPy's state can't "
                "say.",
                code="optimizer_failed",
            )
        return synchronous(built.module)

    def _stopped(self, baseline: Scored) -> dict[str, Any]:
        """Nothing more may be spent: the best so far, which may be the program as it was."""
        best = self._watch.best
        details = self._details(baseline, None) | {"stopped": "budget"}
        if best is None or (best.ours and best.score <= (baseline.score or 0.0)):
            return self._said(self._before, baseline, baseline.score, details)
        score = best.score if best.ours else None
        return self._said(dict(best.state), baseline, score, details)

    def _document(
        self, state: Mapping[str, Any], baseline: Scored, scored: Scored | None, found: dspy.Module
    ) -> dict[str, Any]:
        details = self._details(baseline, scored)
        if scored is None:
            details["stopped"] = "budget"
        if _fell_short(found):
            details["incomplete"] = "a step failed; the log says why"
        if scored is None:
            return self._said(state, baseline, None, details)
        before, after, examples = compared(baseline, scored)
        details["compared"] = examples
        return self._said(state, replace(baseline, score=before), after, details)

    def _details(self, baseline: Scored, scored: Scored | None) -> dict[str, Any]:
        best = self._watch.best
        return {
            **_doubts(baseline, scored),
            "dspy": dspy.__version__,
            "config": {name: one for name, one in self._config.items() if name != "programs"},
            "baseline": baseline.document(),
            "result": None if scored is None else scored.document(),
            "candidates": self._watch.candidates,
            "best_candidate": None
            if best is None
            else {
                "number": best.number,
                "score": best.score,
                "examples": best.examples,
                "full": best.full,
            },
        }

    def _said(
        self, state: Mapping[str, Any], baseline: Scored, score: float | None, details: dict[str, Any]
    ) -> dict[str, Any]:
        signatures = {name: one.signature for name, one in self._given.student.named_predictors()}
        details["instructions"] = {
            name: one["signature"]["instructions"][:LONGEST_INSTRUCTIONS]
            for name, one in predictors_of(state)
        }
        return {
            "state": state,
            "baseline_score": baseline.score,
            "score": score,
            "scored_on": "validation" if self._given.validation else "train",
            "demos": self._origins.demos(state, self._before, signatures),
            "details": details,
        }
