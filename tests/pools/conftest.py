from collections.abc import AsyncIterator

import pytest

from tests.plugins.pools import TestedPools, open_pools


@pytest.fixture
async def pools() -> AsyncIterator[TestedPools]:
    async with open_pools(workers=1) as opened:
        yield opened
