"""Evaluations for the command line: those of the configuration's database, or of a running node."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dspex.evaluations.records import EvaluationFilter, EvaluationStatus, Order, ResultFilter, ResultState
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.remote import PAGE, Remote, named_node, segment
from dspex.interfaces.cli.session import Operation, with_services
from dspex.interfaces.shared import evaluation_presenters as presenters
from dspex.interfaces.shared.services import Services

T = TypeVar("T")


class Door(Protocol):
    """Documents as the HTTP interface gives them."""

    def get(self, evaluation_id: str) -> dict[str, Any]: ...

    def newest(
        self, program: str | None, status: EvaluationStatus | None, limit: int
    ) -> list[dict[str, Any]]: ...

    def results(
        self, evaluation_id: str, state: ResultState | None, order: Order, limit: int
    ) -> list[dict[str, Any]]: ...

    def compare(self, a: str, b: str) -> dict[str, Any]: ...

    def differences(self, a: str, b: str, limit: int) -> list[dict[str, Any]]: ...

    def cancel(self, evaluation_id: str) -> dict[str, Any]: ...


def door(application: Application, config: Path | None, url: str | None, project: str) -> Door:
    return node_at(url, project) or Here(application, config, project)


def node_at(url: str | None, project: str) -> "There | None":
    """The running node that is meant, if one is."""
    node = named_node(url, project)
    return None if node is None else There(node)


class Here:
    def __init__(self, application: Application, config: Path | None, project: str) -> None:
        self._application = application
        self._config = config
        self._project = project

    def _with(self, use: Callable[[Services], Awaitable[T]], audited: Operation | None = None) -> T:
        return with_services(self._application, self._config, use, audited)

    def _look(self, use: Callable[[Services], Awaitable[T]]) -> T:
        return with_services(self._application, self._config, use, reads=True)

    def get(self, evaluation_id: str) -> dict[str, Any]:
        return presenters.evaluation(
            self._with(lambda services: services.evaluations.get(self._project, evaluation_id))
        )

    def newest(
        self, program: str | None, status: EvaluationStatus | None, limit: int
    ) -> list[dict[str, Any]]:
        where = EvaluationFilter(program=program, status=status)
        page = self._look(
            lambda services: services.evaluations.list(self._project, where, limit=limit, cursor=None)
        )
        return [presenters.evaluation(one) for one in page.data]

    def results(
        self, evaluation_id: str, state: ResultState | None, order: Order, limit: int
    ) -> list[dict[str, Any]]:
        async def use(services: Services) -> list[dict[str, Any]]:
            evaluation = await services.evaluations.get(self._project, evaluation_id)
            found: list[dict[str, Any]] = []
            cursor: str | None = None
            while len(found) < limit:
                page = await services.evaluations.results(
                    evaluation,
                    ResultFilter(state, order),
                    limit=min(PAGE, limit - len(found)),
                    cursor=cursor,
                )
                found += [presenters.result(one) for one in page.data]
                cursor = page.next_cursor
                if cursor is None:
                    break
            return found

        return self._look(use)

    def compare(self, a: str, b: str) -> dict[str, Any]:
        async def use(services: Services) -> dict[str, Any]:
            one = await services.evaluations.get(self._project, a)
            other = await services.evaluations.get(self._project, b)
            return await services.evaluations.compare(one, other)

        return self._look(use)

    def differences(self, a: str, b: str, limit: int) -> list[dict[str, Any]]:
        async def use(services: Services) -> list[dict[str, Any]]:
            one = await services.evaluations.get(self._project, a)
            other = await services.evaluations.get(self._project, b)
            page = await services.evaluations.compare_examples(
                one, other, changed=True, limit=limit, cursor=None
            )
            return [presenters.pair(pair) for pair in page.data]

        return self._with(use)

    def cancel(self, evaluation_id: str) -> dict[str, Any]:
        operation = Operation("evaluation.cancel", evaluation_id, self._project)
        return presenters.evaluation(
            self._with(lambda services: services.evaluations.cancel(self._project, evaluation_id), operation)
        )


class There:
    def __init__(self, node: Remote) -> None:
        self._node = node

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._node.post("/v1/evaluations", body)

    def get(self, evaluation_id: str) -> dict[str, Any]:
        return self._node.get(_path(evaluation_id))

    def newest(
        self, program: str | None, status: EvaluationStatus | None, limit: int
    ) -> list[dict[str, Any]]:
        return self._node.listed("/v1/evaluations", limit, program=program, status=status)

    def results(
        self, evaluation_id: str, state: ResultState | None, order: Order, limit: int
    ) -> list[dict[str, Any]]:
        return self._node.listed(f"{_path(evaluation_id)}/results", limit, status=state, order=order)

    def compare(self, a: str, b: str) -> dict[str, Any]:
        return self._node.get("/v1/evaluations/compare", a=a, b=b)

    def differences(self, a: str, b: str, limit: int) -> list[dict[str, Any]]:
        return self._node.listed("/v1/evaluations/compare/examples", limit, a=a, b=b)

    def cancel(self, evaluation_id: str) -> dict[str, Any]:
        return self._node.post(f"{_path(evaluation_id)}/cancel", {})

    def resume(self, evaluation_id: str) -> dict[str, Any]:
        """A paused one: its job has its id."""
        self._node.request("POST", f"/v1/jobs/{segment(evaluation_id)}/resume", {})
        return self.get(evaluation_id)


def _path(evaluation_id: str) -> str:
    return f"/v1/evaluations/{segment(evaluation_id)}"
