"""`dspex eval run`: asked for, worked on where nobody else does, watched."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from dspex.access.records import CLI, LOCAL_OPERATOR, Author
from dspex.evaluations.records import Evaluation, Wanted
from dspex.evaluations.service import named
from dspex.executions.service import OFF
from dspex.interfaces.cli.doing_here import LOOK_S, done_here, finished
from dspex.interfaces.cli.evaluation_doors import There, node_at
from dspex.interfaces.cli.evaluation_output import watching
from dspex.interfaces.cli.ports import Application, WorkingHere
from dspex.interfaces.cli.waiting import STILL, Left, check_goes_on
from dspex.interfaces.shared import evaluation_presenters as presenters
from dspex.kit import json
from dspex.kit.errors import Invalid


def read_metric_option(text: str) -> Any:
    """A name, "package.module:function", or JSON. Raises Invalid (code bad_argument)."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text.encode(errors="surrogateescape"))
        except ValueError as error:
            raise Invalid(f"--metric is not JSON: {error}.", code="bad_argument") from None
    return {"python": text} if ":" in text else text


def run(
    application: Application,
    config: Path | None,
    url: str | None,
    project: str,
    wanted: Mapping[str, Any],
    *,
    watch: bool,
) -> dict[str, Any]:
    """The evaluation when it is over, or with `watch` False at once. Raises Left, and what refuses it."""
    node = node_at(url, project)
    if node is None:
        return _here(application, config, project, None, wanted, watch=watch)
    made = node.create({name: value for name, value in wanted.items() if value is not None})
    return _wait_there(node, made) if watch else made


def resume(
    application: Application, config: Path | None, url: str | None, project: str, evaluation_id: str
) -> dict[str, Any]:
    node = node_at(url, project)
    if node is None:
        return _here(application, config, project, evaluation_id, {}, watch=True)
    made = node.get(evaluation_id)
    check_goes_on("evaluation", evaluation_id, made["status"])
    if made["status"] == "paused":
        made = node.resume(evaluation_id)
    return _wait_there(node, made)


def _wait_there(node: There, made: dict[str, Any]) -> dict[str, Any]:
    try:
        with watching(made["examples"]) as tell:
            while made["status"] not in STILL:
                tell(made)
                time.sleep(LOOK_S)
                made = node.get(made["id"])
    except KeyboardInterrupt:
        raise Left(
            f"the node goes on with it; `dspex eval cancel {made['id']}` there would end it."
        ) from None
    return made


def _here(
    application: Application,
    config: Path | None,
    project: str,
    evaluation_id: str | None,
    wanted: Mapping[str, Any],
    *,
    watch: bool,
) -> dict[str, Any]:
    async def begin(here: WorkingHere) -> Evaluation:
        if evaluation_id is None:
            return await _created(here, project, wanted)
        found = await here.services.evaluations.get(project, evaluation_id)
        check_goes_on("evaluation", found.id, found.status)
        if found.status == "paused":
            await here.services.jobs.resume(project, found.id)
        return found

    async def shown(here: WorkingHere, made: str) -> dict[str, Any]:
        return presenters.evaluation(await here.services.evaluations.get(project, made))

    finish = _finished if watch else None
    return done_here(application, config, "eval", project, evaluation_id, begin, finish, shown)


async def _created(here: WorkingHere, project: str, wanted: Mapping[str, Any]) -> Evaluation:
    services = here.services
    name, version = named(wanted["dataset"])
    given = Wanted(
        program=wanted["program"],
        dataset=name,
        metric=wanted["metric"],
        version=wanted["version"],
        dataset_version=version,
        budget_usd=_positive(wanted["budget_usd"]),
        concurrency=wanted["concurrency"],
        limit=wanted["limit"],
        cache=None if wanted["use_cache"] else OFF,
    )
    operator = replace(LOCAL_OPERATOR, project=project)
    author = Author(project, CLI)
    async with services.audit.operation(author, "evaluation.create", given.program) as told:
        await here.declare(project)
        made, _ = await services.evaluations.create(operator, given, services.code)
        told["evaluation"] = made.id
    return made


def _positive(budget: float | None) -> float | None:
    if budget is not None and not 0 < budget < float("inf"):
        raise Invalid("--budget is a number of dollars above 0.", code="bad_argument")
    return budget


async def _finished(here: WorkingHere, made: Evaluation) -> None:
    with watching(made.examples) as tell:

        async def look() -> str:
            found = await here.services.evaluations.get(made.project, made.id)
            tell(presenters.evaluation(found))
            return found.status

        await finished(here, made.project, made.id, look)
