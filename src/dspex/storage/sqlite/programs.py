"""Programs, as a start and a prediction ask for them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from msgspec.structs import fields

from dspex.kit.paging import Page, encode_cursor
from dspex.programs.records import CompiledDocument, Deployment, Program, Version
from dspex.storage.encoding import json_value, unescape
from dspex.storage.later import Deferred, SqlStoresLater
from dspex.storage.sqlite.statements import SqliteStatements
from dspex.storage.stores.paging import last_name, page
from dspex.storage.stores.program_rows import compiled_of, deployed_of, deployment_of, program_of, version_of

T = TypeVar("T")
_JSON = frozenset({"settings", "definition", "document", "saved_state", "signature", "lineage"})
_TIMES = frozenset({"created_at", "updated_at", "archived_at", "at"})


def _select(record: type[Any], table: str) -> str:
    """The columns are called as the record's fields."""
    columns = ", ".join(field.name for field in fields(record))
    return f"SELECT {columns} FROM {table} WHERE project = ?"  # noqa: S608


_PROGRAM = _select(Program, "programs")
_VERSION = _select(Version, "program_versions")
_DEPLOYMENT = _select(Deployment, "deployments")
_COMPILED = _select(CompiledDocument, "compiled_documents")
_DEPLOYED = (
    f"SELECT {', '.join(f'v.{field.name}' for field in fields(Version))}, p.name FROM programs p "  # noqa: S608
    "JOIN program_versions v ON v.project = p.project AND v.id = p.deployed_version_id WHERE p.archived_at IS NULL"
)


class SqlitePrograms(Deferred):
    """`programs.ports.ProgramStore` on a SQLite file."""

    def __init__(self, statements: SqliteStatements, later: SqlStoresLater) -> None:
        super().__init__(later, "programs")
        self._statements = statements

    async def get(self, project: str, name: str) -> Program | None:
        return await self._one(program_of, f"{_PROGRAM} AND name = ?", project, name)

    async def list(
        self, project: str, *, include_archived: bool, limit: int, cursor: str | None
    ) -> Page[Program]:
        live = "" if include_archived else "AND archived_at IS NULL"
        after = "" if cursor is None else last_name(cursor)
        statement = f"{_PROGRAM} AND name > ? {live} ORDER BY name LIMIT ?"
        rows = await self._statements.read(statement, project, after, limit + 1)
        found = [program_of(_values(row)) for row in rows]
        return page(found, limit, lambda last: encode_cursor(last.name))

    async def version(self, project: str, version_id: str) -> Version | None:
        return await self._one(version_of, f"{_VERSION} AND id = ?", project, version_id)

    async def version_by_digest(self, project: str, program_id: str, digest: str) -> Version | None:
        statement = f"{_VERSION} AND program_id = ? AND digest = ?"
        return await self._one(version_of, statement, project, program_id, digest)

    async def deployments(self, project: str, program_id: str) -> Sequence[Deployment]:
        statement = f"{_DEPLOYMENT} AND program_id = ? ORDER BY at DESC, id DESC"
        return [
            deployment_of(_values(row)) for row in await self._statements.read(statement, project, program_id)
        ]

    async def deployed(self) -> Sequence[tuple[str, Version]]:
        return [deployed_of(_values(row)) for row in await self._statements.read(_DEPLOYED)]

    async def compiled(self, project: str, digest: str) -> CompiledDocument | None:
        return await self._one(compiled_of, f"{_COMPILED} AND digest = ?", project, digest)

    async def have_compiled(self, project: str, digests: Sequence[str]) -> set[str]:
        places = ", ".join("?" * len(digests))
        statement = f"SELECT digest FROM compiled_documents WHERE project = ? AND digest IN ({places})"  # noqa: S608
        return {row["digest"] for row in await self._statements.read(statement, project, *digests)}

    async def _one(
        self, record: Callable[[Mapping[str, Any]], T], statement: str, *parameters: str
    ) -> T | None:
        """Keys are unique: there is one row or none."""
        rows = await self._statements.read(statement, *parameters)
        return record(_values(rows[0])) if rows else None


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(name, stored) for name, stored in row.items()}


def _value(name: str, stored: Any) -> Any:
    if not isinstance(stored, str):
        return stored
    if name in _JSON:
        return json_value(stored)
    return datetime.fromisoformat(stored) if name in _TIMES else unescape(stored)
