"""Fine-tuning as OpenAI has it: files, jobs, and models that learned what was in the files.

A tuned model is better at the shipped tasks that its file has right answers for, by up to _GAIN, and no better for
wrong ones. Like real ones it keeps what it learned in itself: its prompts need no demonstrations for it.
"""

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from dspex.gateway.records import Message, Role
from dspex.kit.errors import Invalid, Missing
from dspex.providers.language_models.simulator.draws import digest
from dspex.providers.language_models.simulator.prompts import read_prompt
from dspex.providers.language_models.simulator.teaching import task_of

_GAIN = 0.45
# From so many examples on there is nothing more to learn.
_ENOUGH = 8
_MOST_FILES = 100
_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


class _Job(Struct):
    id: str
    model: str
    file: str
    tuned: str
    looked_at: int = 0
    cancelled: bool = False

    def document(self) -> dict[str, Any]:
        """Each look finds it a step further, so that nothing depends on the time."""
        steps = ("validating_files", "running", "succeeded")
        status = "cancelled" if self.cancelled else steps[min(self.looked_at, 2)]
        done = status == "succeeded"
        return {
            "id": self.id,
            "object": "fine_tuning.job",
            "model": self.model,
            "training_file": self.file,
            "status": status,
            "fine_tuned_model": self.tuned if done else None,
            "created_at": 0,
            "error": None,
            "simulated": True,
        }


class Tuning:
    """What was uploaded and learned since the last reset."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._files: dict[str, list[Any]] = {}
        self._jobs: dict[str, _Job] = {}
        # By model: how much better it is at each task.
        self._gains: dict[str, Mapping[str, float]] = {}

    def gains(self, model: str | None) -> Mapping[str, float]:
        return {} if model is None else self._gains.get(model, {})

    def upload(self, content: bytes) -> dict[str, Any]:
        """Raises Invalid for what is not JSON lines of conversations."""
        examples = _examples(content)
        if len(self._files) >= _MOST_FILES:
            del self._files[next(iter(self._files))]
        name = f"file-simulated-{next(self._numbers)}"
        self._files[name] = examples
        return {
            "id": name,
            "object": "file",
            "bytes": len(content),
            "purpose": "fine-tune",
            "created_at": 0,
            "filename": "data.jsonl",
            "simulated": True,
        }

    def begin(self, model: str, file: str) -> dict[str, Any]:
        """Raises Missing for a file that was not uploaded."""
        if file not in self._files:
            raise Missing(f"there is no file {file!r}", code="file_missing")
        number = next(self._numbers)
        learned = digest("tuned", model, json.dumps(self._files[file], sort_keys=True))[:6].hex()
        job = _Job(f"ftjob-simulated-{number}", model, file, f"ft:{model}:simulated::{learned}")
        self._jobs[job.id] = job
        self._gains[job.tuned] = _lessons(self._files[file])
        return job.document()

    def look(self, job: str) -> dict[str, Any]:
        found = self._job(job)
        found.looked_at += 1
        return found.document()

    def cancel(self, job: str) -> dict[str, Any]:
        found = self._job(job)
        found.cancelled = True
        return found.document()

    def _job(self, job: str) -> _Job:
        if job not in self._jobs:
            raise Missing(f"there is no fine-tuning job {job!r}", code="tuning_job_missing")
        return self._jobs[job]


def _examples(content: bytes) -> list[Any]:
    found = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            example = json.loads(line)
            messages = [(one["role"], one["content"]) for one in example["messages"]]
        except (ValueError, KeyError, TypeError):
            messages = []
        if not messages or messages[-1][0] != "assistant":
            raise Invalid(
                f'line {number} is no {{"messages": [...]}} that ends with the assistant\'s answer',
                code="tuning_file_invalid",
            )
        found.append(example)
    if not found:
        raise Invalid("the file has no examples", code="tuning_file_invalid")
    return found


def _lessons(examples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for example in examples:
        messages = [
            Message(_ROLES.get(one["role"], "user"), str(one["content"])) for one in example["messages"]
        ]
        # The answer as a demonstration before a question that nobody asks.
        prompt = read_prompt([*messages, Message("user", "")])
        task = None if prompt is None or not prompt.demos else task_of(prompt.layout, prompt.demos[-1].inputs)
        if prompt is None or task is None:
            continue
        shown = prompt.demos[-1]
        solution = task.solve(shown.inputs[task.input])
        if solution is not None:
            said = shown.outputs.get(task.output, "").strip()
            (right if said == str(solution.value) else wrong)[task.name] += 1
    return {
        task: _GAIN * min(1.0, (count - wrong[task]) / _ENOUGH)
        for task, count in right.items()
        if count > wrong[task]
    }
