"""Programs, versions, deployments and what versions were compiled to."""

import sqlalchemy as sa
from msgspec.structs import replace

from dspex.jobs.records import Job
from dspex.kit.errors import Conflict, Missing
from dspex.kit.records import asdict
from dspex.programs.records import EXECUTABLE, CompiledDocument, Deployment, Program, Version
from dspex.programs.rules import archived, job_lost
from dspex.storage.sessions import WriteSession
from dspex.storage.stores.jobs import held
from dspex.storage.stores.program_reader import StoredProgramReader
from dspex.storage.stores.program_rows import demo_rows, program_row, version_of, version_row
from dspex.storage.tables import compiled_documents, deployments, program_demos, program_versions, programs

_versions = program_versions.c


class StoredPrograms(StoredProgramReader):
    """`programs.ports.ProgramStore` over the tables."""

    async def add(self, program: Program, *versions: Version) -> None:
        insert = self._sessions.dialect.insert(programs).values(program_row(program))
        unique = [programs.c.project, programs.c.name]
        async with self._sessions.writing() as session:
            done = await session.execute(insert.on_conflict_do_nothing(index_elements=unique))
            if done.rowcount != 1:
                raise Conflict(
                    f"There is a program {program.name!r} already; add a version to it, or choose another name.",
                    code="program_exists",
                )
            for version in versions:
                await session.execute(sa.insert(program_versions).values(version_row(version)))

    async def update(self, program: Program) -> None:
        row = program_row(program)
        changed = {
            name: row[name] for name in ("description", "settings", "source", "updated_at", "archived_at")
        }
        async with self._sessions.writing() as session:
            done = await session.execute(sa.update(programs).where(_is(program)).values(changed))
        if done.rowcount != 1:
            raise _missing(program)

    async def add_version(self, version: Version) -> Version:
        """The version of the same digest when another node stored it first: the contents are the same."""
        ours = sa.and_(_versions.project == version.project, _versions.program_id == version.program_id)
        async with self._sessions.writing() as session:
            await self._sessions.dialect.serialize(session, "versions", version.project, version.program_id)
            same = await session.execute(
                sa.select(program_versions).where(ours, _versions.digest == version.digest)
            )
            row = same.mappings().one_or_none()
            if row is not None:
                return version_of(row)
            newest = await session.execute(sa.select(sa.func.max(_versions.number)).where(ours))
            numbered = replace(version, number=(newest.scalar_one() or 0) + 1)
            await session.execute(sa.insert(program_versions).values(version_row(numbered)))
            if demos := demo_rows(numbered):
                await session.execute(sa.insert(program_demos), demos)
        return numbered

    async def update_version(self, version: Version, *, expected_status: str) -> None:
        async with self._sessions.writing() as session:
            done = await session.execute(
                sa.update(program_versions)
                .where(
                    _versions.project == version.project,
                    _versions.id == version.id,
                    _versions.status == expected_status,
                )
                .values(
                    status=version.status,
                    executor=version.executor,
                    executor_reason=version.executor_reason,
                    error=version.error,
                    compiled_digest=version.compiled_digest,
                    signature=version.signature,
                )
            )
        if done.rowcount != 1:
            raise _changed(version, expected_status)

    async def deploy(
        self, program: Program, version: Version, deployment: Deployment, *, by: Job | None = None
    ) -> None:
        """Raises Missing for an unknown program, Conflict: version_changed, program_archived, job_state."""
        async with self._sessions.writing() as session:
            if by is not None and not await held(session, by):
                raise job_lost()
            await self._sessions.dialect.serialize(session, "versions", program.project, program.id)
            await _step_back(session, program, version)
            done = await session.execute(
                sa.update(program_versions)
                .where(
                    _versions.project == program.project,
                    _versions.id == version.id,
                    _versions.status.in_(EXECUTABLE),
                )
                .values(status="deployed")
            )
            if done.rowcount != 1:
                raise _changed(version, version.status)
            pointed = await session.execute(
                sa.update(programs)
                .where(_is(program), programs.c.archived_at.is_(None))
                .values(deployed_version_id=version.id, updated_at=deployment.at)
            )
            if pointed.rowcount != 1:
                is_there = sa.select(programs.c.id).where(_is(program))
                if (await session.execute(is_there)).first() is None:
                    raise _missing(program)
                # Archived since it was read.
                raise archived(program)
            await session.execute(sa.insert(deployments).values(asdict(deployment)))

    async def add_compiled(self, compiled: CompiledDocument) -> None:
        insert = self._sessions.dialect.insert(compiled_documents).values(asdict(compiled))
        async with self._sessions.writing() as session:
            await session.execute(insert.on_conflict_do_nothing())


async def _step_back(session: WriteSession, program: Program, successor: Version) -> None:
    await session.execute(
        sa.update(program_versions)
        .where(
            _versions.project == program.project,
            _versions.program_id == program.id,
            _versions.status == "deployed",
            _versions.id != successor.id,
        )
        .values(status=sa.case((_versions.parent_id.is_(None), "ready"), else_="optimized"))
    )


def _is(program: Program) -> sa.ColumnElement[bool]:
    return sa.and_(programs.c.project == program.project, programs.c.id == program.id)


def _missing(program: Program) -> Missing:
    return Missing(f"There is no program {program.name!r}.", code="program_missing")


def _changed(version: Version, expected: str) -> Conflict:
    return Conflict(
        f"Version {version.number} is no longer {expected}: somebody else changed it; read it again.",
        code="version_changed",
    )
