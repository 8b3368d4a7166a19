"""What a test or an operator can tell a running simulator.

POST /_simulator/script   {"rules": [...]}                       replace the script
POST /_simulator/faults   {"faults": [...], "latency": "500ms", "chunk_interval": 0.05}  replace what is given
POST /_simulator/reset                                           as it was started
GET  /_simulator/calls                                           counts and the last request bodies
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from dspex.kit.errors import Missing
from dspex.providers.language_models.simulator.engine import Simulator
from dspex.providers.language_models.simulator.faults import FaultRule, parse_latency
from dspex.providers.language_models.simulator.scripts import Script, read_model


class FaultOrder(BaseModel):
    """What is left out stays as it is; an empty list ends the faults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    faults: tuple[FaultRule, ...] | None = None
    latency: str | None = None
    chunk_interval: Annotated[float, Field(ge=0, le=3600)] | None = None


def obey(simulator: Simulator, method: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one control request and give its answer. Raises Invalid and Missing."""
    match method, name:
        case "POST", "script":
            script = read_model(Script, body, "script")
            simulator.set_script(script)
            return {"rules": len(script.rules)}
        case "POST", "faults":
            order = read_model(FaultOrder, body, "faults")
            latency = None if order.latency is None else parse_latency(order.latency)
            if order.faults is not None:
                simulator.set_faults(order.faults)
            if latency is not None:
                simulator.set_latency(latency)
            if order.chunk_interval is not None:
                simulator.chunk_interval = order.chunk_interval
            return {"faults": None if order.faults is None else len(order.faults), "latency": order.latency}
        case "POST", "reset":
            simulator.reset()
            return {"calls": 0}
        case "GET", "calls":
            return {"calls": simulator.calls, "counts": simulator.counts, "requests": list(simulator.bodies)}
    raise Missing(f"the simulator has no control {method} /_simulator/{name}", code="no_control")
