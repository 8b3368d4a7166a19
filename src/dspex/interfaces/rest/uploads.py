"""Bodies that are taken as they come."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO, cast

from starlette.requests import ClientDisconnect, Request

from dspex.interfaces.rest.exchange import ClientGone
from dspex.kit.errors import Invalid, TimedOut, Unavailable

# What is smaller is kept in memory.
SPOOLED = 1024 * 1024


async def chunks_of(request: Request, what: str, limit: int, within_s: float) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Invalid (code body_too_large), TimedOut when the next piece takes too long."""
    size, stream = 0, request.stream()
    while True:
        try:
            async with asyncio.timeout(within_s):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise TimedOut(
                f"No more of the request body came for {within_s:g} s.", code="body_too_slow"
            ) from None
        except ClientDisconnect:
            raise ClientGone from None
        if chunk is None:
            return
        size += len(chunk)
        if size > limit:
            raise Invalid(f"The {what} is larger than {limit} bytes, the limit.", code="body_too_large")
        yield chunk


@asynccontextmanager
async def spooled(chunks: AsyncIterator[bytes]) -> AsyncIterator[BinaryIO]:
    """The body as a file, at its beginning; it is gone when it is left.

    Raises Unavailable (code no_room) where the disk is full.
    """
    with tempfile.SpooledTemporaryFile(max_size=SPOOLED) as file:
        try:
            async for chunk in chunks:
                await asyncio.to_thread(file.write, chunk)
            file.seek(0)
        except OSError as error:
            raise Unavailable(
                f"The file can't be kept while it is read ({error.strerror}); its operator makes room in the "
                "directory for temporary files, or names another in TMPDIR.",
                code="no_room",
            ) from None
        yield cast(BinaryIO, file)
