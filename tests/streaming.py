"""Reading server-sent events in tests."""

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

ACCEPT = {"accept": "text/event-stream"}


@dataclass(frozen=True)
class Seen:
    """One event; `id` is None where it had none."""

    kind: str
    data: dict[str, Any]
    id: str | None


def read(lines: Iterable[str]) -> Iterator[Seen]:
    """Events as they end; comments and `retry` are left out."""
    members: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            members[name] = value
            continue
        if "data" in members:
            yield Seen(members["event"], json.loads(members["data"]), members.get("id"))
        members = {}


async def read_live(response: httpx.Response) -> AsyncIterator[Seen]:
    block: list[str] = []
    async for line in response.aiter_lines():
        block.append(line)
        if not line:
            for seen in read(block):
                yield seen
            block = []


def put_together(events: Iterable[Seen]) -> dict[str, str]:
    """The fields as a client shows them."""
    fields: dict[str, str] = {}
    for one in events:
        if one.kind == "status" and one.data.get("restarted"):
            fields.clear()
        if one.kind == "field":
            fields[one.data["name"]] = fields.get(one.data["name"], "") + one.data["delta"]
    return fields
