"""`dspex batch run` without a server: the items are run by this very process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR, Principal
from dspex.executions.records import Execution
from dspex.executions.requests import PredictionRequest
from dspex.interfaces.cli.batch_output import Output, Summary, appending, read_done, read_inputs, write_all
from dspex.interfaces.cli.batch_progress import Tell, showing
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.program_here import program_here
from dspex.interfaces.shared import job_presenters
from dspex.kit import json
from dspex.kit.errors import Exhausted, Invalid
from dspex.kit.ids import new_id
from dspex.kit.records import asdict

Predict = Callable[[PredictionRequest], Awaitable[Execution]]


def run(
    application: Application,
    config: Path | None,
    program: str,
    inputs: Path,
    output: Path,
    version: int | None,
    concurrency: int | None,
    project: str,
    *,
    retry_failed: bool,
) -> Summary:
    """Items that the output has already are not run again, save with `retry_failed` those that failed.

    Raises Invalid, Missing, NotExecutable, Unavailable.
    """
    settings, _ = application.load_settings(config, {})
    given = read_inputs(inputs)
    done = read_done(output, given, program, version, retry_failed=retry_failed)
    summary = Summary(len(given))
    for line in done.values():
        summary.count(line)
    left = {position: one for position, one in given.items() if position not in done}
    summary.nothing_left = not left
    operator = replace(LOCAL_OPERATOR, project=project)

    async def work() -> None:
        async with application.open_services(settings) as services:
            runnable = await program_here(application, services, project, program, version)
            predict = partial(services.predictions.run, runnable)
            at_once = min(concurrency or settings.jobs.batch.concurrency, len(left))
            await _all(program, left, predict, operator, at_once, lines, summary, tell)

    with appending(output, done) as lines, showing(summary) as tell:
        if left:
            asyncio.run(work())
    write_all(output, done)
    return summary


async def _all(
    program: str,
    left: Mapping[int, Mapping[str, Any]],
    predict: Predict,
    operator: Principal,
    at_once: int,
    output: Output,
    summary: Summary,
    tell: Tell,
) -> None:
    run_id, items = new_id(), iter(left.items())

    async def worker() -> None:
        for position, inputs in items:
            size = len(json.dumps(inputs))
            request = PredictionRequest(operator, run_id, inputs, size, lane="evaluation")
            line = await _line(position, program, predict, request)
            output.write(line)
            summary.count(line)
            tell()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _line(position: int, program: str, predict: Predict, request: PredictionRequest) -> dict[str, Any]:
    line: dict[str, Any] = {"position": position, "inputs": request.inputs, "program": program}
    try:
        execution = await predict(request)
    except (Invalid, Exhausted) as error:
        told: dict[str, Any] = {"kind": error.kind, "code": error.code, "message": error.message}
        told["problems"] = [asdict(problem) for problem in error.problems]
        return {**line, "status": "failed", "execution_id": None, "error": told}
    return {
        **line,
        "version": execution.version,
        "status": "completed" if execution.error is None else "failed",
        "execution_id": execution.id,
        **job_presenters.outcome(execution),
    }
