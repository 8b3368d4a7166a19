"""A program by its name, for commands that run it themselves."""

from dspex.executions.catalog import Runnable
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Missing


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
