"""Identifiers: UUIDv7 text, so that ids sort by creation time in every database."""

from datetime import datetime
from uuid import UUID

import uuid_utils


def new_id() -> str:
    """A new UUIDv7 in its canonical 36-character form (RFC 9562)."""
    return str(uuid_utils.uuid7())


def id_at(at: datetime) -> str:
    """Sorts after all ids that were made before that time, and before those made after it."""
    return str(uuid_utils.UUID(int=int(at.timestamp() * 1000) << 80))


def is_id(text: str) -> bool:
    """Whether it is written as ids are."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
