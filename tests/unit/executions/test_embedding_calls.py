"""What a worker asks to have embedded, read and checked; and for which model a run counts."""

from typing import Any

import pytest

from dspex.executions import outcomes
from dspex.executions.model_calls import EmbeddingCall, read_embedding
from dspex.gateway.records import EmbeddingRequest, LanguageModelCall, Usage
from dspex.kit.errors import Invalid
from tests.making import NOON


def test_a_call_is_read() -> None:
    asked = {"model": "openai/x", "texts": ["a", "b"], "dimensions": None, "step": "find", "key": "ignored"}
    assert read_embedding(asked) == EmbeddingCall("openai/x", ("a", "b"), None, "find")


@pytest.mark.parametrize(
    "asked",
    [
        None,
        {},
        {"model": "openai/x"},
        {"model": "openai/x", "texts": "a"},
        {"model": "openai/x", "texts": [1]},
        {"model": None, "texts": ["a"]},
        {"model": "openai/x", "texts": ["a"], "dimensions": 0},
        {"model": "openai/x", "texts": ["a"], "dimensions": "many"},
    ],
)
def test_what_is_no_call_is_refused(asked: Any) -> None:
    with pytest.raises(Invalid) as refused:
        read_embedding(asked)
    assert refused.value.code == "bad_model_call"


def line(model: str, request: EmbeddingRequest | None = None) -> LanguageModelCall:
    return LanguageModelCall(model, model, "", None, NOON, 1.0, 1, Usage(1, 0, 1), 0.5, request=request)


def test_a_run_counts_for_the_model_that_wrote_last() -> None:
    embedding = line("small", EmbeddingRequest("small", ("a",)))
    assert outcomes.model([]) is None
    assert outcomes.model([embedding]) == "small"
    assert outcomes.model([line("main"), embedding]) == "main"
    assert outcomes.model([line("main"), line("judge"), embedding]) == "judge"
    assert outcomes.cost([line("main"), embedding]) == 1.0
