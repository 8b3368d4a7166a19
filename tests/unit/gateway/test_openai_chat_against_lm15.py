"""The Chat Completions codec against lm15 (bytes, usage) and DSPy (text, error class)."""

import json
from typing import Any

import lm15
import pytest
from dspy import lm15 as dspy_lm15
from dspy._vendor.lm15.providers.base import HttpResponse
from dspy._vendor.lm15.providers.openai_chat import OpenAIChatLM as DspyChatLM
from dspy.clients.call_result import legacy_output
from dspy.clients.errors import wrap_error
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lm15.compat import OpenAIChatCompat
from lm15.providers.base import HttpResponse as Lm15HttpResponse
from lm15.providers.openai_chat import OpenAIChatLM

from dspex.gateway.errors import LMAuthError, LMError
from dspex.gateway.records import Dialect, LanguageModelRequest, Message, Options
from dspex.kit.errors import Invalid
from dspex.providers.language_models.openai_chat import decode, encode

quick = settings(
    max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", "\u2028", "\x00\x1f\x7f", '"\\/', "é\U0001f600", "[[ ## answer ## ]]\n4"]
)
any_texts = st.text(max_size=12)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
schemas = st.dictionaries(texts, json_values, max_size=3)
response_formats = st.just({"type": "json_object"}) | st.fixed_dictionaries(
    {"type": st.just("json_schema"), "schema": schemas},
    optional={"name": texts.filter(bool), "strict": st.booleans()},
)


@st.composite
def requests(draw: st.DrawFn, text: st.SearchStrategy[str] = texts) -> LanguageModelRequest:
    roles = draw(st.lists(st.sampled_from(["user", "assistant"]), min_size=1, max_size=3))
    messages = [Message(role, draw(text)) for role in roles]  # type: ignore[arg-type]
    if draw(st.booleans()):
        messages.insert(0, Message("system", draw(text.filter(bool))))
    optional: dict[str, st.SearchStrategy[Any]] = {
        "max_tokens": st.integers(1, 2**70),
        "temperature": st.floats(0, 2) | st.sampled_from([0, 1, 1e-05, 1e-07]),
        "top_p": st.floats(0.0, 1.0),
        "top_k": st.integers(1, 100),
        "seed": st.integers(-(2**70), 2**70),
        "frequency_penalty": st.floats(-2, 2),
        "presence_penalty": st.integers(-2, 2),
        "stop": st.lists(texts.filter(bool), max_size=3).map(tuple),
        "response_format": response_formats,
        "reasoning_effort": st.sampled_from(["off", "minimal", "low", "medium", "high"]),
        "service_tier": texts.filter(bool),
        "user_id": texts.filter(bool),
        "store": st.booleans(),
        "extensions": st.dictionaries(
            st.sampled_from(["logit_bias", "verbosity", "cache", "seed", "ü"]), json_values, max_size=3
        ),
    }
    options = Options(**draw(st.fixed_dictionaries({}, optional=optional)))
    dialect = Dialect(
        model=draw(texts.filter(bool)),
        max_tokens_field=draw(st.sampled_from(["max_tokens", "max_completion_tokens"])),
        instruction_role=draw(st.sampled_from(["system", "developer"])),
    )
    return LanguageModelRequest("main", tuple(messages), options, dialect)


def canonical(request: LanguageModelRequest) -> lm15.Request:
    options = request.options
    plain: tuple[str, ...] = ("max_tokens", "temperature", "top_p", "top_k", "seed")
    plain += ("frequency_penalty", "presence_penalty")
    plain += ("stop", "response_format", "service_tier", "user_id", "store", "extensions")
    effort = options.reasoning_effort
    return lm15.Request(
        model=request.dialect.model,
        messages=[
            lm15.Message(role=one.role, parts=(lm15.TextPart(one.content),))
            for one in request.messages
            if one.role != "system"
        ],
        system=next((one.content for one in request.messages if one.role == "system"), None),
        config=lm15.Config(
            **{name: getattr(options, name) for name in plain},
            reasoning=None if effort is None else lm15.Reasoning(effort=effort),
        ),
    )


def lm15_bytes(request: LanguageModelRequest) -> bytes:
    compat = OpenAIChatCompat(
        max_tokens_field=request.dialect.max_tokens_field,
        instruction_role=request.dialect.instruction_role,
        thinking_format="reasoning_effort",
    )
    provider = OpenAIChatLM(api_key="k", compat=compat)
    return bytes(provider.build_request(canonical(request), stream=False).body)


@quick
@given(requests())
def test_a_request_has_the_bytes_lm15_would_send(request: LanguageModelRequest) -> None:
    assert encode(request) == lm15_bytes(request)
    assert encode(request) == lm15_bytes(request), "also from what was kept of the first time"


@quick
@given(requests(any_texts))
def test_what_lm15_refuses_to_encode_is_refused(request: LanguageModelRequest) -> None:
    try:
        expected = lm15_bytes(request)
    except ValueError:
        with pytest.raises(Invalid) as refused:
            encode(request)
        assert refused.value.code == "not_encodable"
    else:
        assert encode(request) == expected


