"""Optimizations for the command line: those of the configuration's database, or of a running node."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.remote import Remote, named_node, segment
from dspex.interfaces.cli.session import Operation, with_services
from dspex.interfaces.shared import optimization_presenters as presenters
from dspex.interfaces.shared.services import Services
from dspex.optimizations.records import OptimizationFilter, Order
from dspex.optimizations.service import Estimate

T = TypeVar("T")
Change = Literal["cancel", "pause", "resume"]


class Door(Protocol):
    """Documents as the HTTP interface gives them."""

    def get(self, optimization_id: str) -> dict[str, Any]: ...

    def newest(self, program: str | None, status: Any, limit: int) -> list[dict[str, Any]]: ...

    def estimate(self, wanted: Mapping[str, Any]) -> dict[str, Any]: ...

    def change(self, optimization_id: str, change: Change) -> dict[str, Any]: ...

    def keep(self, optimization_id: str) -> dict[str, Any]: ...


def door(application: Application, config: Path | None, url: str | None, project: str) -> Door:
    return node_at(url, project) or Here(application, config, project)


def node_at(url: str | None, project: str) -> "There | None":
    """The running node that is meant, if one is."""
    node = named_node(url, project)
    return None if node is None else There(node)


def order_of(wanted: Mapping[str, Any]) -> Order:
    return Order(**{name: value for name, value in wanted.items() if value is not None})


class Here:
    def __init__(self, application: Application, config: Path | None, project: str) -> None:
        self._application = application
        self._config = config
        self._project = project

    def _with(self, use: Callable[[Services], Awaitable[T]], audited: Operation | None = None) -> T:
        return with_services(self._application, self._config, use, audited)

    def _look(self, use: Callable[[Services], Awaitable[T]]) -> T:
        return with_services(self._application, self._config, use, reads=True)

    def get(self, optimization_id: str) -> dict[str, Any]:
        found = self._look(lambda services: services.optimizations.get(self._project, optimization_id))
        return dict(presenters.whole_optimization(found))

    def newest(self, program: str | None, status: Any, limit: int) -> list[dict[str, Any]]:
        where = OptimizationFilter(program=program, state=status)
        page = self._look(
            lambda services: services.optimizations.list(self._project, where, limit=limit, cursor=None)
        )
        return [dict(presenters.optimization(one)) for one in page.data]

    def estimate(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        operator, order = replace(LOCAL_OPERATOR, project=self._project), order_of(wanted)
        settings, _ = self._application.load_settings(self._config, {})

        async def use() -> Estimate:
            async with self._application.working_here(settings) as here:
                await here.declare(self._project)
                return await here.services.optimizations.estimate(operator, order)

        return dict(presenters.estimate(asyncio.run(use())))

    def change(self, optimization_id: str, change: Change) -> dict[str, Any]:
        operation = Operation(f"optimization.{change}", optimization_id, self._project)
        changed = self._with(
            lambda services: getattr(services.optimizations, change)(self._project, optimization_id),
            operation,
        )
        return dict(presenters.whole_optimization(changed))

    def keep(self, optimization_id: str) -> dict[str, Any]:
        async def use(services: Services) -> dict[str, Any]:
            found = await services.optimizations.get(self._project, optimization_id)
            version = await services.optimizations.keep(self._project, optimization_id)
            return dict(presenters.kept(found.plan.program, version))

        return self._with(use, Operation("optimization.keep", optimization_id, self._project))


class There:
    def __init__(self, node: Remote) -> None:
        self._node = node

    def create(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        return self._node.post("/v1/optimizations", _given(wanted))

    def get(self, optimization_id: str) -> dict[str, Any]:
        return self._node.get(_path(optimization_id))

    def newest(self, program: str | None, status: Any, limit: int) -> list[dict[str, Any]]:
        return self._node.listed("/v1/optimizations", limit, program=program, status=status)

    def estimate(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        return self._node.request("POST", "/v1/optimizations/estimate", _given(wanted))

    def change(self, optimization_id: str, change: Change) -> dict[str, Any]:
        self._node.request("POST", f"{_path(optimization_id)}/{change}", {})
        return self.get(optimization_id)

    def keep(self, optimization_id: str) -> dict[str, Any]:
        return self._node.request("POST", f"{_path(optimization_id)}/keep", {})


def _given(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if value is not None}


def _path(optimization_id: str) -> str:
    return f"/v1/optimizations/{segment(optimization_id)}"
