"""One process's own view of what is wrong, for who shares with nobody."""

from collections import deque
from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from dspex.observability.monitor import together
from dspex.observability.records import Alert, Lasting, Part

MOST_OVER = 1000


class MemoryAlertBoard:
    """`observability.ports.AlertBoard` in memory. It forgets as it is asked: nobody has to prune it."""

    def __init__(self) -> None:
        self._parts: dict[tuple[datetime, str, str], Part] = {}
        self._active: dict[tuple[str, str, str], Lasting] = {}
        self._over: deque[Alert] = deque(maxlen=MOST_OVER)

    async def add(self, parts: Sequence[Part]) -> None:
        for part in parts:
            key = part.began, part.project, part.program
            known = self._parts.get(key)
            self._parts[key] = part if known is None else together(known, part)

    async def seen(self, *, since: datetime, until: datetime) -> Sequence[Part]:
        self._parts = {key: part for key, part in self._parts.items() if part.began > since}
        seen: dict[tuple[str, str], Part] = {}
        for _, part in sorted(self._parts.items()):
            if part.began <= until:
                known = seen.get((part.project, part.program))
                seen[part.project, part.program] = part if known is None else together(known, part)
        return list(seen.values())

    async def active(self) -> Sequence[Lasting]:
        return list(self._active.values())

    async def recent(self, project: str, *, limit: int) -> Sequence[Alert]:
        return [alert for alert in reversed(self._over) if alert.project == project][:limit]

    async def open(self, alert: Alert) -> bool:
        return self._active.setdefault(_key(alert), Lasting(alert, alert.raised_at)).alert is alert

    async def remind(self, alert: Alert, *, told_at: datetime, at: datetime) -> bool:
        known = self._active.get(_key(alert))
        if known is None or known.alert.id != alert.id or known.told_at > told_at:
            return False
        self._active[_key(alert)] = replace(known, told_at=at)
        return True

    async def close(self, alert: Alert) -> bool:
        known = self._active.get(_key(alert))
        if known is None or known.alert.id != alert.id:
            return False
        del self._active[_key(alert)]
        self._over.append(alert)
        return True

    async def prune(
        self, *, parts_before: datetime, parts_after: datetime, resolved_before: datetime
    ) -> None:
        self._parts = {
            key: part for key, part in self._parts.items() if parts_before <= part.began <= parts_after
        }
        while self._over and (self._over[0].resolved_at or resolved_before) < resolved_before:
            self._over.popleft()


def _key(alert: Alert) -> tuple[str, str, str]:
    return alert.rule, alert.project, alert.program
