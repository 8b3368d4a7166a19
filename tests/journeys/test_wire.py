"""The bytes on the wire: DSPy and DSPex ask the same server, which compares what it got."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest_simulator import RunningSimulator
from tests.plugins.service import config, running_service

# DSPy as a user would write it, in a process of its own.
THEIRS = """
import dspy, sys
lm = dspy.LM("openai/gpt-4o-mini", api_base=sys.argv[1], api_key="k", temperature=0.0, max_tokens=1000, cache=False)
dspy.configure(lm=lm)
made = dspy.ChainOfThought("question, context: list[str] -> answer: list[str], sure: bool")
print(dict(made(question="Wer hat's «erfunden»?", context=["a", "b\\nc"])))
"""


def test_dspy_and_dspex_send_the_same_and_get_the_same(tmp_path: Path, simulator: RunningSimulator) -> None:
    inputs = {"question": "Wer hat's «erfunden»?", "context": ["a", "b\nc"]}
    # The first answer can't be used, so that the JSON fallback is seen as well.
    unusable = {"rules": [{"calls": [0], "text": "I would rather not."}]}
    environment = os.environ | {
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        "DSPY_CACHEDIR": str(tmp_path / "cache"),
    }
    simulator.control("script", unusable)
    said = subprocess.run(
        [sys.executable, "-c", THEIRS, simulator.base_url],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    theirs = simulator.control("calls")["requests"]

    signature = "question, context: list[str] -> answer: list[str], sure: bool"
    program = f'- {{name: qa, module: chain_of_thought, signature: "{signature}"}}'
    with running_service(tmp_path, config(simulator.base_url, program)) as service:
        simulator.control("reset", {})
        simulator.control("script", unusable)
        answer = service.predict("qa", inputs).json()
    ours = simulator.control("calls")["requests"]
    assert len(theirs) == 2
    assert json.dumps(ours) == json.dumps(theirs)
    assert repr(answer["outputs"]) == said.stdout.strip()
