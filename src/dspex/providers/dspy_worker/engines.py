"""The language models of a worker: real `dspy.LM`s whose every call goes to the node's gateway."""

import contextvars
import copy
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import dspy
from dspy.clients import execution
from dspy.clients.capabilities import capabilities
from dspy.lm15 import Request, Response

from dspex.kit.errors import Invalid
from dspex.providers.dspy_worker.conversation import CallFailed, Conversation
from dspex.providers.dspy_worker.modules import PLACEHOLDER_KEY
from dspex.providers.dspy_worker.requests import error_of, request_to_json, response_from_json

log = logging.getLogger(__name__)
# What `dspy.context` holds: the execution, whether a module is only looked at, in a pipeline's step its name, and
# whether a metric asks.
SETTING, INSPECTING, STEP = "dspex_conversation", "dspex_inspecting", "dspex_step"
METRIC = "dspex_metric"
# What DSPy would connect with; the node knows where its models are.
CONNECTION = (
    "api_key",
    "api_base",
    "base_url",
    "timeout",
    "headers",
    "extra_headers",
    "custom_llm_provider",
)
# Candidates of one call (`n`) are different answers to the same request: each gets a rollout of its own.
_CANDIDATE = 2**40


class _Call:
    """One call of an LM: which rollout it asks for, and how many candidates it has been given."""

    def __init__(self, rollout_id: int | None) -> None:
        self._rollout_id = rollout_id
        self._candidates: Iterator[int] = itertools.count()

    def rollout(self) -> int | None:
        candidate = next(self._candidates)
        return self._rollout_id if candidate == 0 else (self._rollout_id or 0) + candidate * _CANDIDATE


_call: contextvars.ContextVar[_Call | None] = contextvars.ContextVar("lm_call", default=None)


class _Hints:
    """What adapters ask an engine about its model, answered as DSPy answers for the model itself."""

    def __init__(self, model: str, model_type: str, alias: str | None) -> None:
        known = capabilities(dspy.clients.lm.LM(model, model_type=model_type, api_key=PLACEHOLDER_KEY))
        self.alias = alias
        self.supports_function_calling = known.function_calling
        self.supports_reasoning = known.reasoning
        self.supports_response_schema = known.response_schema
        self.supported_params = known.params

    def _asked(self, request: Request) -> dict[str, Any]:
        call, adapter = _call.get(), dspy.settings.adapter
        return {
            "alias": self.alias,
            "model": request.model,
            "rollout_id": None if call is None else call.rollout(),
            "step": dspy.settings.get(STEP),
            "metric": bool(dspy.settings.get(METRIC)),
            "adapter": "chat" if adapter is None else type(adapter).__name__.removesuffix("Adapter").lower(),
            **request_to_json(request),
        }


class Engine(_Hints):
    """For synchronous code, which runs in threads."""

    def complete(self, request: Request) -> Response:
        asked = self._asked(request)
        try:
            return response_from_json(conversation().ask_from_thread(asked))
        except CallFailed as failed:
            raise error_of(failed) from failed


class AsyncEngine(_Hints):
    async def complete(self, request: Request) -> Response:
        asked = self._asked(request)
        try:
            return response_from_json(await conversation().ask_from_loop(asked))
        except CallFailed as failed:
            raise error_of(failed) from failed


def conversation() -> Conversation:
    found: Conversation | None = dspy.settings.get(SETTING)
    if found is None:
        raise RuntimeError(
            "A model was called outside of any execution; call it from the module's forward or aforward, "
            "and from threads that `dspy.Parallel` or `contextvars.copy_context` starts."
        )
    return found


def inspecting() -> bool:
    """Whether a module is only looked at: there is nobody to pay for a model."""
    return bool(dspy.settings.get(INSPECTING))


class GatewayLM(dspy.clients.lm.LM):  # type: ignore[misc]
    """Takes what `dspy.LM` takes. Keys and addresses are left out: the node has its own for this model."""

    def __init__(
        self, model: str, model_type: str = "chat", *args: Any, alias: str | None = None, **kwargs: Any
    ) -> None:
        for name in (*CONNECTION, "engine", "async_engine", "cache", "num_retries"):
            kwargs.pop(name, None)
        super().__init__(
            model,
            model_type,
            *args,
            # The gateway caches and retries, for every caller by the same rules.
            cache=False,
            num_retries=0,
            engine=Engine(model, model_type, alias),
            async_engine=AsyncEngine(model, model_type, alias),
            **kwargs,
        )

    def dump_state(self) -> dict[str, Any]:
        """As a plain `dspy.LM`: the way to the model is the node's."""
        plain = copy.copy(self)
        plain._engine_spec, plain._async_engine_spec = "auto", None
        state: dict[str, Any] = dspy.clients.lm.LM.dump_state(plain)
        return state

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        token = _call.set(_Call(kwargs.get("rollout_id", self.kwargs.get("rollout_id"))))
        try:
            return super().__call__(*args, **kwargs)
        finally:
            _call.reset(token)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        token = _call.set(_Call(kwargs.get("rollout_id", self.kwargs.get("rollout_id"))))
        try:
            return await super().acall(*args, **kwargs)
        finally:
            _call.reset(token)


def check_options(lm: GatewayLM) -> None:
    """Raises Invalid (code bad_options) for options that DSPy can make no request of: better now than at a call."""
    try:
        call = execution.prepare(lm, None, [{"role": "user", "content": "."}], {})
        request_to_json(execution._canonical(call))
    except Exception as error:
        raise Invalid(f"DSPy refuses the LM options: {str(error)[:2000]}", code="bad_options") from None


def install() -> None:
    """`dspy.LM` is a GatewayLM from now on, also where users' code makes its own, and settings are the node's."""
    dspy.LM = GatewayLM
    dspy.clients.LM = GatewayLM
    type(dspy.settings).configure = _configure
    dspy.configure = dspy.settings.configure


def _configure(_: Any, **settings: Any) -> None:
    """In a worker the language model and all else are set for each execution, by the program's definition."""
    log.warning(
        "dspy.configure(%s) has no effect here: give the program its model and adapter in its declaration, or use "
        "`with dspy.context(...)` in the module.",
        ", ".join(settings),
    )
