"""What feedback says, taken together, and the example it makes of an execution: pure decisions."""

from collections.abc import Mapping, Sequence
from typing import Any

from dspex.datasets.records import Example
from dspex.executions.feedback.records import ExampleFilter, Feedback
from dspex.executions.records import Execution
from dspex.kit.errors import Invalid, Problem
from dspex.signatures.records import Signature
from dspex.signatures.validation import OutputChecker


def check_correction(
    correction: Mapping[str, Any], execution: Execution, signature: Signature | None
) -> None:
    """Raises Invalid (code bad_correction) unless it makes the outputs whole and of the right types.

    Without a known signature its fields must be outputs that the execution has.
    """
    known = execution.outputs or {}
    fields = {field.name for field in signature.outputs} if signature and signature.outputs else set(known)
    problems = [
        Problem(f"/correction/{name}", "unexpected", "is no output of this program")
        for name in correction
        if name not in fields
    ]
    if signature is not None and signature.outputs and not problems:
        whole = {name: value for name, value in known.items() if name in fields} | dict(correction)
        try:
            OutputChecker(signature).validate(whole)
        except Invalid as error:
            problems = [
                Problem("/correction" + one.pointer.removeprefix("/outputs"), one.code, one.message)
                for one in error.problems
            ]
    if problems:
        raise Invalid(
            "The correction does not give outputs of this program; those it leaves out are the execution's own.",
            code="bad_correction",
            problems=problems,
        )


def standing(feedback: Sequence[Feedback]) -> dict[str, Any]:
    """The newest word on each of score, label, correction and comment; absent ones are left out."""
    said: dict[str, Any] = {}
    for one in feedback:
        for name in ("score", "label", "correction", "comment"):
            if getattr(one, name) is not None:
                said[name] = getattr(one, name)
    return said


def example_of(
    execution: Execution, feedback: Sequence[Feedback], where: ExampleFilter, outputs: frozenset[str] | None
) -> Example | None:
    """The example of an execution; None when it is not wanted, or has no outputs to learn from.

    `outputs` are the fields of the program's signature, None where any may come: reasoning is none of them.
    """
    said = standing(feedback)
    correction = said.pop("correction", None)
    if where.only == "corrections" and correction is None:
        return None
    if where.min_score is not None and said.get("score", float("-inf")) < where.min_score:
        return None
    if where.label is not None and said.get("label") != where.label:
        return None
    if execution.status != "completed" and correction is None:
        return None
    whole = {**(execution.outputs or {}), **(correction or {})}
    provenance = {
        "execution_id": execution.id,
        "program": execution.program,
        "version": execution.version,
        "version_id": execution.version_id,
        "feedback": [one.id for one in feedback],
        "corrected": correction is not None,
        "simulated": execution.simulated,
    }
    kept = {name: value for name, value in whole.items() if outputs is None or name in outputs}
    return Example(execution.inputs, kept, said, provenance) if kept else None


_WANTED = {"corrections": "has a correction", "feedback": "has feedback", "all": "completed"}


def why_none_fits(where: ExampleFilter) -> str:
    """What a filter asks for that no execution has, and what to do about it."""
    given = {
        "version": where.version,
        "since": where.since,
        "until": where.until,
        "min_score": where.min_score,
        "label": where.label,
    }
    narrowed = [name for name, value in given.items() if value is not None]
    if narrowed:
        among = f" among those that {' and '.join(f'`{name}`' for name in narrowed)} let through"
        return f"No execution of {where.program!r} {_WANTED[where.only]}{among}; ask for more."
    if where.only == "all":
        return f"No execution of {where.program!r} {_WANTED['all']} yet."
    return (
        f"No execution of {where.program!r} {_WANTED[where.only]} yet: give some with "
        "`POST /v1/executions/ID/feedback`, or take executions without (`only: all`)."
    )
