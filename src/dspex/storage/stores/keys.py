"""Keys."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from dspex.access.records import Key
from dspex.configuration.spending import Budget, RateLimit
from dspex.kit.paging import Page, decode_cursor, encode_cursor
from dspex.kit.records import asdict
from dspex.storage.encoding import time_text
from dspex.storage.sessions import Sessions
from dspex.storage.stores.keyset import past
from dspex.storage.stores.paging import foreign_cursor, page
from dspex.storage.tables import api_keys

_table = api_keys.c
_PLACE = (_table.created_at, _table.id)


class StoredKeys:
    """`access.ports.KeyStore` over the table."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def find(self, key_ids: Sequence[str]) -> Mapping[str, Key]:
        query = sa.select(api_keys).where(_table.id.in_(key_ids))
        async with self._sessions.reading() as session:
            rows = (await session.execute(query)).mappings().all()
        return {row["id"]: _key_of(row) for row in rows}

    async def list(self, project: str | None, *, limit: int, cursor: str | None) -> Page[Key]:
        query = sa.select(api_keys).order_by(*(one.desc() for one in _PLACE)).limit(limit + 1)
        if project is not None:
            query = query.where(_table.project == project)
        if cursor is not None:
            query = query.where(past(_PLACE, moment_and_id(cursor), descending=True))
        async with self._sessions.reading() as session:
            rows = (await session.execute(query)).mappings().all()
        found = [_key_of(row) for row in rows]
        return page(found, limit, lambda last: encode_cursor(time_text(last.created_at), last.id))

    async def add(self, key: Key) -> bool:
        insert = self._sessions.dialect.insert(api_keys).values(asdict(key)).on_conflict_do_nothing()
        async with self._sessions.writing() as session:
            return (await session.execute(insert)).rowcount == 1

    async def add_first(self, key: Key) -> bool:
        async with self._sessions.writing() as session:
            await self._sessions.dialect.serialize(session, "api_keys")
            if (await session.execute(sa.select(_table.id).limit(1))).first() is not None:
                return False
            await session.execute(sa.insert(api_keys).values(asdict(key)))
        return True

    async def update(self, key: Key, *, expected_digest: str) -> bool:
        query = (
            sa.update(api_keys)
            .where(_table.id == key.id, _table.digest == expected_digest, _table.revoked_at.is_(None))
            .values(
                digest=key.digest,
                rotated_at=key.rotated_at,
                previous_digest=key.previous_digest,
                previous_until=key.previous_until,
                revoked_at=key.revoked_at,
            )
        )
        async with self._sessions.writing() as session:
            return (await session.execute(query)).rowcount == 1

    async def note_used(self, used: Mapping[str, datetime]) -> None:
        async with self._sessions.writing() as session:
            # In one order on every node, so that two of them can't wait for each other.
            for key_id, at in sorted(used.items()):
                later = sa.or_(_table.last_used_at.is_(None), _table.last_used_at < at)
                await session.execute(
                    sa.update(api_keys).where(_table.id == key_id, later).values(last_used_at=at)
                )


def moment_and_id(cursor: str) -> tuple[datetime, str]:
    """A place in a list that is ordered by time, then id. Raises Invalid (code bad_cursor)."""
    match decode_cursor(cursor, 2):
        case [str() as text, str() as last_id]:
            try:
                moment = datetime.fromisoformat(text)
            except ValueError:
                raise foreign_cursor() from None
            if moment.tzinfo is not None:
                return moment, last_id
    raise foreign_cursor()


def _key_of(row: sa.RowMapping) -> Key:
    scopes, limit, budget = row["scopes"], row["rate_limit"], row["budget"]
    return Key(
        **{
            **row,
            "scopes": None if scopes is None else tuple(scopes),
            "rate_limit": None if limit is None else RateLimit(**limit),
            "budget": None if budget is None else Budget(**budget),
        }
    )
