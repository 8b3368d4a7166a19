"""What the gateway needs from outside."""

from typing import Protocol

from dspex.gateway.records import LanguageModelReply, LanguageModelRequest, Usage


class LanguageModelClient(Protocol):
    """The way to one model. One attempt a call: no retries, no cache, no accounting."""

    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        """Raises LMError for everything that goes wrong on the way, Invalid (code not_encodable) for text

        that has no UTF-8 form. Cancelling the task gives the connection up.
        """
        ...

    async def aclose(self) -> None:
        """Closes the connections. A later call may open new ones."""
        ...


class Prices(Protocol):
    async def cost(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        """US dollars for one call of the model with this alias, or None when its price is not known.

        The first call for a model may wait while prices are read. Never raises for an unknown model.
        """
        ...
