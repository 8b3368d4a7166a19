"""What the gateway needs from outside."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from dspex.configuration.models import ModelSettings
from dspex.gateway.breaker import Breaker
from dspex.gateway.budgeting import Balance, Holding, Loan
from dspex.gateway.rate_window import Charge, Refusal
from dspex.gateway.records import (
    CacheEntry,
    CacheSize,
    EmbeddingReply,
    EmbeddingRequest,
    FineTuningRequest,
    LanguageModelReply,
    LanguageModelRequest,
    Spelling,
    Usage,
)


class LanguageModelClient(Protocol):
    """The way to one model. One attempt a call: no retries, no cache, no accounting."""

    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        """Raises LMError for everything that goes wrong on the way, Invalid (code not_encodable) for text

        that has no UTF-8 form. Cancelling the task gives the connection up. A sink of the request is told the text
        as it comes; the reply is the same with and without one.
        """
        ...

    async def aclose(self) -> None:
        """Closes the connections. A later call may open new ones."""
        ...


class EmbeddingClient(Protocol):
    """The way to one embedding model, on the terms of `LanguageModelClient`."""

    async def embed(self, request: EmbeddingRequest) -> EmbeddingReply:
        """A vector for each text, in one request to the provider; all of the same length, which is `dimensions` if

        that was asked for. Raises as `LanguageModelClient.complete` does.
        """
        ...

    async def aclose(self) -> None: ...


class FineTuningClient(Protocol):
    """Fine-tunes models where one provider trains them."""

    async def fine_tune(self, request: FineTuningRequest) -> str:
        """The name that the provider gave the tuned model; takes as long as it takes, hours perhaps.

        Raises LMError. Cancelling the task cancels the provider's job.
        """
        ...


class Prices(Protocol):
    async def cost(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        """US dollars for one call of the model with this alias, or None when its price is not known.

        The first call for a model may wait while prices are read. Never raises for an unknown model.
        """
        ...


class Spellings(Protocol):
    async def of(self, settings: ModelSettings) -> Spelling:
        """How this model is asked. The first time may take a moment.

        Raises LMConfigurationError for a model or an option that can't be asked natively.
        """
        ...


class NotShared(Exception):
    """What nodes share can't be reached: each goes on by itself."""


class SharedBreaker(Struct, frozen=True):
    """What some node said last. `token` is another one each time; `breaker.until` is on this node's clock."""

    token: str
    breaker: Breaker


class SharedBreakers(Protocol):
    """What nodes tell each other about breakers that opened. Times survive the clocks of nodes being different."""

    async def look(self, models: Sequence[str]) -> list[SharedBreaker | None]:
        """What is known of each, in their order. Raises NotShared."""
        ...

    async def tell(
        self, model: str, breaker: Breaker, *, instead_of: str | None, keep_s: float | None
    ) -> str | None:
        """Its token, or None when another node has said something since `instead_of` (None: nothing known).

        Forgotten after `keep_s`, unless that is None. Raises NotShared.
        """
        ...


class AnswerCache(Protocol):
    """Answers by project and key. Never fails: a level that is away holds nothing and takes nothing.

    Every project has a generation, which changes when it is cleared: what was begun before is not kept after.
    """

    async def generation(self, project: str) -> str:
        """Asked for before an answer is made, and handed to `put` with it."""
        ...

    async def get(self, project: str, key: str, *, since: float) -> CacheEntry | None:
        """The entry if it was created at that time or later; a level whose entry is older does not hide the next."""
        ...

    async def get_all(self, project: str, keys: Sequence[str], *, since: float) -> list[CacheEntry | None]:
        """`get` for each key, in their order, with as few questions as can be."""
        ...

    async def put(self, project: str, key: str, entry: CacheEntry, generation: str) -> None:
        """Keeps the entry for a while, unless the project was cleared since `generation`. Replaces an older one."""
        ...

    async def discard(self, project: str, key: str) -> None: ...

    async def clear(self, project: str | None) -> bool:
        """Nothing of the project (None: of any) is answered from here any more.

        False when the shared level could not be told now; it is told before it is asked again.
        """
        ...

    def heard(self, project: str | None, *, told: bool) -> None:
        """Another node has cleared the project; `told` is what its `clear` returned."""
        ...

    def size(self) -> CacheSize: ...


class Reservation(Protocol):
    def settle(self, requests: int, tokens: int) -> None:
        """Says what was used instead of what was reserved. Does not wait, so a cancelled call can say it too."""
        ...


class RateLimiter(Protocol):
    async def reserve(self, charges: Sequence[Charge]) -> Reservation | Refusal:
        """Takes all that is asked for, or nothing when one of the limits would be passed. Never raises."""
        ...


class BudgetLedger(Protocol):
    """What budgets have been spent, and what nodes hold of them to spend. The truth for all nodes."""

    async def book(
        self, holding: Holding, *, at: datetime, limit: int, wanted: int = 0, least: int = 0
    ) -> Loan:
        """Stores what the node has spent and holds, and lends it up to `wanted` more: what is left of the limit, but

        nothing when that is below `least`. Booking the same again changes nothing, so it may be repeated when it
        failed. Raises Unavailable.
        """
        ...

    async def close(self, holding: Holding, *, at: datetime) -> None:
        """The node's last booking of an account: what it held is given back, what it spent stays."""
        ...

    async def balances(self, project: str, periods: Collection[str]) -> Sequence[Balance]:
        """Of the periods with these names, by scope and name. Accounts without any booking are not known here."""
        ...

    async def reap(self, *, beat_before: datetime, booked_before: datetime) -> int:
        """Closes what dead nodes hold: those unknown, or without a beat since then, that have not booked since either.

        What their recorded executions cost beyond what they booked is spent, the rest is given back. Returns how
        many holdings.
        """
        ...

    async def forget(self, *, booked_before: datetime) -> int:
        """Deletes the accounts of periods with an end that nobody has booked since, nor holds. Returns how many."""
        ...
