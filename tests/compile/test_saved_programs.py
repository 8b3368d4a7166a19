"""Programs saved by DSPy run natively, and what DSPex exports loads in plain DSPy."""

from pathlib import Path

import dspy
import orjson
import pytest

from dspex.executions.native.program import load
from dspex.providers.dspy_worker.compile import compile_all
from dspex.providers.dspy_worker.modules import language_model
from dspex.signatures.document import parse_signature, signature_to_document
from tests.compile import ours, theirs

SIGNATURE = "question, k: int -> answer: list[str], sure: bool"
REPLY = "[[ ## answer ## ]]\n['a', 'b']\n\n[[ ## sure ## ]]\nTrue\n\n[[ ## completed ## ]]"
REASONED = "[[ ## reasoning ## ]]\nBecause.\n\n" + REPLY


def body(content: str) -> dict[str, object]:
    return {"model": "m", "choices": [{"message": {"content": content}, "finish_reason": "stop"}]}


@pytest.mark.parametrize("kind", ["predict", "chain_of_thought"])
async def test_a_saved_program_runs_natively(kind: str, tmp_path: Path) -> None:
    module = dspy.ChainOfThought(SIGNATURE) if kind == "chain_of_thought" else dspy.Predict(SIGNATURE)
    (predictor,) = module.predictors()
    predictor.signature = predictor.signature.with_instructions("Name as many as asked for.")
    predictor.demos = [
        dspy.Example(question="Colours?", k=2, answer=["red", "blue"], sure=True, reasoning="Easy."),
        dspy.Example(question="Half?", answer=["only this"]),
    ]
    module.set_lm(dspy.LM("openai/gpt-4o", api_key="secret", temperature=0.5))
    module.save(tmp_path / "program.json")
    saved = (tmp_path / "program.json").read_bytes()
    definition = {
        "signature": signature_to_document(parse_signature(SIGNATURE)),
        "module": kind,
        "adapter": "chat",
        "lm": {"alias": "main", "model": "openai/gpt-4o-mini", "options": {}},
        "state": orjson.loads(saved),
    }
    (outcome,) = compile_all([definition])

    module.set_lm(None)
    inputs, replies = (
        {"question": "Letters?", "k": 2},
        [body(REASONED if kind == "chain_of_thought" else REPLY)],
    )
    expected = theirs.run(
        module, language_model("openai/gpt-4o-mini", {}), dspy.ChatAdapter(), inputs, replies
    )
    program = load(outcome["document"], ours.ALIAS)
    actual, _ = await ours.execute(program, parse_signature(SIGNATURE), inputs, replies, kind)
    assert actual == expected
    assert "Name as many as asked for." in str(actual.wire)
    assert "only this" in str(actual.wire)

    fresh = dspy.ChainOfThought(SIGNATURE) if kind == "chain_of_thought" else dspy.Predict(SIGNATURE)
    exported = tmp_path / "exported.json"
    exported.write_bytes(orjson.dumps(outcome["saved_state"]))
    fresh.load(exported)
    again = theirs.run(fresh, language_model("openai/gpt-4o-mini", {}), dspy.ChatAdapter(), inputs, replies)
    assert again == expected
