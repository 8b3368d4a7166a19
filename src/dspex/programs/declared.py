"""What became of what a configuration file asked for: read off what is stored, so that every node says the same."""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from dspex.kit.errors import Conflict
from dspex.kit.paging import MAX_LIMIT
from dspex.programs.gating import check_gates, measured_by_lineage
from dspex.programs.records import Deployment, Program, Version
from dspex.programs.rules import is_awaited
from dspex.programs.service import ProgramService

Became = Literal["deployed", "kept_back", "not_ready", "waiting", "other_deployed"]
# The file asks for a version that does not answer, and nobody decided so.
UNMET: frozenset[Became] = frozenset({"kept_back", "not_ready", "waiting"})


class Displaced(Struct, frozen=True):
    """The version that an optimization made, and whose place the file's took."""

    version: int
    optimization: str | None


class Declared(Struct, frozen=True):
    """A program of a file: the `version` that the file asks for, and the one that is `deployed`, None for none.

    `kept_back` by its gates, `not_ready` to run; `waiting` for the next start or reload; `other_deployed` by somebody
    since the file asked. `code` and `reason` say why the file's version does not answer. `displaced` is there while it
    answers since it took an optimized version's place.
    """

    program: str
    version: int
    deployed: int | None
    outcome: Became
    code: str | None = None
    reason: str | None = None
    displaced: Displaced | None = None

    @property
    def met(self) -> bool:
        return self.outcome not in UNMET


async def declared_programs(programs: ProgramService, project: str) -> list[Declared]:
    """By name; archived programs and those of the API are left out."""
    found: list[Declared] = []
    cursor: str | None = None
    while True:
        page = await programs.list(project, include_archived=False, limit=MAX_LIMIT, cursor=cursor)
        for program in page.data:
            wanted = await programs.version_declared(program)
            if wanted is not None:
                found.append(await _became(programs, program, wanted))
        cursor = page.next_cursor
        if cursor is None:
            return found


async def _became(programs: ProgramService, program: Program, wanted: Version) -> Declared:
    deployed = await programs.number_deployed(program)
    history = await programs.history(program)

    def became(outcome: Became, code: str | None = None, reason: str | None = None) -> Declared:
        return Declared(program.name, wanted.number, deployed, outcome, code, reason)

    if program.deployed_version_id == wanted.id:
        displaced = await _displaced(programs, program, history)
        return Declared(program.name, wanted.number, deployed, "deployed", displaced=displaced)
    if not is_awaited(program.settings, history):
        return became(
            "other_deployed",
            reason=f"Version {deployed} was deployed after the file began to ask for version {wanted.number}.",
        )
    if await programs.unready([wanted]):
        return became("not_ready", "not_executable", wanted.error or "It is not initialized.")
    if program.deployed_version_id is not None:
        try:
            check_gates(program, wanted, measured_by_lineage(wanted))
        except Conflict as refused:
            return became("kept_back", refused.code, refused.message)
    return became("waiting", reason="The next start or reload deploys it.")


async def _displaced(
    programs: ProgramService, program: Program, history: Sequence[Deployment]
) -> Displaced | None:
    """What answered when the file began to ask, if an optimization had made that."""
    # Two nodes that start together may both have deployed the file's.
    earlier = [one for one in history if one.version_id != program.deployed_version_id]
    if not earlier or earlier[0].id != program.settings.declared_after:
        return None
    return displaced_by(await programs.version(program.project, earlier[0].version_id))


def displaced_by(before: Version) -> Displaced | None:
    """What is lost where another version takes this one's place; None where no optimization made it."""
    if before.lineage is None:
        return None
    return Displaced(before.number, before.lineage.get("optimization"))
