"""DSPy itself, with the network cut off: it makes its own requests and reads the replies we hand it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import dspy
from dspy.clients import execution
from dspy.lm15 import response_from_openai_chat
from dspy.utils.exceptions import DSPyError


@dataclass(frozen=True, slots=True)
class Outcome:
    """`values` by field, or the name of the error's class; `wire` is each request's body as sent."""

    values: Mapping[str, Any] | None
    error: str | None
    wire: tuple[dict[str, Any], ...]


class _Engine:
    def __init__(self, engine: Any, bodies: Sequence[Mapping[str, Any]], wire: list[bytes]) -> None:
        self._engine, self._bodies, self._wire = engine, bodies, wire

    def complete(self, request: Any) -> Any:
        provider, routed = self._engine._target(request)
        self._wire.append(bytes(provider.build_request(routed, stream=False).body))
        body = self._bodies[min(len(self._wire), len(self._bodies)) - 1]
        return response_from_openai_chat(
            body, model=routed.model, response_format=request.config.response_format
        )


def run(
    module: dspy.Module,
    lm: dspy.LM,
    adapter: dspy.Adapter,
    inputs: Mapping[str, Any],
    bodies: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any] | None = None,
) -> Outcome:
    """One call of a real module; `bodies` are the chat completions it gets, in turn."""
    wire: list[bytes] = []
    choose = execution._engine

    def chosen(lm: Any, call: Any, asynchronous: bool) -> Any:
        engine, request, provider = choose(lm, call, asynchronous)
        return _Engine(engine, bodies, wire), request, provider

    values, error = None, None
    with (
        patch.object(execution, "_engine", chosen),
        dspy.context(lm=lm, adapter=adapter, disable_history=True, warn_on_type_mismatch=False, trace=None),
    ):
        try:
            arguments = {**inputs, **({"config": dict(config)} if config else {})}
            prediction = module(**arguments)
            values = dict(prediction.items())
        except DSPyError as raised:
            error = type(raised).__name__
        except (RecursionError, MemoryError, ValueError):
            # Python's parser says MemoryError where brackets are nested too deeply for it.
            error = "RecursionError or ValueError"
    return Outcome(values, error, tuple(json.loads(body) for body in wire))
