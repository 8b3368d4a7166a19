"""Metrics as they are written in JSON and YAML."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dspex.evaluations.metrics.records import NAMES, MetricSpec
from dspex.kit.errors import Invalid, Problem
from dspex.programs.kinds import REFERENCE

_REFERENCE = re.compile(REFERENCE)
_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "exact_match": ("field", "fields"),
    "f1": ("field", "fields"),
    "contains": ("field", "fields"),
    "semantic_similarity": ("field", "fields", "threshold", "model"),
    "lm_judge": ("field", "fields", "criteria", "model"),
    "python": ("reference", "timeout_s"),
}
MOST_FIELDS = 100
LONGEST_TEXT = 10_000
LONGEST_S = 600.0


def read_metric(document: Any, *, at: str = "/metric") -> MetricSpec:
    """From "exact_match", {"name": "f1", "field": "answer"} or {"python": "shop.metrics:accuracy"}.

    Raises Invalid (code bad_metric) with every problem, by pointers below `at`.
    """
    name, options = _named(document, at)
    problems = list(_problems(name, options, at))
    if problems:
        raise _bad(problems, at)
    return _spec(name, options)


def metric_of(document: Mapping[str, Any]) -> MetricSpec:
    """What `MetricSpec.document` gave."""
    return MetricSpec(**{**document, "fields": tuple(document.get("fields", ()))})


def _named(document: Any, at: str) -> tuple[str, Mapping[str, Any]]:
    if isinstance(document, str):
        document = {"name": document}
    if not isinstance(document, Mapping):
        raise _bad(
            [Problem(at, "wrong_type", "must be the name of a metric, or an object with its name")], at
        )
    options = dict(document)
    if "python" in options and "name" not in options:
        options = {"name": "python", "reference": options.pop("python"), **options}
    name = options.pop("name", None)
    if name not in NAMES:
        told = f'must be {", ".join(NAMES[:-1])}, or {{"python": "package.module:function"}}'
        raise _bad([Problem(at if isinstance(name, str) else f"{at}/name", "unknown_metric", told)], at)
    return name, options


def _problems(name: str, options: Mapping[str, Any], at: str) -> Iterator[Problem]:
    known = _OPTIONS[name]
    for option, value in options.items():
        if option not in known:
            takes = ", ".join(one for one in known if one != "fields")
            yield Problem(f"{at}/{option}", "unexpected", f"{name} takes {takes}, and not this")
        elif (wrong := _wrong(option, value)) is not None:
            yield Problem(f"{at}/{option}", "invalid", wrong)
    if name == "python" and "reference" not in options:
        yield Problem(
            f"{at}/reference", "missing", 'name the function: {"python": "package.module:function"}'
        )
    if "field" in options and "fields" in options:
        yield Problem(f"{at}/fields", "unexpected", "give `field` or `fields`, not both")


def _wrong(option: str, value: Any) -> str | None:
    match option:
        case "field":
            return None if _is_text(value, 200) else "must be the name of an output"
        case "fields":
            good = isinstance(value, list | tuple) and 1 <= len(value) <= MOST_FIELDS
            if good and all(_is_text(one, 200) for one in value) and len(set(value)) == len(value):
                return None
            return "must be a list of names of outputs, each once"
        case "reference":
            good = _is_text(value, 500) and _REFERENCE.fullmatch(value) is not None
            return None if good else 'must be "package.module:function"'
        case "timeout_s":
            return None if _is_number(value) and 0 < value <= LONGEST_S else f"must be 0 to {LONGEST_S:g} s"
        case "threshold":
            return None if _is_number(value) and -1 <= value <= 1 else "must be a cosine, -1 to 1"
        case "model":
            return None if _is_text(value, 200) else "must be the alias of a model"
        case _:
            return None if _is_text(value, LONGEST_TEXT) else "must be text"


def _is_text(value: Any, longest: int) -> bool:
    # What no database takes, and no file holds, is no text for us.
    if not isinstance(value, str) or not 0 < len(value) <= longest or "\x00" in value:
        return False
    return not any("\ud800" <= one <= "\udfff" for one in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _spec(name: str, options: Mapping[str, Any]) -> MetricSpec:
    said = dict(options)
    fields = tuple(said.pop("fields", ()))
    if "field" in said:
        fields = (said.pop("field"),)
    for number in ("threshold", "timeout_s"):
        if number in said:
            said[number] = float(said[number])
    return MetricSpec(name, fields, **said)  # type: ignore[arg-type]


def _bad(problems: list[Problem], at: str) -> Invalid:
    # The message is for people as well, who wrote no JSON.
    named = [(one.pointer.removeprefix(at).lstrip("/"), one.message) for one in problems]
    told = "; ".join(f"{name} {message}".lstrip() for name, message in named)
    return Invalid(f"The metric can't be used: {told}.", code="bad_metric", problems=problems)
