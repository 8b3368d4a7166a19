"""The gateway's steps with their state, which lives as long as the process, over any reload."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct

from dspex.application.caches import OpenCaches, open_caches
from dspex.configuration.settings import Settings
from dspex.gateway.breakers import Breakers
from dspex.gateway.leases import BudgetLeases
from dspex.gateway.pipeline import CompletionStep, EmbeddingStep
from dspex.gateway.ports import Prices, RateLimiter, SharedBreakers
from dspex.gateway.steps.admitting import Admitting
from dspex.gateway.steps.breaking import Breaking
from dspex.gateway.steps.budgets import Budgets
from dspex.gateway.steps.caching import Caching
from dspex.gateway.steps.embedding import Vectors
from dspex.gateway.steps.fallbacks import Fallbacks
from dspex.gateway.steps.lanes import Lanes
from dspex.gateway.steps.rate_limits import CallerLimits, ModelLimits
from dspex.gateway.steps.retries import Retries
from dspex.gateway.steps.single_flight import SingleFlight
from dspex.kit.clock import Clock
from dspex.kit.facts import Facts
from dspex.kit.signals import Signals
from dspex.providers.language_models.spellings import Lm15Spellings
from dspex.providers.memory.breakers import MemoryBreakers
from dspex.providers.memory.rate_limiter import MemoryRateLimiter
from dspex.storage.opening import Database


class GatewayParts(Struct, frozen=True):
    """What the steps of the gateway are made of, once for each process."""

    clock: Clock
    answers: OpenCaches
    flights: SingleFlight
    leases: BudgetLeases
    limiter: RateLimiter
    retries: Retries
    breakers: Breakers
    lanes: Lanes

    def steps(self, settings: Settings, prices: Prices) -> Sequence[CompletionStep]:
        """What every completion passes, the outermost first; docs/decisions/0008 has the reasons."""
        return (
            Caching(self.answers.replies, self.clock),
            self.flights,
            Budgets(self.leases, prices),
            CallerLimits(self.limiter, settings.rate_limits),
            Fallbacks(Lm15Spellings(), self.clock),
            self.retries,
            ModelLimits(self.limiter),
            Breaking(self.breakers),
            self.lanes,
        )

    def embedding_steps(
        self, settings: Settings, prices: Prices, check: Callable[[], None]
    ) -> Sequence[EmbeddingStep]:
        """The same for embeddings, without fallbacks: the vectors of another model mean something else.

        `check` raises while no model is to be asked.
        """
        return (
            Vectors(self.answers.vectors, self.clock),
            Admitting(check),
            self.flights,
            Budgets(self.leases, prices),
            CallerLimits(self.limiter, settings.rate_limits),
            self.retries,
            ModelLimits(self.limiter),
            Breaking(self.breakers),
            self.lanes,
        )


@asynccontextmanager
async def open_gateway_parts(
    settings: Settings,
    database: Database,
    signals: Signals,
    node: str,
    clock: Clock,
    facts: Facts,
    *,
    serving: bool,
) -> AsyncIterator[GatewayParts]:
    async with AsyncExitStack() as stack:
        redis = None
        shared: SharedBreakers = MemoryBreakers(clock)
        # By itself each of several processes has its share of every limit.
        limiter: RateLimiter = MemoryRateLimiter(clock, share=1 / settings.server.workers)
        if settings.redis_url is not None:
            from dspex.providers.redis.breakers import RedisBreakers
            from dspex.providers.redis.link import RedisLink
            from dspex.providers.redis.rate_limiter import RedisRateLimiter

            redis = RedisLink(settings.redis_url, settings.redis_prefix, clock)
            stack.push_async_callback(redis.aclose)
            shared, limiter = RedisBreakers(redis, clock), RedisRateLimiter(redis, limiter)
            stack.push_async_callback(limiter.aclose)
        answers = await stack.enter_async_context(open_caches(settings, redis, clock, facts, signals))
        breakers, lanes = Breakers(shared, signals, clock, facts), Lanes(clock)
        if serving and redis is not None:
            await stack.enter_async_context(breakers.listening(settings.models.registry))
        leases = BudgetLeases(database.budgets, node, clock)
        stack.push_async_callback(leases.aclose)
        yield GatewayParts(
            clock=clock,
            answers=answers,
            flights=SingleFlight(clock),
            leases=leases,
            limiter=limiter,
            retries=Retries(clock),
            breakers=breakers,
            lanes=lanes,
        )
