"""A server for tests of language model clients: it answers as the test says, and faults as real ones do."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Received:
    """One request: `headers` with lower-case names, `body` from JSON."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class ScriptedServer:
    """Speaks just enough HTTP/1.1 to be able to misspeak it. `mode` is what the next requests get."""

    url: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    mode: str = "answer"
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    def answers(self, body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.mode, self.status, self.headers = "answer", status, headers or {}
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.left.set()
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.received.append(Received(first.split()[1], headers, json.loads(body)))
        self.asked.set()
        if self.mode == "hang":
            await reader.read()
            return False
        if self.mode == "nothing":
            return False
        if self.mode == "noise":
            writer.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            return False
        length = len(self.body) + (100 if self.mode in ("half", "stall") else 0)
        headers = {"content-type": "application/json", **self.headers, "content-length": str(length)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {self.status} Said\r\n{lines}\r\n".encode() + self.body)
        await writer.drain()
        if self.mode == "stall":
            await reader.read()
        return self.mode == "answer"


@asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    """Runs one on an ephemeral port of the loopback address."""
    scripted = ScriptedServer()
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    scripted.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield scripted
    finally:
        server.close()
