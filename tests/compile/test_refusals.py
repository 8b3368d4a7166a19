"""What can't be served exactly is refused, with a reason; the mistake of one does not stop the others."""

from typing import Any

import pytest

from dspex.providers.dspy_worker.compile import compile_all


def definition(
    signature: str = "question -> answer",
    model: str = "openai/gpt-4o-mini",
    options: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    from dspex.signatures.document import parse_signature, signature_to_document

    lm = {"alias": "main", "model": model, "options": options or {}}
    document = signature_to_document(parse_signature(signature))
    return {"signature": document, "module": "predict", "adapter": "chat", "lm": lm, "state": None, **more}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (definition(model="mistral/mistral-small"), "through LiteLLM"),
        (definition(model="azure/gpt-4o"), "azure"),
        (definition(options={"n": 3, "temperature": 1.0}), "n > 1"),
        (definition(options={"logprobs": True}), "logprobs"),
        (definition(options={"extra_headers": {"a": "b"}}), "LiteLLM"),
        (definition(options={"max_tokens": 10}, model="openai/gpt-5"), "16000"),
        (definition(options={"api_key": "k"}), "api_key"),
        (definition(state={"demos": [], "signature": {}}), "instructions"),
        (definition(state={"predict": {}}), "saved state lacks"),
        (definition(model="openai/"), "no model id"),
    ],
)
def test_is_refused_with_a_reason(given: dict[str, Any], reason: str) -> None:
    (outcome,) = compile_all([given])
    assert reason in outcome["refused"]


def test_one_refusal_leaves_the_others_alone() -> None:
    outcomes = compile_all([definition(), definition(model="mistral/x"), definition("a, b: int -> c: float")])
    assert ["document" in one for one in outcomes] == [True, False, True]


def test_a_demo_with_another_kind_of_content_is_refused() -> None:
    image = '[{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]'
    marker = f"<<CUSTOM-TYPE-START-IDENTIFIER>>{image}<<CUSTOM-TYPE-END-IDENTIFIER>>"
    fields = [
        {"prefix": "Question:", "description": "${question}"},
        {"prefix": "Answer:", "description": "${answer}"},
    ]
    state = {
        "traces": [],
        "train": [],
        "demos": [{"question": marker, "answer": "x"}],
        "signature": {"instructions": "Answer.", "fields": fields},
        "lm": None,
    }
    (outcome,) = compile_all([definition(state=state)])
    assert "plain text" in outcome["refused"]


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("openai/gpt-4o-mini", {"temperature": 0.0}, {"temperature", "max_tokens", "seed", "stop"}),
        ("groq/llama-3.1-8b-instant", {}, {"temperature", "max_tokens", "seed", "stop"}),
    ],
)
def test_says_which_parameters_a_request_may_change(
    model: str, options: dict[str, Any], expected: set[str]
) -> None:
    (outcome,) = compile_all([definition(model=model, options=options)])
    assert set(outcome["document"]["parameters"]) == expected
