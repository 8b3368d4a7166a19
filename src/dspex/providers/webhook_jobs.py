"""Telling a caller's webhook that a job is over, as a job of its own."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dspex.gateway.errors import LMConfigurationError
from dspex.jobs.ports import Run
from dspex.jobs.records import Again, Completed, Failed, Job, JobError, Outcome
from dspex.kit import json
from dspex.kit.clock import Clock
from dspex.kit.errors import Invalid
from dspex.kit.webhooks import Webhook
from dspex.providers.outward import NotAllowed
from dspex.providers.webhooks import WITHIN_S, can_improve, post

# 30 s, then three times as long each time: five attempts take 20 minutes.
FIRST_WAIT_S = 10.0

Describe = Callable[[Job], Awaitable[Mapping[str, Any]]]


class WebhookHandler:
    """`describe` gives the body's members for a notice: what its parent has come to."""

    def __init__(self, describe: Describe, secret_env: str, allow_private: bool, clock: Clock) -> None:
        self._describe = describe
        self._secret_env = secret_env
        self._allow_private = allow_private
        self._clock = clock

    async def run(self, run: Run) -> Outcome:
        job = run.job
        event = f"{job.payload['kind']}.{job.payload['state']}"
        at = self._clock.now()
        document = {
            "id": job.id,
            "event": event,
            "at": at,
            "project": job.project,
            **await self._describe(job),
        }
        webhook = Webhook(job.payload["url"], self._secret_env, self._allow_private)
        try:
            status = await post(webhook, event, job.id, json.dumps(document), int(at.timestamp()))
        except (NotAllowed, LMConfigurationError, Invalid) as refused:
            return Failed(JobError("invalid", "webhook_refused", str(refused)))
        except TimeoutError:
            return self._later(job, f"no answer within {WITHIN_S:g} s")
        except OSError as error:
            # aiohttp's errors of connecting are these as well.
            return self._later(job, type(error).__name__)
        if 200 <= status < 300:
            return Completed({"status": status})
        if not can_improve(status):
            return Failed(JobError("unavailable", "webhook_refused", f"The webhook answered {status}."))
        return self._later(job, f"it answered {status}")

    def _later(self, job: Job, reason: str) -> Again:
        error = JobError("unavailable", "webhook_failed", f"The webhook could not be told: {reason}.")
        return Again(FIRST_WAIT_S * 3.0**job.attempts, error)
