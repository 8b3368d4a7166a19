"""What models answered before, as one attempt of an optimization reads it."""

import asyncio
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any, Self

import structlog

from dspex.gateway.records import EmbeddingRequest, LanguageModelRequest
from dspex.kit import json
from dspex.kit.clock import Clock
from dspex.kit.errors import Unavailable
from dspex.optimizations.ports import Journal
from dspex.optimizations.records import Kept

log = structlog.get_logger(__name__)
AGAIN_S = 0.5
PAGE = 500
# Of answers that are kept in memory besides, and how much of that is read before an attempt begins.
RECENT_BYTES = 32 * 1024 * 1024
READ_AHEAD_BYTES = 24 * 1024 * 1024
Place = tuple[str, int]


def digest_of(request: LanguageModelRequest | EmbeddingRequest, tuned: str = "") -> str:
    """sha256 over what shapes an answer. The alias says who is asked: the model's dialect is not part of it, but a

    fine-tuned model is, by the name that it was given.
    """
    if isinstance(request, EmbeddingRequest):
        content: list[Any] = ["embed", request.model, request.texts, request.dimensions]
    else:
        content = [request.model, request.to_json(), request.rollout_id, request.canonical]
    if tuned:
        content.append(tuned)
    return hashlib.sha256(json.dumps(content, sort_keys=True)).hexdigest()


class Replay:
    """Places are questions, numbered: with `reuse` a run asks the same thing once, as with DSPy's cache on; without,

    each time that it comes is a place of its own, counted from 0 in each attempt.
    """

    def __init__(
        self,
        journal: Journal,
        project: str,
        optimization_id: str,
        before: set[Place],
        clock: Clock,
        *,
        reuse: bool,
    ) -> None:
        self._journal = journal
        self._project = project
        self._id = optimization_id
        self._before = before
        self._now: set[Place] = set()
        self._asked: Counter[str] = Counter()
        self._clock = clock
        self._reuse = reuse
        self._recent: OrderedDict[Place, tuple[Kept, int]] = OrderedDict()
        self._size = 0

    @classmethod
    async def opened(
        cls, journal: Journal, project: str, optimization_id: str, clock: Clock, *, reuse: bool
    ) -> Self:
        """Raises Unavailable."""
        before = set(await journal.places(project, optimization_id))
        replay = cls(journal, project, optimization_id, before, clock, reuse=reuse)
        # One question to the database for hundreds of answers. Which of a long journal they are does not matter.
        after: Place | None = None
        while replay._size < READ_AHEAD_BYTES:
            page = await journal.page(project, optimization_id, after=after, limit=PAGE)
            for kept in page:
                replay._remember(kept)
            if len(page) < PAGE:
                break
            after = (page[-1].digest, page[-1].ordinal)
        return replay

    def place(self, digest: str) -> Place:
        ordinal = 0 if self._reuse else self._asked[digest]
        self._asked[digest] += 1
        return digest, ordinal

    def is_of_before(self, place: Place) -> bool:
        """Whether an earlier attempt left an answer there."""
        return place in self._before

    async def find(self, place: Place) -> Kept | None:
        """Waits for a database that is away: what was paid for is not asked again."""
        if (known := self._recent.get(place)) is not None:
            self._recent.move_to_end(place)
            return known[0]
        while place in self._before or place in self._now:
            try:
                return await self._journal.find(self._project, self._id, *place)
            except Unavailable as error:
                log.warning("journal_waits_for_the_database", optimization=self._id, reason=error.message)
                await asyncio.sleep(AGAIN_S)
        return None

    async def keep(self, place: Place, reply: Mapping[str, Any], cost_usd: float | None) -> Kept:
        """Committed on return, however long the database is away."""
        kept = Kept(*place, reply, cost_usd, self._clock.now())
        while True:
            try:
                await self._journal.keep(self._project, self._id, kept)
            except Unavailable as error:
                log.warning("journal_waits_for_the_database", optimization=self._id, reason=error.message)
                await asyncio.sleep(AGAIN_S)
            else:
                self._now.add(place)
                self._remember(kept)
                return kept

    def _remember(self, kept: Kept) -> None:
        size = len(json.dumps(kept.reply))
        place = (kept.digest, kept.ordinal)
        self._recent[place] = (kept, size)
        self._size += size
        while self._size > RECENT_BYTES:
            _, (_, gone) = self._recent.popitem(last=False)
            self._size -= gone
