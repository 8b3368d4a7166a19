"""Fine-tuning on OpenAI's wire: upload a file, begin a job, look at it until it has ended."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dspex.configuration.models import ModelSettings
from dspex.gateway.errors import (
    LMError,
    LMInvalidRequestError,
    LMProviderError,
    LMTransportError,
    LMUnexpectedError,
)
from dspex.gateway.records import FineTuningRequest
from dspex.kit import json
from dspex.providers.certificates import read_when_needed
from dspex.providers.language_models.openai_chat_errors import from_status
from dspex.providers.secrets import hidden

with read_when_needed():
    import aiohttp

# Members of the provider's request that say how to train, and nothing about whom to ask.
OPTIONS = ("hyperparameters", "method", "suffix", "seed")
LOOK_S = 10.0
LONGEST_REPLY = 1024 * 1024
# A job is looked at for days: some failed looks in a row are no end of it.
MOST_FAILURES = 5


class OpenAIFineTuner:
    """`gateway.ports.FineTuningClient`. `look_s` is the time between two looks at a job."""

    def __init__(
        self, base_url: str, key: str | None, settings: ModelSettings, *, look_s: float = LOOK_S
    ) -> None:
        self._base = base_url.rstrip("/")
        self._key = key
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=10.0, sock_read=max(settings.timeout_s, 60.0)
        )
        self._look_s = look_s

    async def fine_tune(self, request: FineTuningRequest) -> str:
        """Raises Invalid-like LMInvalidRequestError for options that do not train, LMProviderError for a failed job."""
        unknown = sorted(request.options.keys() - set(OPTIONS))
        if unknown:
            raise LMInvalidRequestError(
                f"Fine-tuning takes {', '.join(OPTIONS)} in `train_kwargs`, and not {', '.join(unknown)}."
            )
        headers = {"user-agent": "dspex"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            async with aiohttp.ClientSession(
                headers=headers, timeout=self._timeout, trust_env=False
            ) as session:
                return await self._tuned(session, request)
        except LMError as error:
            raise hidden(error, self._key) from None

    async def _tuned(self, session: aiohttp.ClientSession, request: FineTuningRequest) -> str:
        form = aiohttp.FormData()
        form.add_field("purpose", "fine-tune")
        lines = b"".join(json.dumps(one) + b"\n" for one in request.examples)
        form.add_field("file", lines, filename="data.jsonl", content_type="application/jsonl")
        file = await self._asked(session, "POST", "/files", data=form)
        job = await self._asked(
            session,
            "POST",
            "/fine_tuning/jobs",
            json={"model": request.model, "training_file": file["id"], **request.options},
        )
        try:
            return await self._ended(session, job)
        except asyncio.CancelledError:
            with suppress(LMError):
                await self._asked(session, "POST", f"/fine_tuning/jobs/{job['id']}/cancel")
            raise

    async def _ended(self, session: aiohttp.ClientSession, job: Mapping[str, Any]) -> str:
        failures = 0
        while job.get("status") not in ("succeeded", "failed", "cancelled"):
            await asyncio.sleep(self._look_s)
            try:
                job = await self._asked(session, "GET", f"/fine_tuning/jobs/{job['id']}")
                failures = 0
            except (LMTransportError, LMProviderError):
                failures += 1
                if failures >= MOST_FAILURES:
                    raise
        tuned = job.get("fine_tuned_model")
        if job["status"] != "succeeded" or not isinstance(tuned, str):
            told = (job.get("error") or {}).get("message") or "without a reason"
            raise LMProviderError(f"The fine-tuning job {job['id']} {job['status']}: {str(told)[:1000]}")
        return tuned

    async def _asked(
        self, session: aiohttp.ClientSession, method: str, path: str, **sent: Any
    ) -> dict[str, Any]:
        try:
            async with session.request(method, self._base + path, allow_redirects=False, **sent) as response:
                body = await response.content.read(LONGEST_REPLY)
                if response.status >= 400:
                    raise from_status(response.status, response.headers, body)
        except (aiohttp.ClientError, OSError) as error:
            raise LMTransportError(
                f"The fine-tuning address of the model can't be reached ({type(error).__name__}); try again."
            ) from None
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if not isinstance(document, dict) or not isinstance(document.get("id"), str):
            raise LMUnexpectedError("The answer is no file and no job; does the address offer fine-tuning?")
        return document
