"""What a worker may have the node send: content, never the node's files or a provider's stored ones."""

from typing import Any

import pytest

from dspex.executions.model_calls import check_extensions, checked, read_call
from dspex.kit.errors import Invalid

DEEP: Any = []
for _ in range(10_000):
    DEEP = [DEEP]


def _call(part: dict[str, Any]) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "parts": [{"type": "text", "text": "see"}, part]}]}


def test_content_and_addresses_pass() -> None:
    for part in ({"type": "image", "data": "aGk="}, {"type": "image", "url": "https://example.com/a.png"}):
        assert checked(_call(part)) == _call(part)
    assert checked(None) is None


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "path": "/etc/passwd"},
        {"type": "document", "file_id": "file-of-somebody"},
        {"type": "tool_result", "id": "1", "content": [{"type": "image", "path": "/etc/passwd"}]},
    ],
)
def test_files_are_refused_wherever_they_stand(part: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        checked(_call(part))
    assert refused.value.code == "file_not_allowed"
    with pytest.raises(Invalid):
        checked({"model": "m", "system": [part], "messages": []})


def test_extensions_change_nothing_that_the_node_decides() -> None:
    check_extensions({"logit_bias": {"1": 2}})
    check_extensions(None)
    for name in (
        "model",
        "messages",
        "max_tokens",
        "n",
        "serviceTier",
        "generation_config",
        "models",
        "prompt",
    ):
        with pytest.raises(Invalid) as refused:
            check_extensions({name: "dear-model"})
        assert refused.value.code == "extension_not_allowed"
    with pytest.raises(Invalid):
        checked({"model": "m", "messages": [], "config": {"extensions": {"model": "dear-model"}}})


@pytest.mark.parametrize(
    "asked",
    [
        None,
        [],
        {},
        {"model": 3},
        {"model": "m", "messages": "hello"},
        {"model": "m", "messages": [{"role": "root", "content": "x"}]},
        {"model": "m", "options": {"max_tokens": "many"}},
        {"model": "m", "canonical": "no"},
        {"model": "m", "canonical": {"config": {}}},
        {"model": "m", "canonical": {"messages": "hello"}},
        {"model": "m", "canonical": {"messages": [], "config": "no"}},
        {"model": "m", "canonical": {"messages": [], "config": {"extensions": ["no"]}}},
        {"model": "m", "canonical": {"messages": [[]]}},
        {"model": "m", "canonical": {"messages": [], "system": DEEP}},
        {"model": "m", "options": {"extensions": {"a": DEEP}}},
        {"model": "m", "options": {"extensions": {"a": float("nan"), "b": 10**30}}},
        {"model": "m", "canonical": {"messages": [{"a": float("inf"), "b": "\ud800"}]}},
    ],
)
def test_what_is_no_call_is_refused(asked: Any) -> None:
    with pytest.raises(Invalid) as refused:
        read_call(asked)
    assert refused.value.code == "bad_model_call"


@pytest.mark.parametrize("tokens", ["100", [1], -(10**9), 0, 1e-9, 100.0, True, 10**8, 10**30])
def test_a_limit_of_tokens_is_a_number_of_them(tokens: Any) -> None:
    for asked in (
        {"model": "m", "options": {"max_tokens": tokens}},
        {"model": "m", "canonical": {"messages": [], "config": {"max_tokens": tokens}}},
        {"model": "m", "canonical": {"messages": [], "config": {"reasoning": {"thinking_budget": tokens}}}},
        {"model": "m", "canonical": {"messages": [], "config": {"reasoning": {"budget": tokens}}}},
    ):
        with pytest.raises(Invalid) as refused:
            read_call(asked)
        assert refused.value.code == "bad_model_call"


def test_a_call_is_read_with_what_is_known_of_its_options() -> None:
    call = read_call(
        {
            "model": "openai/x",
            "alias": "main",
            "messages": [{"role": "user", "content": "hi"}],
            "options": {"temperature": 0.5, "stop": ["a"], "unheard_of": 1},
            "rollout_id": 3,
        }
    )
    assert (call.options.temperature, call.options.stop, call.rollout_id) == (0.5, ("a",), 3)
