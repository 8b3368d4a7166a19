"""Identifiers: UUIDv7 text, so that ids sort by creation time in every database."""

import uuid_utils


def new_id() -> str:
    """A new UUIDv7 in its canonical 36-character form (RFC 9562)."""
    return str(uuid_utils.uuid7())
