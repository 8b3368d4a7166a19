"""An OpenAI-compatible server over aiohttp: connections, time limits, sizes, and what their failures mean."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from yarl import URL

from dspex.configuration.models import ModelSettings
from dspex.gateway.errors import (
    LMConfigurationError,
    LMError,
    LMTimeoutError,
    LMTransportError,
    LMUnexpectedError,
)
from dspex.kit.addresses import without_secrets
from dspex.kit.tracing import HEADER
from dspex.providers.certificates import read_when_needed
from dspex.providers.secrets import hidden

with read_when_needed():
    import aiohttp
    from aiohttp import hdrs

LONGEST_CONNECT_S = 10.0
T = TypeVar("T")


class OpenAIServer:
    """One model's own connections, kept alive. `key` is sent as a bearer token and appears nowhere else."""

    def __init__(
        self, base_url: str, path: str, key: str | None, settings: ModelSettings, *, longest_reply: int
    ) -> None:
        """Raises LMConfigurationError for an address that is not http or https."""
        url = URL(base_url.rstrip("/") + path)
        if url.scheme not in ("http", "https") or not url.host:
            raise LMConfigurationError(
                f"api_base {without_secrets(base_url)!r} is not an http or https address; correct it in "
                "models.registry."
            )
        self._url = url
        self._where = f"{url.scheme}://{url.authority.rpartition('@')[2]}"
        self._key = key
        self._longest_reply = longest_reply
        self._headers = {
            hdrs.CONTENT_TYPE: "application/json",
            hdrs.ACCEPT: "application/json",
            hdrs.USER_AGENT: "dspex",
        }
        if key:
            self._headers[hdrs.AUTHORIZATION] = f"Bearer {key}"
        self._max_connections = settings.max_connections
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=min(settings.timeout_s, LONGEST_CONNECT_S),
            sock_read=settings.timeout_s,
        )
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self,
        body: bytes,
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
        *,
        traceparent: str | None = None,
        accept: str | None = None,
    ) -> T:
        """What `read` makes of the response. Redirects are not followed: the key goes to the address configured, or

        nowhere. No error quotes the key.
        """
        session = self._session or self._open()
        # None adds nothing to the headers of the session, and costs nothing.
        headers: Mapping[str, str] | None = None if traceparent is None else {HEADER: traceparent}
        if accept is not None:
            headers = {**(headers or {}), hdrs.ACCEPT: accept}
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                return await read(response)
        except LMError as error:
            raise hidden(error, self._key) from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._failure(error) from None

    def _failure(self, error: aiohttp.ClientError | OSError) -> LMError:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return LMTransportError(
                f"No connection to {self._where} within {self._timeout.sock_connect:g} s; check the network "
                "and api_base."
            )
        if isinstance(error, TimeoutError):
            return LMTimeoutError(
                f"{self._where} sent nothing for {self._timeout.sock_read:g} s; raise timeout_s in "
                "models.registry if the model is slow."
            )
        if isinstance(error, aiohttp.ClientConnectorError):
            return LMTransportError(
                f"{self._where} can't be reached ({error.strerror or error.os_error}); is the server "
                "running, and is api_base right?"
            )
        return LMTransportError(
            f"The connection to {self._where} broke before the whole answer had come "
            f"({_reason(error)}); try again."
        )

    async def body(self, response: aiohttp.ClientResponse) -> bytes:
        """All of it. Raises LMUnexpectedError when it is too large."""
        chunks, size = [], 0
        while chunk := await response.content.readany():
            size += len(chunk)
            self.check_size(size, response)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def check_size(self, size: int, response: aiohttp.ClientResponse) -> None:
        """Raises LMUnexpectedError, and closes the response, when so many bytes are too many."""
        if size > self._longest_reply:
            response.close()
            raise LMUnexpectedError(
                f"{self._where} sent more than {self._longest_reply} bytes; that is no answer of a model. "
                "Check api_base in models.registry."
            )

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        """At the first call, as a session belongs to the running loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._max_connections),
            headers=self._headers,
            # Compressing a few kilobytes costs more than it saves.
            skip_auto_headers=(hdrs.ACCEPT_ENCODING,),
            cookie_jar=aiohttp.DummyCookieJar(loop=asyncio.get_running_loop()),
            timeout=self._timeout,
            trust_env=False,
        )
        return self._session


def _reason(error: Exception) -> str:
    """What is known of a broken connection; parse errors quote the server's bytes, so they are shortened."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
