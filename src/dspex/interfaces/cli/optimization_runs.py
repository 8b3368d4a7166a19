"""`dspex optimize`: asked for, worked on where nobody else does, watched."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from dspex.access.records import CLI, LOCAL_OPERATOR, Author
from dspex.interfaces.cli.doing_here import LOOK_S, done_here, finished
from dspex.interfaces.cli.optimization_doors import There, node_at, order_of
from dspex.interfaces.cli.optimization_output import watching
from dspex.interfaces.cli.ports import Application, WorkingHere
from dspex.interfaces.cli.waiting import STILL, Left, check_goes_on
from dspex.interfaces.shared import optimization_presenters as presenters
from dspex.kit import json
from dspex.kit.errors import Invalid
from dspex.optimizations.records import Optimization


def read_settings(given: Sequence[str]) -> dict[str, Any]:
    """Of "name=value", where a value is JSON if it can be read so, else text. Raises Invalid (code bad_argument)."""
    found: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise Invalid(f"--set takes name=value, not {one!r}.", code="bad_argument")
        try:
            found[name] = json.loads(value.encode(errors="surrogateescape"))
        except ValueError:
            found[name] = value
    return found


def run(
    application: Application,
    config: Path | None,
    url: str | None,
    project: str,
    wanted: Mapping[str, Any],
    *,
    watch: bool,
) -> dict[str, Any]:
    """The optimization when it is over, or with `watch` False at once. Raises Left, and what refuses it."""
    node = node_at(url, project)
    if node is None:
        return _here(application, config, project, None, wanted, watch=watch)
    made = node.create(wanted)
    return watched(node, made["id"]) if watch else node.get(made["id"])


def resume(
    application: Application, config: Path | None, url: str | None, project: str, optimization_id: str
) -> dict[str, Any]:
    """Goes on with a paused one, or one that was left, and waits for it."""
    node = node_at(url, project)
    if node is None:
        return _here(application, config, project, optimization_id, {}, watch=True)
    status = node.get(optimization_id)["status"]
    check_goes_on("optimization", optimization_id, status)
    if status == "paused":
        node.change(optimization_id, "resume")
    return watched(node, optimization_id)


def watched(node: There, optimization_id: str) -> dict[str, Any]:
    try:
        with watching() as tell:
            while (made := node.get(optimization_id))["status"] not in STILL:
                tell(made)
                time.sleep(LOOK_S)
    except KeyboardInterrupt:
        raise Left(
            f"the node goes on with it; `dspex optimize cancel {optimization_id}` there would end it."
        ) from None
    return made


def _here(
    application: Application,
    config: Path | None,
    project: str,
    optimization_id: str | None,
    wanted: Mapping[str, Any],
    *,
    watch: bool,
) -> dict[str, Any]:
    async def begin(here: WorkingHere) -> Optimization:
        if optimization_id is None:
            return await _created(here, project, wanted)
        found = await here.services.optimizations.get(project, optimization_id)
        check_goes_on("optimization", found.id, found.state)
        if found.state == "paused":
            return await here.services.optimizations.resume(project, found.id)
        return found

    async def shown(here: WorkingHere, made: str) -> dict[str, Any]:
        return dict(presenters.whole_optimization(await here.services.optimizations.get(project, made)))

    finish = _finished if watch else None
    return done_here(application, config, "optimize", project, optimization_id, begin, finish, shown)


async def _created(here: WorkingHere, project: str, wanted: Mapping[str, Any]) -> Optimization:
    services = here.services
    operator, order = replace(LOCAL_OPERATOR, project=project), order_of(wanted)
    author = Author(project, CLI)
    async with services.audit.operation(author, "optimization.create", order.program) as told:
        await here.declare(project)
        made, _ = await services.optimizations.create(operator, order)
        told["id"] = made.id
    return made


async def _finished(here: WorkingHere, made: Optimization) -> None:
    with watching() as tell:

        async def look() -> str:
            found = await here.services.optimizations.get(made.project, made.id)
            tell(dict(presenters.optimization(found)))
            return found.state

        await finished(here, made.project, made.id, look)
