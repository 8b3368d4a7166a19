"""Questions about programs and their versions."""

import builtins
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from dspex.kit.paging import Page, decode_cursor, encode_cursor
from dspex.programs.records import CompiledDocument, Deployment, Program, Showing, Version
from dspex.storage.sessions import Sessions
from dspex.storage.stores.paging import foreign_cursor, last_name, page
from dspex.storage.stores.program_rows import compiled_of, deployed_of, deployment_of, program_of, version_of
from dspex.storage.tables import compiled_documents, deployments, program_demos, program_versions, programs

MOST_NUMBER = 2**31 - 1


class StoredProgramReader:
    """`programs.ports.ProgramReader` over the tables."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def get(self, project: str, name: str) -> Program | None:
        row = await self._one(
            sa.select(programs).where(programs.c.project == project, programs.c.name == name)
        )
        return None if row is None else program_of(row)

    async def list(
        self, project: str, *, include_archived: bool, limit: int, cursor: str | None
    ) -> Page[Program]:
        query = sa.select(programs).where(programs.c.project == project)
        if not include_archived:
            query = query.where(programs.c.archived_at.is_(None))
        if cursor is not None:
            query = query.where(programs.c.name > last_name(cursor))
        rows = await self._all(query.order_by(programs.c.name).limit(limit + 1))
        return page([program_of(row) for row in rows], limit, lambda last: encode_cursor(last.name))

    async def version(self, project: str, version_id: str) -> Version | None:
        return await self._version(project, program_versions.c.id == version_id)

    async def version_by_number(self, project: str, program_id: str, number: int) -> Version | None:
        if not 0 < number <= MOST_NUMBER:
            return None
        return await self._version(
            project, program_versions.c.program_id == program_id, program_versions.c.number == number
        )

    async def version_by_digest(self, project: str, program_id: str, digest: str) -> Version | None:
        return await self._version(
            project, program_versions.c.program_id == program_id, program_versions.c.digest == digest
        )

    async def versions(
        self, project: str, program_id: str, *, limit: int, cursor: str | None
    ) -> Page[Version]:
        table = program_versions.c
        query = sa.select(program_versions).where(table.project == project, table.program_id == program_id)
        if cursor is not None:
            query = query.where(table.number < _number(cursor))
        rows = await self._all(query.order_by(table.number.desc()).limit(limit + 1))
        return page([version_of(row) for row in rows], limit, lambda last: encode_cursor(last.number))

    async def version_statuses(self, project: str, program_ids: Sequence[str]) -> dict[str, set[str]]:
        table = program_versions.c
        query = sa.select(table.program_id, table.status).distinct()
        rows = await self._all(query.where(table.project == project, table.program_id.in_(program_ids)))
        found: defaultdict[str, set[str]] = defaultdict(set)
        for row in rows:
            found[row["program_id"]].add(row["status"])
        return dict(found)

    async def deployments(self, project: str, program_id: str) -> builtins.list[Deployment]:
        table = deployments.c
        query = sa.select(deployments).where(table.project == project, table.program_id == program_id)
        rows = await self._all(query.order_by(table.at.desc(), table.id.desc()))
        return [deployment_of(row) for row in rows]

    async def deployed(self) -> builtins.list[tuple[str, Version]]:
        answers = sa.and_(
            programs.c.project == program_versions.c.project,
            programs.c.deployed_version_id == program_versions.c.id,
            programs.c.archived_at.is_(None),
        )
        rows = await self._all(sa.select(program_versions, programs.c.name).join(programs, answers))
        return [deployed_of(row) for row in rows]

    async def showing(
        self,
        project: str,
        *,
        row_id: str | None = None,
        dataset: str | None = None,
        versions: Sequence[int] = (),
    ) -> Sequence[Showing]:
        demo, version = program_demos.c, program_versions.c
        query = (
            sa.select(programs.c.name, version.number, version.status, sa.func.count())
            .select_from(program_demos)
            .join(
                program_versions,
                sa.and_(version.project == demo.project, version.id == demo.version_id),
            )
            .join(programs, sa.and_(programs.c.project == demo.project, programs.c.id == demo.program_id))
            .where(demo.project == project)
            .group_by(programs.c.name, version.number, version.status)
            .order_by(programs.c.name, version.number)
        )
        if row_id is not None:
            query = query.where(demo.row_id == row_id)
        if dataset is not None:
            query = query.where(demo.dataset == dataset, demo.dataset_version.in_(versions))
        async with self._sessions.reading() as session:
            return [Showing(*row) for row in await session.execute(query)]

    async def compiled(self, project: str, digest: str) -> CompiledDocument | None:
        table = compiled_documents.c
        row = await self._one(
            sa.select(compiled_documents).where(table.project == project, table.digest == digest)
        )
        return None if row is None else compiled_of(row)

    async def have_compiled(self, project: str, digests: Sequence[str]) -> set[str]:
        table = compiled_documents.c
        query = sa.select(table.digest).where(table.project == project, table.digest.in_(digests))
        return {row["digest"] for row in await self._all(query)}

    async def _version(self, project: str, *where: sa.ColumnElement[bool]) -> Version | None:
        row = await self._one(
            sa.select(program_versions).where(program_versions.c.project == project, *where)
        )
        return None if row is None else version_of(row)

    async def _one(self, query: "sa.Select[Any]") -> sa.RowMapping | None:
        async with self._sessions.reading() as session:
            row: sa.RowMapping | None = (await session.execute(query)).mappings().one_or_none()
        return row

    async def _all(self, query: "sa.Select[Any]") -> Sequence[sa.RowMapping]:
        async with self._sessions.reading() as session:
            rows: Sequence[sa.RowMapping] = (await session.execute(query)).mappings().all()
        return rows


def _number(cursor: str) -> int:
    match decode_cursor(cursor, 1):
        case [int() as number] if 0 < number <= MOST_NUMBER:
            return number
    raise foreign_cursor()
