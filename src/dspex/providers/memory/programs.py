"""Programs kept in memory, for tests and throw-away servers."""

import builtins
from collections.abc import Sequence

from msgspec.structs import replace

from dspex.jobs.records import Job
from dspex.kit.errors import Conflict, Invalid, Missing, Problem
from dspex.kit.paging import Page, decode_cursor, encode_cursor
from dspex.programs.records import EXECUTABLE, CompiledDocument, Deployment, Program, Showing, Version
from dspex.programs.rules import check_live, job_lost
from dspex.providers.memory.jobs import MemoryJobs


class MemoryPrograms:
    """A `programs.ports.ProgramStore`. Nothing awaits inside, so each method is atomic."""

    def __init__(self, jobs: MemoryJobs | None = None) -> None:
        self._jobs = jobs or MemoryJobs()
        self._programs: dict[tuple[str, str], Program] = {}
        self._versions: dict[tuple[str, str], Version] = {}
        self._deployments: list[Deployment] = []
        self._compiled: dict[tuple[str, str], CompiledDocument] = {}

    async def get(self, project: str, name: str) -> Program | None:
        return next(
            (one for one in self._programs.values() if (one.project, one.name) == (project, name)), None
        )

    async def list(
        self, project: str, *, include_archived: bool, limit: int, cursor: str | None
    ) -> Page[Program]:
        after = ""
        if cursor is not None:
            match decode_cursor(cursor, 1):
                case [str() as after]:
                    pass
                case _:
                    raise _foreign_cursor()
        found = sorted(
            (
                one
                for one in self._programs.values()
                if one.project == project
                and one.name > after
                and (include_archived or one.archived_at is None)
            ),
            key=lambda one: one.name,
        )
        page = tuple(found[:limit])
        return Page(page, encode_cursor(page[-1].name) if len(found) > limit else None)

    async def version(self, project: str, version_id: str) -> Version | None:
        return self._versions.get((project, version_id))

    async def version_by_number(self, project: str, program_id: str, number: int) -> Version | None:
        return next((one for one in self._of(project, program_id) if one.number == number), None)

    async def version_by_digest(self, project: str, program_id: str, digest: str) -> Version | None:
        return next((one for one in self._of(project, program_id) if one.digest == digest), None)

    async def versions(
        self, project: str, program_id: str, *, limit: int, cursor: str | None
    ) -> Page[Version]:
        found = sorted(self._of(project, program_id), key=lambda one: -one.number)
        if cursor is not None:
            match decode_cursor(cursor, 1):
                case [int() as before]:
                    found = [one for one in found if one.number < before]
                case _:
                    raise _foreign_cursor()
        page = tuple(found[:limit])
        return Page(page, encode_cursor(page[-1].number) if len(found) > limit else None)

    async def version_statuses(self, project: str, program_ids: Sequence[str]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {
            program_id: {version.status for version in self._of(project, program_id)}
            for program_id in program_ids
        }
        return {program_id: statuses for program_id, statuses in found.items() if statuses}

    async def deployments(self, project: str, program_id: str) -> builtins.list[Deployment]:
        found = [one for one in self._deployments if (one.project, one.program_id) == (project, program_id)]
        return sorted(found, key=lambda one: (one.at, one.id), reverse=True)

    async def deployed(self) -> builtins.list[tuple[str, Version]]:
        return [
            (one.name, self._versions[one.project, one.deployed_version_id])
            for one in self._programs.values()
            if one.archived_at is None and one.deployed_version_id is not None
        ]

    async def showing(
        self,
        project: str,
        *,
        row_id: str | None = None,
        dataset: str | None = None,
        versions: Sequence[int] = (),
    ) -> Sequence[Showing]:
        found = []
        for version in self._versions.values():
            lineage = version.lineage or {}
            demos = [one for one in lineage.get("demos", ()) if one.get("row") is not None]
            if row_id is not None:
                demos = [one for one in demos if one["row"] == row_id]
            source = lineage.get("dataset", {})
            if dataset is not None:
                demos = [
                    one
                    for one in demos
                    if one.get("dataset", source.get("name")) == dataset
                    and one.get("dataset_version", source.get("version")) in versions
                ]
            if version.project == project and demos:
                name = self._programs[project, version.program_id].name
                found.append(Showing(name, version.number, version.status, len(demos)))
        return sorted(found, key=lambda one: (one.program, one.version))

    async def compiled(self, project: str, digest: str) -> CompiledDocument | None:
        return self._compiled.get((project, digest))

    async def have_compiled(self, project: str, digests: Sequence[str]) -> set[str]:
        return {digest for digest in digests if (project, digest) in self._compiled}

    async def add(self, program: Program, *versions: Version) -> None:
        if await self.get(program.project, program.name) is not None:
            raise Conflict(f"There is a program {program.name!r} already.", code="program_exists")
        self._programs[program.project, program.id] = program
        for version in versions:
            self._versions[version.project, version.id] = version

    async def update(self, program: Program) -> None:
        stored = self._stored(program)
        self._programs[program.project, program.id] = replace(
            stored,
            description=program.description,
            settings=program.settings,
            source=program.source,
            updated_at=program.updated_at,
            archived_at=program.archived_at,
        )

    async def add_version(self, version: Version) -> Version:
        ours = self._of(version.project, version.program_id)
        same = next((one for one in ours if one.digest == version.digest), None)
        if same is not None:
            return same
        numbered = replace(version, number=max((one.number for one in ours), default=0) + 1)
        self._versions[version.project, version.id] = numbered
        return numbered

    async def update_version(self, version: Version, *, expected_status: str) -> None:
        stored = self._versions.get((version.project, version.id))
        if stored is None or stored.status != expected_status:
            raise _changed(version)
        self._versions[version.project, version.id] = replace(
            stored,
            status=version.status,
            executor=version.executor,
            executor_reason=version.executor_reason,
            error=version.error,
            compiled_digest=version.compiled_digest,
            signature=version.signature,
        )

    async def deploy(
        self, program: Program, version: Version, deployment: Deployment, *, by: Job | None = None
    ) -> None:
        if by is not None and not self._jobs.held(by):
            raise job_lost()
        stored = self._versions.get((version.project, version.id))
        if stored is None or stored.status not in EXECUTABLE:
            raise _changed(version)
        pointing = self._stored(program)
        check_live(pointing)
        for one in self._of(program.project, program.id):
            if one.status == "deployed":
                back = replace(one, status="ready" if one.parent_id is None else "optimized")
                self._versions[one.project, one.id] = back
        self._versions[version.project, version.id] = replace(stored, status="deployed")
        self._programs[program.project, program.id] = replace(
            pointing, deployed_version_id=version.id, updated_at=deployment.at
        )
        self._deployments.append(deployment)

    async def add_compiled(self, compiled: CompiledDocument) -> None:
        self._compiled.setdefault((compiled.project, compiled.digest), compiled)

    def _of(self, project: str, program_id: str) -> builtins.list[Version]:
        return [
            one for one in self._versions.values() if (one.project, one.program_id) == (project, program_id)
        ]

    def _stored(self, program: Program) -> Program:
        try:
            return self._programs[program.project, program.id]
        except KeyError:
            raise Missing(f"There is no program {program.name!r}.", code="program_missing") from None


def _changed(version: Version) -> Conflict:
    return Conflict(
        f"Version {version.number} was changed by somebody else; read it again.", code="version_changed"
    )


def _foreign_cursor() -> Invalid:
    return Invalid(
        "The cursor belongs to another list; leave it out to start from the first page.",
        code="bad_cursor",
        problems=[Problem("/cursor", "bad_cursor", "not a cursor of this list")],
    )
