"""What a call may take, before it is made."""

import pytest

from dspex.gateway.accounting import OUTPUT_TOKENS, CallsApart, estimate
from dspex.gateway.records import LanguageModelCall
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
