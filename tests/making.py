"""Records for tests, with everything set that a test does not care about."""

from datetime import UTC, datetime, timedelta
from typing import Any

from dspex.datasets.records import Dataset, Example, Row
from dspex.datasets.rules import row_of
from dspex.evaluations.metrics.records import MetricSpec
from dspex.evaluations.records import Evaluation
from dspex.executions.records import Execution
from dspex.jobs.records import Job
from dspex.kit.ids import new_id
from dspex.optimizations.records import Examples, Optimization, Plan
from dspex.programs.records import Definition, LanguageModelChoice, Program, ProgramSettings, Version

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def execution(**changes: Any) -> Execution:
    given: dict[str, Any] = {
        "id": new_id(),
        "project": "default",
        "request_id": "request",
        "program": "qa",
        "status": "completed",
        "created_at": NOON,
        "node": "node-1",
        "inputs": {"question": "why?"},
        **changes,
    }
    return Execution(**given)


def program(**changes: Any) -> Program:
    given: dict[str, Any] = {
        "id": new_id(),
        "project": "default",
        "name": "qa",
        "source": "api",
        "settings": ProgramSettings(),
        "created_at": NOON,
        "updated_at": NOON,
        **changes,
    }
    return Program(**given)


def version(of: Program, digest: str = "d1", **changes: Any) -> Version:
    lm = LanguageModelChoice("main", "openai/gpt-4o-mini", {"temperature": 0.0, "max_tokens": 1000})
    definition = Definition({"outputs": [{"name": "b"}], "inputs": [{"name": "a"}]}, "predict", "chat", lm)
    given: dict[str, Any] = {
        "id": new_id(),
        "project": of.project,
        "program_id": of.id,
        "number": 0,
        "digest": digest,
        "definition": definition,
        "status": "draft",
        "created_at": NOON,
        **changes,
    }
    return Version(**given)


def dataset(name: str = "tickets", **changes: Any) -> Dataset:
    """As it is before it is published."""
    given: dict[str, Any] = {
        "id": new_id(),
        "project": "default",
        "name": name,
        "version": 0,
        "kind": "training",
        "digest": "d1",
        "rows": 3,
        "fields": {"inputs": {"b": ["string"], "a": ["null"]}, "outputs": {}},
        "created_at": NOON,
        "description": "of tickets",
        "metadata": {"z": 1, "a": "\x00"},
        "origin": {"source": "api"},
        **changes,
    }
    return Dataset(**given)


def row(position: int, inputs: Any = None, **more: Any) -> Row:
    example = Example(inputs or {"b": str(position), "a": None}, {"label": "\ud800"}, **more)
    made = row_of(example, position, 1_000_000)
    assert isinstance(made, Row)
    return made


def job(job_id: str, **changes: Any) -> Job:
    return Job(
        **{
            "id": job_id,
            "project": "default",
            "kind": "evaluation",
            "queue": "default",
            "created_at": NOON,
            "due_at": NOON,
            "payload": {},
            **changes,
        }
    )


def evaluation(**changes: Any) -> Evaluation:
    given: dict[str, Any] = {
        "id": new_id(),
        "project": "default",
        "program": "qa",
        "version": 1,
        "dataset": "tickets",
        "dataset_version": 2,
        "dataset_id": "d",
        "dataset_digest": "d1",
        "metric": MetricSpec("f1", ("answer",)),
        "examples": 3,
        "concurrency": 4,
        "created_at": NOON,
        **changes,
    }
    return Evaluation(**given)


def optimization(**changes: Any) -> tuple[Optimization, Job]:
    """With the job of its id."""
    examples = Examples("d", "tickets", 2, "digest")
    plan = Plan(
        program=changes.pop("program", "qa"),
        program_id="p",
        version_id="v",
        version=1,
        digest="abc",
        pool="general",
        dataset=examples,
        validation=None,
        validation_share=0.3,
        train_rows=7,
        validation_rows=3,
        optimizer=changes.pop("optimizer", "BootstrapFewShot"),
        config={"b": 1, "a": [None]},
        predictors=("self",),
        metric={"name": "exact_match"},
        seed=0,
        threads=8,
        budget_usd=None,
        use_cache=True,
        deploy=False,
    )
    given: dict[str, Any] = {
        "id": new_id(),
        "project": "default",
        "plan": plan,
        "identity": "same",
        "created_at": NOON,
        **changes,
    }
    made = Optimization(**given)
    job = Job(made.id, made.project, "optimization", "optimization", made.created_at, made.created_at, {})
    return made, job
