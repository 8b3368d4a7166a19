"""Records for tests, with everything set that a test does not care about."""

from datetime import UTC, datetime, timedelta
from typing import Any

from dspex.datasets.records import Dataset, Example, Row
from dspex.datasets.rules import row_of
from dspex.executions.records import Execution
from dspex.kit.ids import new_id
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
