"""Parts and alerts as rows, for both ways into the database."""

from collections.abc import Iterable
from typing import Any

from dspex.configuration.alerting import AlertThresholds
from dspex.kit.records import asdict
from dspex.observability.monitor import together
from dspex.observability.records import Alert, Lasting, Part
from dspex.storage.encoding import json_text, json_value


def thresholds_text(thresholds: AlertThresholds | None) -> str:
    """Equal for equal ones, as rows are grouped by it."""
    return "" if thresholds is None else json_text(asdict(thresholds))


def parts_of(rows: Iterable[dict[str, Any]]) -> list[Part]:
    """Of rows from the oldest to the newest: one part for each program, whatever thresholds it had meanwhile."""
    parts: dict[tuple[str, str], Part] = {}
    for row in rows:
        text = row["thresholds"]
        part = Part(**{**row, "thresholds": AlertThresholds(**json_value(text)) if text else None})
        known = parts.get((part.project, part.program))
        parts[part.project, part.program] = part if known is None else together(known, part)
    return list(parts.values())


def lasting_of(row: dict[str, Any]) -> Lasting:
    told_at = row.pop("told_at")
    return Lasting(Alert(**row), told_at)
