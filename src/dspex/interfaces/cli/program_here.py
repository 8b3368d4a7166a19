"""A program by its name, for commands that run it themselves."""

from dspex.access.records import DEFAULT_PROJECT
from dspex.executions.catalog import Runnable
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Missing
from dspex.programs.records import Program


async def program_here(
    application: Application, services: Services, project: str, name: str, version: int | None = None
) -> Runnable:
    """That of the database; one that is only in the file as yet is what the file says, compiled when it is new.

    Raises Missing, NotExecutable, Invalid, Unavailable.
    """
    try:
        return await services.predictions.runnable(project, name, version=version)
    except Missing:
        declared = None if version is not None else application.definition(services.settings, name)
        if declared is None:
            raise
        return await services.predictions.ready(project, name, *declared)


async def known_program(services: Services, project: str, name: str) -> Program:
    """That of the database. Raises Missing, which says so where the file declares it and no start took it over."""
    try:
        return await services.programs.get(project, name)
    except Missing:
        if name not in declared_names(services, project):
            raise
        raise Missing(
            f"The file declares {name!r}, but it was not served yet: it comes with the first `dspex serve`, and "
            f"`dspex run {name}` runs it as it is.",
            code="program_missing",
        ) from None


def declared_names(services: Services, project: str) -> list[str]:
    """What the next start makes programs of the project."""
    return [one.name for one in services.settings.programs] if project == DEFAULT_PROJECT else []