counts = st.none() | st.integers(-1, 10**6) | st.just(2**70) | st.sampled_from([3.0, 3.5, "3", True])
messages = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": st.none()
        | any_texts
        | st.integers()
        | st.lists(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["text", "image"])}, optional={"text": any_texts | st.none()}
            )
            | st.none(),
            max_size=3,
        ),
        "refusal": st.none() | texts,
        "reasoning_content": st.none() | texts,
        "tool_calls": st.none()
        | st.integers(0, 1)
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "id": texts,
                    "type": st.sampled_from(["function", "custom", None]),
                    "function": st.none()
                    | st.fixed_dictionaries(
                        {},
                        optional={
                            "name": texts,
                            "arguments": texts | st.sampled_from(['{"a": 1}', "NaN", "[1"]),
                        },
                    ),
                },
            ),
            max_size=2,
        ),
    },
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "message": messages | st.none() | texts,
        "finish_reason": st.sampled_from(["stop", "length", "tool_calls", "content_filter", "odd", None, 3]),
    },
)
details = (
    st.none()
    | st.just(7)
    | st.dictionaries(
        st.sampled_from(["cached_tokens", "cache_write_tokens", "reasoning_tokens", "audio_tokens"]),
        counts,
        max_size=3,
    )
)
usages = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": counts,
        "completion_tokens": counts,
        "total_tokens": counts,
        "prompt_tokens_details": details,
        "completion_tokens_details": details,
    },
)
error_codes = st.sampled_from(
    [
        None,
        "context_length_exceeded",
        "model_not_found",
        "insufficient_quota",
        "invalid_api_key",
        "rate_limit_exceeded",
        "too_many_requests",
        "invalid_prompt",
        "server_error",
        "DeploymentNotFound",
        400,
        "odd",
    ]
)
error_objects = st.fixed_dictionaries(
    {},
    optional={
        "code": error_codes,
        "type": st.sampled_from(
            [None, "authentication_error", "rate_limit_error", "invalid_request_error", "odd"]
        ),
        "message": texts | st.sampled_from(["The model `x` does not exist", "model not found"]) | st.none(),
    },
)
plausible = st.fixed_dictionaries(
    {},
    optional={
        "id": texts | st.integers() | st.just(2**80),
        "model": texts | st.just(2**80),
        "choices": st.lists(choices | st.none(), max_size=1)
        | st.lists(choices, min_size=2, max_size=2)
        | st.none()
        | texts,
        "usage": usages | st.none() | st.just([1]),
        "odd": st.sampled_from([1, float("nan"), float("inf")]),
    },
)
bodies = st.one_of(
    plausible.map(lambda data: json.dumps(data).encode()),
    plausible.map(lambda data: json.dumps(data).encode()[:-1]),
    st.fixed_dictionaries({"error": error_objects | texts}).map(lambda data: json.dumps(data).encode()),
    json_values.map(lambda data: json.dumps(data).encode()),
    st.binary(max_size=20),
    st.sampled_from([b"", b"<html>", b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"[" * 100_000, b"\xff{}"]),
)


def dspy_outcome(status: int, body: bytes) -> tuple[str, Any]:
    """The text that DSPy's adapters get, or the name of the error class that DSPy raises."""
    provider = DspyChatLM(api_key="k")
    request = dspy_lm15.Request(model="asked", messages=(dspy_lm15.Message.user("hi"),))
    response = HttpResponse(status=status, reason="", headers=[], body=body)
    try:
        if status >= 400:
            raise provider._http_error(response)
        return "text", legacy_output(provider.parse_response(request, response))["text"]
    except Exception as error:
        return "error", type(wrap_error(error, model="asked")).__name__


@quick
@given(bodies)
@example(json.dumps({"choices": [{"message": {"content": "\ud800"}}]}).encode())
@example(b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1180591620717411303424}}')
def test_a_reply_means_what_dspy_makes_of_it(body: bytes) -> None:
    try:
        ours: tuple[str, Any] = ("text", decode(200, {}, body, "asked").text)
    except LMError as error:
        ours = ("error", type(error).__name__)
    assert ours == dspy_outcome(200, body)


@quick
@given(plausible)
def test_a_reply_has_the_usage_lm15_reads(data: dict[str, Any]) -> None:
    body = json.dumps(data).encode()
    response = Lm15HttpResponse(status=200, reason="", headers=[], body=body)
    request = lm15.Request(model="asked", messages=(lm15.Message.user("hi"),))
    try:
        theirs = OpenAIChatLM(api_key="k").parse_response(request, response)
    except Exception:
        with pytest.raises(LMError):
            decode(200, {}, body, "asked")
        return
    ours = decode(200, {}, body, "asked")
    for name, count in ours.usage.counted():
        assert count == getattr(theirs.usage, name), name
    assert (ours.model, ours.id, ours.finish_reason) == (theirs.model, theirs.id, theirs.finish_reason)


@quick
@given(
    st.sampled_from([400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503, 504, 599, 600]),
    st.fixed_dictionaries({"error": error_objects | texts}).map(lambda data: json.dumps(data).encode())
    | bodies,
)
def test_an_error_answer_is_of_the_class_dspy_raises(status: int, body: bytes) -> None:
    with pytest.raises(LMError) as raised:
        decode(status, {}, body, "asked")
    assert raised.value.status == status
    theirs = dspy_outcome(status, body)
    if theirs == ("error", "LMUnexpectedError"):
        # lm15 stumbles over a 401 whose message is null; that is still a refused key.
        assert isinstance(raised.value, LMAuthError)
    else:
        assert ("error", type(raised.value).__name__) == theirs


def test_a_count_of_tokens_that_no_call_can_have_used_is_unknown() -> None:
    usage = {
        "prompt_tokens": 10**9 + 1,
        "completion_tokens": 3,
        "total_tokens": 2**70,
        "cached_tokens": 2**70,
    }
    read = decode(200, {}, json.dumps({"usage": usage}).encode(), "asked").usage
    assert dict(read.counted()) == {"output_tokens": 3}
