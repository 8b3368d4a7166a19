"""How work in the background is done."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

QueueName = Literal["default", "optimization", "llm_calls", "embeddings", "cleanup", "priority"]


class _Section(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)


class CompletionWebhooks(_Section):
    """Callers name the address; what is posted there is signed with the secret in the variable `secret_env`.

    Private addresses are refused unless `allow_private`.
    """

    secret_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "DSPEX_WEBHOOK_SECRET"  # noqa: S105
    allow_private: bool = False


class BatchSettings(_Section):
    """The most that a batch may have, and how many of its items run at once."""

    items: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    bytes: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 32


class EvaluationSettings(_Section):
    """How many examples of an evaluation run at once."""

    concurrency: Annotated[int, Field(ge=1, le=1000)] = 32


class OptimizationSettings(_Section):
    """`timeout_s` is how long an optimizer may run, all attempts together; what it waits for limits does not count.

    Journals and events are kept for `journal_days` after the end.
    """

    timeout_s: Annotated[float, Field(gt=0, le=7 * 86_400)] = 14_400.0
    journal_days: Annotated[float, Field(gt=0, le=3660)] = 3.0


class JobSettings(_Section):
    """`workers` processes of this node run jobs; 0 when `dspex work` runs elsewhere.

    `queues` are how many jobs of a queue one worker runs at once, where not the usual number. `timeout_s` is the
    longest a background execution may take. Jobs that ended are kept for `keep_days`.
    """

    workers: Annotated[int, Field(ge=0, le=16)] = 1
    queues: dict[QueueName, Annotated[int, Field(ge=1, le=1000)]] = Field(default_factory=dict)
    timeout_s: Annotated[float, Field(gt=0, le=14_400)] = 600.0
    keep_days: Annotated[float, Field(gt=0, le=3660)] = 7.0
    batch: BatchSettings = BatchSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    optimization: OptimizationSettings = OptimizationSettings()
    webhooks: CompletionWebhooks = CompletionWebhooks()
