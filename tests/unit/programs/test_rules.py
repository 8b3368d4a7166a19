"""Lifecycle, digests and going back: decisions without a database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dspex.kit.errors import Conflict
from dspex.programs.records import Definition, Deployment, LanguageModelChoice
from dspex.programs.rules import (
    TRANSITIONS,
    check_transition,
    compiled_digest,
    definition_digest,
    previous_deployment,
    program_status,
)
from tests import making

DEFINITION = Definition(
    {"inputs": [{"name": "a"}], "outputs": [{"name": "b"}]},
    "predict",
    "chat",
    LanguageModelChoice("main", "openai/gpt-4o-mini", {"temperature": 0.0}),
)


@pytest.mark.parametrize("current", TRANSITIONS)
@pytest.mark.parametrize("wanted", TRANSITIONS)
def test_only_the_steps_of_the_lifecycle_are_taken(current: str, wanted: str) -> None:
    allowed = {
        ("draft", "initializing"),
        ("initializing", "initializing"),
        ("initializing", "ready"),
        ("initializing", "error"),
        ("error", "initializing"),
        ("ready", "optimized"),
        ("ready", "deployed"),
        ("optimized", "deployed"),
        ("deployed", "ready"),
        ("deployed", "optimized"),
    }
    if (current, wanted) in allowed:
        check_transition(current, wanted)  # type: ignore[arg-type]
        return
    with pytest.raises(Conflict, match=f"{current} can't become {wanted}"):
        check_transition(current, wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ((), "draft"),
        (("draft",), "draft"),
        (("error", "draft"), "error"),
        (("deployed", "error", "initializing"), "deployed"),
        (("optimized", "ready"), "optimized"),
    ],
)
def test_a_program_is_as_far_as_its_furthest_version(statuses: tuple[str, ...], expected: str) -> None:
    assert program_status(making.program(), statuses) == expected
    assert program_status(making.program(archived_at=making.NOON), statuses) == "archived"


def test_everything_that_decides_what_a_version_does_is_in_its_digest() -> None:
    lm = DEFINITION.lm
    changes = [
        replace(DEFINITION, signature={**DEFINITION.signature, "instructions": "Be brief."}),
        replace(DEFINITION, module="chain_of_thought"),
        replace(DEFINITION, adapter="json"),
        replace(DEFINITION, lm=replace(lm, alias="other")),
        replace(DEFINITION, lm=replace(lm, model="openai/gpt-4o")),
        replace(DEFINITION, lm=replace(lm, options={"temperature": 0.1})),
        replace(DEFINITION, state={"demos": []}),
        replace(DEFINITION, mock={}),
    ]
    digests = {definition_digest(one) for one in [DEFINITION, *changes]}
    assert len(digests) == len(changes) + 1


def test_our_name_for_a_model_does_not_change_what_is_compiled() -> None:
    renamed = replace(DEFINITION, lm=replace(DEFINITION.lm, alias="other"))
    assert compiled_digest(renamed) == compiled_digest(DEFINITION)
    assert compiled_digest(replace(DEFINITION, adapter="json")) != compiled_digest(DEFINITION)


@given(st.lists(st.one_of(st.sampled_from("abcd"), st.none()), max_size=12))
def test_rolling_back_undoes_deployments_one_by_one(steps: list[str | None]) -> None:
    """None is a rollback, a letter deploys that version. The model is a plain stack."""
    stack: list[str] = []
    history: list[Deployment] = []
    for step in steps:
        if step is None:
            target = previous_deployment(history)
            assert target == (stack[-2] if len(stack) > 1 else None)
            if target is None:
                continue
            stack.pop()
            history.insert(0, _line(target, "rollback"))
        elif not stack or stack[-1] != step:
            stack.append(step)
            history.insert(0, _line(step, "deploy"))


def _line(version: str, action: str) -> Deployment:
    return Deployment("id", "default", "program", version, action, making.NOON)  # type: ignore[arg-type]
