"""How options are read."""

from collections.abc import Sequence
from datetime import UTC, datetime

from dspex.kit.errors import Invalid


def one_of(option: str, value: str | None, allowed: Sequence[str]) -> None:
    """Raises Invalid for another value."""
    if value is not None and value not in allowed:
        raise Invalid(f"{option} is one of {', '.join(allowed)}, not {value!r}.", code="bad_argument")


def instant(option: str, text: str | None) -> datetime | None:
    """An ISO time, UTC without an offset. Raises Invalid."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(
            f"{option} {text!r} is no ISO time, such as 2026-01-31T12:00.", code="bad_argument"
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
