"""Who does the jobs of each kind."""

from collections.abc import Mapping
from typing import Any

from dspex.application.foundation import Foundation
from dspex.configuration.settings import Settings
from dspex.evaluations.rules import KIND as EVALUATION
from dspex.evaluations.running import EvaluationHandler
from dspex.executions.background.rules import KIND as EXECUTION
from dspex.executions.background.running import ExecutionHandler
from dspex.executions.batches.running import BatchHandler
from dspex.executions.batches.service import KIND as BATCH
from dspex.interfaces.shared import job_presenters, presenters
from dspex.interfaces.shared.services import Services
from dspex.jobs.ports import Handler
from dspex.jobs.records import Job
from dspex.jobs.rules import WEBHOOK
from dspex.optimizations.rules import KIND as OPTIMIZATION
from dspex.providers.webhook_jobs import WebhookHandler


def handlers(foundation: Foundation, services: Services, settings: Settings) -> Mapping[str, Handler]:
    database = foundation.database

    async def describe(notice: Job) -> Mapping[str, Any]:
        """What the parent of a notice has come to; of one that is no longer on record, its id."""
        parent = notice.parent or ""
        if notice.payload["kind"] == EXECUTION:
            execution = await database.executions.get(notice.project, parent)
            return {"execution": presenters.prediction(execution) if execution else {"id": parent}}
        job = await database.jobs.get(notice.project, parent)
        shown = job_presenters.batch if notice.payload["kind"] == BATCH else job_presenters.job
        return {notice.payload["kind"]: shown(job) if job else {"id": parent}}

    webhooks = settings.jobs.webhooks
    return {
        EXECUTION: ExecutionHandler(
            services.predictions, database.executions, database.background, foundation.keys
        ),
        BATCH: BatchHandler(
            services.predictions, database.batches, database.recorder, foundation.keys, foundation.clock
        ),
        EVALUATION: EvaluationHandler(
            services.predictions,
            database.evaluations,
            database.datasets,
            database.recorder,
            foundation.keys,
            services.evaluations.metrics,
            foundation.clock,
        ),
        OPTIMIZATION: services.optimizing,
        WEBHOOK: WebhookHandler(describe, webhooks.secret_env, webhooks.allow_private, foundation.clock),
    }
