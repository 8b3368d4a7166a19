"""What KNNFewShot and Ensemble come to, as data: DSPy's own are functions of the running process."""

from collections.abc import Mapping
from typing import Any

from dspex.kit.errors import Invalid
from dspex.providers.dspy_worker.modules import without_lms
from dspex.providers.dspy_worker.optimizing.task import Task


def neighbours(task: Task, config: Mapping[str, Any]) -> dict[str, Any]:
    """See `composed`. Raises Invalid (code too_few_rows)."""
    if len(task.train) < 2:
        raise Invalid("KNNFewShot needs two rows of training at least.", code="too_few_rows")
    return {
        "kind": "knn_few_shot",
        "k": min(config["k"], len(task.train)),
        "embedder": config["embedder"],
        "rows": [{"inputs": dict(one["inputs"]), "outputs": dict(one["outputs"])} for one in task.train],
        "bootstrap": {name: value for name, value in config.items() if name not in ("k", "embedder")},
        "metric": dict(task.metric),
    }


def ensemble(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": "ensemble",
        "states": [without_lms(one) for one in config["programs"]],
        "size": config.get("size"),
        "reduce": config["reduce"],
        "field": config.get("field"),
    }
