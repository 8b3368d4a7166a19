"""The forms of what callers send about evaluations."""

from typing import Annotated, Any, Literal

from pydantic import Field

from dspex.interfaces.rest.forms import CachePolicyForm, Label, Number, Paged, Strict
from dspex.interfaces.rest.forms import Query as QueryForm

Status = Literal["queued", "running", "paused", "completed", "failed", "cancelled"]


class EvaluationForm(Strict):
    """`dataset` is a name, or a name and a version as in "tickets@3". `limit` runs the first rows alone.

    `metric` is the name of one, or an object such as {"name": "f1", "field": "answer"} or {"python":
    "package.module:function"}.
    """

    program: Label
    dataset: Label
    metric: Any = "exact_match"
    version: Number | None = None
    dataset_version: Number | None = None
    budget_usd: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=1000)] | None = None
    limit: Number | None = None
    use_cache: bool = True
    cache: CachePolicyForm | None = None


class EvaluationList(Paged):
    program: Label | None = None
    dataset: Label | None = None
    status: Status | None = None
    version: Number | None = None


class ResultList(Paged):
    """`order=score` has the lowest scores first; examples that failed have none."""

    status: Literal["scored", "failed"] | None = None
    order: Literal["position", "score"] = "position"


class Compared(QueryForm):
    a: Label
    b: Label


class ComparedExamples(Paged):
    a: Label
    b: Label
    changed: bool = True
