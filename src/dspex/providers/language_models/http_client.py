"""A client for OpenAI-compatible servers, over aiohttp."""

import asyncio
from collections.abc import Mapping

import aiohttp
from aiohttp import hdrs
from yarl import URL

from dspex.configuration.models import ModelSettings
from dspex.gateway.errors import (
    LMConfigurationError,
    LMError,
    LMTimeoutError,
    LMTransportError,
    LMUnexpectedError,
)
from dspex.gateway.records import LanguageModelReply, LanguageModelRequest
from dspex.kit.addresses import without_secrets
from dspex.providers.language_models import openai_chat
from dspex.providers.secrets import hidden

DIALECT = "openai-chat"
LONGEST_REPLY = 16 * 1024 * 1024
LONGEST_CONNECT_S = 10.0


class OpenAIChatClient:
    """One model's own connections, kept alive. `key` is sent as a bearer token and appears nowhere else."""

    def __init__(self, base_url: str, key: str | None, settings: ModelSettings) -> None:
        """Raises LMConfigurationError for an address that is not http or https."""
        url = URL(base_url.rstrip("/") + "/chat/completions")
        if url.scheme not in ("http", "https") or not url.host:
            raise LMConfigurationError(
                f"api_base {without_secrets(base_url)!r} is not an http or https address; correct it in "
                "models.registry."
            )
        self._url = url
        self._where = f"{url.scheme}://{url.authority.rpartition('@')[2]}"
        self._key = key
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

    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        """One POST. Redirects are not followed: the key goes to the address configured, or nowhere."""
        if request.dialect.name != DIALECT:
            raise LMConfigurationError(
                f"The program was compiled for {request.dialect.provider}, but model {request.model!r} is "
                "OpenAI-compatible now; make a new version of the program with this model.",
                code="lm_other_dialect",
            )
        body = openai_chat.encode(request)
        try:
            status, headers, answer = await self._post(body)
            return openai_chat.decode(status, headers, answer, request.dialect.model)
        except LMError as error:
            raise hidden(error, self._key) from None

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        session = self._session or self._open()
        try:
            async with session.post(self._url, data=body, allow_redirects=False) as response:
                return response.status, response.headers, await self._body(response)
        except aiohttp.ConnectionTimeoutError:
            raise LMTransportError(
                f"No connection to {self._where} within {self._timeout.sock_connect:g} s; check the network "
                "and api_base."
            ) from None
        except TimeoutError:
            raise LMTimeoutError(
                f"{self._where} sent nothing for {self._timeout.sock_read:g} s; raise timeout_s in "
                "models.registry if the model is slow."
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise LMTransportError(
                f"{self._where} can't be reached ({error.strerror or error.os_error}); is the server "
                "running, and is api_base right?"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise LMTransportError(
                f"The connection to {self._where} broke before the whole answer had come "
                f"({_reason(error)}); try again."
            ) from None

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        chunks, size = [], 0
        while chunk := await response.content.readany():
            size += len(chunk)
            if size > LONGEST_REPLY:
                response.close()
                raise LMUnexpectedError(
                    f"{self._where} sent more than {LONGEST_REPLY} bytes; that is no chat completion. "
                    "Check api_base in models.registry."
                )
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

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
