"""What a call may take, before it is made."""

from typing import Any

import pytest
from lm15.types import EFFORT_THINKING_BUDGETS
from msgspec.structs import replace

from dspex.gateway.accounting import IMAGE_BYTES, OUTPUT_TOKENS, THINKING_TOKENS, CallsApart, estimate
from dspex.gateway.records import Dialect, LanguageModelCall, LanguageModelRequest
from tests.clock import FakeClock
from tests.unit.gateway.scripted import Model, PerToken, context, gateway, request


def test_a_prompt_counts_by_its_bytes_and_a_reply_by_its_limit() -> None:
    assert estimate(request()).input_tokens == 100
    assert estimate(request()).output_tokens == 10
    assert estimate(request()).total_tokens == 110
    assert estimate(request("")).input_tokens == 8
    assert estimate(request("é" * 138)).input_tokens == 100
    assert estimate(request("\ud800")).input_tokens == 9


def test_a_request_without_a_limit_may_get_a_long_reply() -> None:
    assert estimate(request(max_tokens=None)).output_tokens == OUTPUT_TOKENS


def test_a_schema_for_the_reply_is_part_of_the_prompt() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    plain, formed = estimate(request()).input_tokens, estimate(request(response_format=schema)).input_tokens
    assert plain is not None and formed is not None
    assert formed > plain + 20


def canonical(*parts: dict[str, Any], **more: Any) -> LanguageModelRequest:
    """It says next to nothing in its messages."""
    messages = [{"role": "user", "parts": list(parts)}]
    return replace(request(""), canonical={"messages": messages, **more})


def test_a_prompt_is_what_is_sent() -> None:
    text = {"type": "text", "text": "x" * 3_000_000}
    for asked in (canonical(text), canonical(system=[text]), canonical(tools=[{"name": text["text"]}])):
        assert estimate(asked).input_tokens >= 1_000_000
    asked = replace(request("x" * 3_000_000), canonical={"messages": []})
    assert estimate(asked).input_tokens >= 1_000_000


def test_an_image_counts_by_its_bytes_as_much_as_a_provider_may_count_for_one() -> None:
    image = {"type": "image", "data": "x" * 3_000}
    inside = {"type": "tool_result", "id": "1", "content": [image]}
    for part in (image, inside):
        assert 1_000 <= estimate(canonical(part)).input_tokens <= 1_100
    image["data"] = "x" * 10_000_000
    most = IMAGE_BYTES // 3
    for part in (image, inside):
        assert most <= estimate(canonical(part)).input_tokens <= most + 100
    assert 2 * most <= estimate(canonical(image, image)).input_tokens <= 2 * most + 100


def test_a_reply_counts_by_the_limit_that_is_sent() -> None:
    assert estimate(canonical(config={"max_tokens": 70})).output_tokens == 70
    assert estimate(canonical(config={})).output_tokens == OUTPUT_TOKENS
    assert estimate(canonical()).output_tokens == OUTPUT_TOKENS


def test_thinking_that_is_paid_beside_the_reply_counts() -> None:
    assert THINKING_TOKENS == EFFORT_THINKING_BUDGETS
    for name in ("thinking_budget", "budget"):
        asked = canonical(config={"max_tokens": 1, "reasoning": {name: 5_000}})
        assert estimate(asked).output_tokens == 5_001
    anthropic = Dialect("anthropic", "anthropic")
    for asked in (
        request(max_tokens=1, reasoning_effort="max"),
        canonical(config={"max_tokens": 1, "reasoning": {"effort": "max"}}),
    ):
        assert estimate(asked).output_tokens == 1
        assert estimate(replace(asked, dialect=anthropic)).output_tokens == 32_769


def test_calls_of_others_are_not_seen_and_ones_own_reach_the_trace_whatever_happens() -> None:
    whole = gateway(Model(), PerToken(), FakeClock()).passage(request(), context())
    mine, others = (LanguageModelCall(*_LINE, attempt=attempt, **_REST) for attempt in (1, 2))
    apart = CallsApart(whole)
    with pytest.raises(RuntimeError), apart:
        whole.context.calls.append(others)
        apart.passage.context.calls.append(mine)
        assert apart.calls == [mine]
        with CallsApart(apart.passage) as inside:
            # A second attempt, seen by a step that stands around each.
            inside.passage.context.calls.append(others)
        assert inside.calls == [others]
        raise RuntimeError
    assert apart.calls == [mine, others]
    assert whole.context.calls == [others, mine, others]


_LINE = ("main", "m", "openai-chat", "chat", FakeClock().now(), 1.0)
_REST: dict[str, object] = {"usage": estimate(request()), "cost_usd": None}
