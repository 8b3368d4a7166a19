"""A model that fails again and again is left alone for a while."""

from dspex.gateway.breakers import Breakers
from dspex.gateway.errors import LMError
from dspex.gateway.pipeline import Passage, Proceed, Q, R


class Breaking:
    """Every attempt counts by itself: one that trips the breaker also ends the retries of calls under way."""

    def __init__(self, breakers: Breakers) -> None:
        self._breakers = breakers

    async def __call__(self, passage: Passage[Q, R], *, proceed: Proceed[Q, R]) -> R:
        """Raises BreakerOpen at once while the model's breaker is open."""
        model, settings = passage.request.model, passage.settings
        permit = await self._breakers.admit(model, settings)
        try:
            reply = await proceed(passage)
        except LMError as error:
            if error.trips:
                await self._breakers.failed(model, permit, settings, error)
            else:
                await self._breakers.given_up(model, permit)
            raise
        except BaseException:
            await self._breakers.given_up(model, permit)
            raise
        await self._breakers.succeeded(model, permit, settings)
        return reply
