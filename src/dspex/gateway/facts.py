"""What the gateway announces."""

from dataclasses import dataclass

from dspex.gateway.records import Lane, LanguageModelCall


@dataclass(frozen=True, slots=True)
class LanguageModelCalled:
    """One attempt to reach a model has ended: answered, failed or cancelled (`call.error` says which)."""

    execution_id: str
    request_id: str
    project: str
    lane: Lane
    call: LanguageModelCall
