"""`dspex eval run`: asked for, worked on where nobody else does, watched."""

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from dspex.access.records import CLI, DEFAULT_PROJECT, LOCAL_OPERATOR, Author
from dspex.access.rules import check_project
from dspex.evaluations.records import Evaluation, Wanted
from dspex.evaluations.service import named
from dspex.executions.service import OFF
from dspex.interfaces.cli.evaluation_doors import There
from dspex.interfaces.cli.evaluation_output import Tell, watching
from dspex.interfaces.cli.ports import Application, WorkingHere
from dspex.interfaces.cli.remote import Remote
from dspex.interfaces.cli.waiting import STILL, Left, check_goes_on, interrupted
from dspex.interfaces.shared import evaluation_presenters as presenters
from dspex.kit import json
from dspex.kit.errors import Invalid

LOOK_S = 0.5


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
    node = _node(url, project)
    if node is None:
        return _here(application, config, project, None, wanted, watch=watch)
    made = node.create({name: value for name, value in wanted.items() if value is not None})
    return _wait_there(node, made) if watch else made


def resume(
    application: Application, config: Path | None, url: str | None, project: str, evaluation_id: str
) -> dict[str, Any]:
    node = _node(url, project)
    if node is None:
        return _here(application, config, project, evaluation_id, {}, watch=True)
    made = node.get(evaluation_id)
    check_goes_on("evaluation", evaluation_id, made["status"])
    if made["status"] == "paused":
        made = node.resume(evaluation_id)
    return _wait_there(node, made)


def _node(url: str | None, project: str) -> There | None:
    check_project(project)
    address = url or os.environ.get("DSPEX_URL")
    return (
        None if address is None else There(Remote(address, None if project == DEFAULT_PROJECT else project))
    )


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
    settings, _ = application.load_settings(config, {})
    known: list[str] = [] if evaluation_id is None else [evaluation_id]
    elsewhere: str | None = None

    async def work() -> dict[str, Any]:
        nonlocal elsewhere
        async with application.working_here(settings) as here:
            evaluations = here.services.evaluations
            if evaluation_id is None:
                evaluation = await _created(here, project, wanted)
                known.append(evaluation.id)
            else:
                evaluation = await evaluations.get(project, evaluation_id)
                check_goes_on("evaluation", evaluation.id, evaluation.status)
                if evaluation.status == "paused":
                    await here.services.jobs.resume(project, evaluation.id)
            if watch:
                try:
                    with watching(evaluation.examples) as tell:
                        await _finished(here, evaluation, tell)
                except asyncio.CancelledError:
                    elsewhere = await here.elsewhere(project, evaluation.id)
                    raise
                evaluation = await evaluations.get(project, evaluation.id)
            return presenters.evaluation(evaluation)

    try:
        return asyncio.run(work())
    except KeyboardInterrupt:
        if not known:
            raise Left("stopped before it was asked for.") from None
        raise interrupted("eval", known[0], elsewhere) from None


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


async def _finished(here: WorkingHere, evaluation: Evaluation, tell: Tell) -> None:
    """Interrupted, it lets what is under way end before it passes that on."""
    stop = asyncio.Event()

    async def look() -> None:
        while not stop.is_set():
            found = await here.services.evaluations.get(evaluation.project, evaluation.id)
            tell(presenters.evaluation(found))
            if found.status == "paused":
                # By somebody else: it is not done here before it is resumed.
                stop.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await stop.wait()

    working = asyncio.create_task(here.finish(evaluation.project, evaluation.id, stop))
    looking = asyncio.create_task(look())
    try:
        await asyncio.wait([working])
    finally:
        stop.set()
        await asyncio.wait([working, looking])
    working.result()
