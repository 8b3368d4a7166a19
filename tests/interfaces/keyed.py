"""A node that asks for keys, and keys for it."""

from typing import Any

import httpx

from dspex.access.records import LOCAL_OPERATOR, Principal, Role
from dspex.access.service import NewKey
from dspex.configuration.access import Access
from dspex.configuration.settings import Settings
from tests.interfaces.node import TestNode


def keyed_node(**settings: Any) -> TestNode:
    return TestNode(Settings(log_level="error", access=Access(mode="required"), **settings))


async def key_for(node: TestNode, role: Role = "admin", project: str = "default", **more: Any) -> str:
    operator = Principal(project, LOCAL_OPERATOR.role, LOCAL_OPERATOR.scopes)
    _, text = await node.services.keys.create(NewKey("test", role, **more), operator, "cli")
    return text


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def client_with(node: TestNode, key: str, **headers: str) -> httpx.AsyncClient:
    return node.client(headers=bearer(key) | headers)
