"""/v1/programs/{name}: which version answers, and whether it may."""

from fastapi import APIRouter

from dspex.access.rules import check_may, may
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import Label, Number, Strict
from dspex.interfaces.rest.needs import Caller, Told, needs
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.gates import deployed
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import DspexError, Invalid
from dspex.kit.records import asdict
from dspex.programs.records import Program, Version
from dspex.programs.rules import check_live


class Chosen(Strict):
    """A version by number; without one the newest."""

    version: Number | None = None


class Deploying(Chosen):
    """`evaluation` is one of that version, whose score and cost the program's gates look at; it may name the version.

    `force` passes by the gates, and is on record.
    """

    evaluation: Label | None = None
    force: bool = False


def lifecycle_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/programs", tags=["programs"])
    programs = services.programs

    @router.post(
        "/{name}/initialize",
        response_model=shown.Version,
        dependencies=[needs("programs:write", audit="program.initialize")],
    )
    async def initialize_program(
        caller: Caller, name: str, told: Told, body: Chosen | None = None
    ) -> Document:
        """Make a draft executable: compiled by DSPy and checked against it. A failure can be tried again."""
        program, version = await chosen(services, caller.project, name, body)
        check_live(program)
        told |= {
            "version": version.number,
            "was": version.status,
            "deployed": await programs.number_deployed(program),
        }
        return Document(presenters.program_version(await initialized(services, version)))

    @router.post(
        "/{name}/deploy",
        response_model=shown.DeployedProgram,
        dependencies=[needs("programs:write", audit="program.deploy")],
    )
    async def deploy_program(
        caller: Caller, name: str, told: Told, body: Deploying | None = None
    ) -> Document:
        """Let a version answer; without one that of the evaluation, or the newest that can run. Gates may refuse it."""
        wanted = body or Deploying()
        if wanted.evaluation is not None:
            check_may(caller, "evaluations:read")
        done = await deployed(
            services,
            await programs.get(caller.project, name),
            wanted.version,
            wanted.evaluation,
            force=wanted.force,
            sees_evaluations=may(caller, "evaluations:read"),
        )
        told |= {"version": done.version.number, "before": done.before, "force": wanted.force}
        measured = None if done.measured is None else asdict(done.measured)
        return Document({**await shown_program(services, done.program), "measured": measured})

    @router.post(
        "/{name}/rollback",
        response_model=shown.Program,
        dependencies=[needs("programs:write", audit="program.rollback")],
    )
    async def rollback_program(caller: Caller, name: str, told: Told) -> Document:
        """Let the version answer that did before the present one; twice goes back two steps."""
        program = await programs.get(caller.project, name)
        check_live(program)
        told["before"] = await programs.number_deployed(program)
        program, back = await programs.rollback(program)
        told["version"] = back.number
        return Document(await shown_program(services, program))

    @router.post(
        "/{name}/archive",
        response_model=shown.Program,
        dependencies=[needs("programs:write", audit="program.archive")],
    )
    async def archive_program(caller: Caller, name: str) -> Document:
        """Take a program out of service. Its versions and executions stay; its name stays taken."""
        return Document(
            await shown_program(services, await programs.archive(await programs.get(caller.project, name)))
        )

    return router


async def shown_program(services: Services, program: Program) -> shown.Program:
    programs = services.programs
    statuses = await programs.statuses(program.project, [program])
    return presenters.program(program, statuses[program.id], await programs.current(program))


async def chosen(services: Services, project: str, name: str, body: Chosen | None) -> tuple[Program, Version]:
    program = await services.programs.get(project, name)
    number = body.version if body else None
    if number is None:
        return program, await services.programs.newest(program)
    return program, await services.programs.version_numbered(program, number)


async def initialized(services: Services, version: Version) -> Version:
    """The version, executable. Raises Invalid (code not_native) with the reason when it was refused."""
    (after,) = await services.programs.initialize([version])
    if after.error is not None:
        raise Invalid(f"Version {after.number} can't run: {after.error}", code="not_native")
    return after


async def bring_up(
    services: Services, program: Program, version: Version, *, initialize: bool, deploy: bool
) -> None:
    """What a creation was asked to do besides. A failure is on record with the version, which exists now."""
    try:
        if (initialize or deploy) and await services.programs.unready([version]):
            version = await initialized(services, version)
        if deploy:
            await services.programs.deploy(program, version)
    except DspexError as error:
        if error.kind == "internal" or error.code == "gate_not_met":
            raise
