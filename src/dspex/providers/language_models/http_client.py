"""A client for chat at OpenAI-compatible servers."""

import asyncio
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from dspex.configuration.models import ModelSettings
from dspex.gateway.errors import LMConfigurationError
from dspex.gateway.records import LanguageModelReply, LanguageModelRequest
from dspex.providers.language_models import openai_chat
from dspex.providers.language_models.event_stream import EventDecoder
from dspex.providers.language_models.openai_chat_stream import StreamedCompletion
from dspex.providers.language_models.openai_server import OpenAIServer

if TYPE_CHECKING:
    import aiohttp

    from dspex.providers.language_models.lm15_client import LM15Client

DIALECT = "openai-chat"
NO_KEY = "none"
EVENT_STREAM = "text/event-stream"
LONGEST_REPLY = 16 * 1024 * 1024
# What a server may take to end a stream after it said that it is done.
LONGEST_END_S = 0.5


class OpenAIChatClient:
    """`gateway.ports.LanguageModelClient`."""

    def __init__(self, base_url: str, key: str | None, settings: ModelSettings) -> None:
        """Raises LMConfigurationError for an address that is not http or https."""
        self._server = OpenAIServer(base_url, "/chat/completions", key, settings, longest_reply=LONGEST_REPLY)
        self._key = key
        self._settings = settings
        self._lm15: LM15Client | None = None

    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        """One POST."""
        if request.dialect.name != DIALECT:
            raise LMConfigurationError(
                f"The program was compiled for {request.dialect.provider}, but model {request.model!r} is "
                "OpenAI-compatible now; make a new version of the program with this model.",
                code="lm_other_dialect",
            )
        if request.canonical is not None:
            return await (await self._canonical()).complete(request)

        async def read(response: "aiohttp.ClientResponse") -> LanguageModelReply:
            return await self._read(response, request)

        body = openai_chat.encode(request)
        accept = None if request.sink is None else EVENT_STREAM
        return await self._server.post(body, read, traceparent=request.traceparent, accept=accept)

    async def aclose(self) -> None:
        await self._server.aclose()
        if self._lm15 is not None:
            await self._lm15.aclose()

    async def _canonical(self) -> "LM15Client":
        """For requests that are more than text. Its import takes a third of a second, in a thread."""
        if self._lm15 is None:
            module = await asyncio.to_thread(import_module, "dspex.providers.language_models.lm15_client")
            # lm15 wants a key; a server that was given none asks for none.
            self._lm15 = self._lm15 or module.LM15Client(self._settings, self._key or NO_KEY)
        return self._lm15

    async def _read(
        self, response: "aiohttp.ClientResponse", request: LanguageModelRequest
    ) -> LanguageModelReply:
        model = request.dialect.model
        if request.sink is not None and response.status < 300 and response.content_type == EVENT_STREAM:
            whole = StreamedCompletion(response.status, response.headers, model, request.sink)
            return await self._streamed(response, whole)
        # Also what a server answers that does not stream.
        answer = await self._server.body(response)
        return openai_chat.decode(response.status, response.headers, answer, model)

    async def _streamed(
        self, response: "aiohttp.ClientResponse", whole: StreamedCompletion
    ) -> LanguageModelReply:
        decoder, size = EventDecoder(), 0
        while not whole.done and (chunk := await response.content.readany()):
            size += len(chunk)
            self._server.check_size(size, response)
            for data in decoder.feed(chunk):
                whole.add(data)
        for data in decoder.close():
            whole.add(data)
        reply = whole.reply()
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_END_S):
                # A connection that is read to its end can be used again.
                while await response.content.readany():
                    pass
        return reply
