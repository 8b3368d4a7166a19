"""Requests as DSPy 3.4.1 sent them: for each program the chat adapter's, then its JSON fallback's."""

import json
from pathlib import Path
from typing import Any

from dspex.gateway.records import Message
from dspex.providers.language_models.simulator.engine import SimulatedCall

RECORDED: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "fixtures" / "simulator" / "prompts.json").read_text("utf-8")
)


def call_of(name: str, position: int = 0, **more: Any) -> SimulatedCall:
    """The recorded request as the simulator reads it; `position` 0 is chat, 1 is JSON."""
    body = RECORDED[name][position]
    messages = tuple(Message(m["role"], m["content"]) for m in body["messages"])
    return SimulatedCall(messages, response_format=body.get("response_format"), **more)
