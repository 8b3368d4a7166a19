"""Fine-tuning on the simulator: over OpenAI's wire by the client that speaks to providers, and in process."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from dspex.configuration.models import ModelSettings
from dspex.gateway.errors import LMError, LMInvalidRequestError, LMTransportError, LMUnsupportedFeatureError
from dspex.gateway.records import FineTuningRequest, Message
from dspex.providers.language_models.openai_fine_tuning import OpenAIFineTuner
from dspex.providers.language_models.registry import fine_tuner_of
from dspex.providers.language_models.simulator.client import SimulatorClient
from dspex.providers.language_models.simulator.engine import SimulatedCall, Simulator, SimulatorOptions
from dspex.providers.language_models.simulator.tasks import task_rows
from dspex.providers.language_models.simulator.teaching import TASKS
from tests.conftest_simulator import RunningSimulator, simulator, simulator_process

__all__ = ["simulator", "simulator_process"]

DATES = TASKS["dates"]
SETTINGS = ModelSettings(model="openai/gpt-4o-mini")
SYSTEM = (
    "Your input fields are:\n1. `text` (str):\nYour output fields are:\n1. `iso_date` (str):\n"
    "All interactions will be structured in the following way, with the appropriate values filled in.\n\n"
    "[[ ## text ## ]]\n{text}\n\n[[ ## iso_date ## ]]\n{iso_date}\n\n[[ ## completed ## ]]\n"
    "In adhering to this structure, your objective is: \n        Given the fields `text`, produce `iso_date`."
)


def asked(text: str) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"[[ ## text ## ]]\n{text}\n\n"},
    ]


def examples(*, wrong: bool = False) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "messages": [
                *asked(row.inputs["text"]),
                {
                    "role": "assistant",
                    "content": f"[[ ## iso_date ## ]]\n{'1999-01-01' if wrong else row.outputs['iso_date']}\n\n"
                    "[[ ## completed ## ]]",
                },
            ]
        }
        for row in task_rows(DATES, "training", 12)
    )


def right(simulator: Simulator, model: str) -> int:
    rows = task_rows(DATES, "test", 40)
    answers = [
        simulator.answer(
            SimulatedCall(tuple(Message(**one) for one in asked(row.inputs["text"])), model=model)  # type: ignore[arg-type]
        )
        .answers[0]
        .text
        for row in rows
    ]
    return sum(str(row.outputs["iso_date"]) in answer for row, answer in zip(rows, answers, strict=True))


def tuner(simulator: RunningSimulator) -> OpenAIFineTuner:
    return OpenAIFineTuner(simulator.base_url, "sk-secret", SETTINGS, look_s=0.01)


async def test_a_tuned_model_knows_what_was_right_in_its_file() -> None:
    client = SimulatorClient(SimulatorOptions(teach=True))
    good = await client.fine_tune(FineTuningRequest("main", examples()))
    bad = await client.fine_tune(FineTuningRequest("main", examples(wrong=True)))
    before = right(client.simulator, "main")
    assert right(client.simulator, good) > before + 8
    assert right(client.simulator, bad) == before
    assert good == await client.fine_tune(FineTuningRequest("main", examples())), "the same learns the same"


async def test_over_the_wire(simulator: RunningSimulator) -> None:
    options = {"hyperparameters": {"n_epochs": 1}}
    found = await tuner(simulator).fine_tune(FineTuningRequest("gpt-4o-mini", examples(), options))
    assert found.startswith("ft:gpt-4o-mini:simulated::")


@pytest.mark.parametrize(
    ("lines", "options", "kind", "words"),
    [
        (({"messages": []},), {}, LMInvalidRequestError, "line 1"),
        ((), {}, LMInvalidRequestError, "no examples"),
        (examples(), {"api_base": "http://elsewhere"}, LMInvalidRequestError, "and not api_base"),
    ],
)
async def test_what_can_not_be_learned_is_refused(
    simulator: RunningSimulator,
    lines: Sequence[dict[str, Any]],
    options: dict[str, Any],
    kind: type[LMError],
    words: str,
) -> None:
    with pytest.raises(kind, match=words):
        await tuner(simulator).fine_tune(FineTuningRequest("gpt-4o-mini", tuple(lines), options))


async def test_a_job_that_is_given_up_is_cancelled(simulator: RunningSimulator) -> None:
    slow = OpenAIFineTuner(simulator.base_url, None, SETTINGS, look_s=3600)
    begun = asyncio.Event()
    plain = slow._asked

    async def watched(session: Any, method: str, path: str, **sent: Any) -> dict[str, Any]:
        answer = await plain(session, method, path, **sent)
        paths.append((path, answer))
        if path == "/fine_tuning/jobs":
            begun.set()
        return answer

    paths: list[tuple[str, dict[str, Any]]] = []
    slow._asked = watched  # type: ignore[method-assign]
    running = asyncio.create_task(slow.fine_tune(FineTuningRequest("gpt-4o-mini", examples())))
    await asyncio.wait_for(begun.wait(), 60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    path, job = paths[-1]
    assert path.endswith("/cancel")
    assert job["status"] == "cancelled"


async def test_an_address_that_does_not_answer() -> None:
    nowhere = OpenAIFineTuner("http://127.0.0.1:9/v1", None, SETTINGS)
    with pytest.raises(LMTransportError):
        await nowhere.fine_tune(FineTuningRequest("gpt-4o-mini", examples()))


def test_who_tunes_which_model() -> None:
    def simulated(_: ModelSettings) -> SimulatorClient:
        return client

    client = SimulatorClient()
    assert fine_tuner_of(ModelSettings(model="simulator/x"), simulated) is client
    local = ModelSettings(model="openai/local", api_base="http://127.0.0.1:1/v1")
    assert isinstance(fine_tuner_of(local, simulated), OpenAIFineTuner)
    with pytest.raises(LMUnsupportedFeatureError):
        fine_tuner_of(ModelSettings(model="anthropic/claude-sonnet-4-5"), simulated)
