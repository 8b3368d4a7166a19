"""The progress of an evaluation as server-sent events. A worker makes it: the database tells how far it is."""

import asyncio
from collections.abc import AsyncIterator

from dspex.evaluations.records import Evaluation
from dspex.interfaces.rest.events import END, KEEP_ALIVE, MEDIA_TYPE, RETRY, bad_id, write
from dspex.interfaces.shared import evaluation_presenters as presenters
from dspex.interfaces.shared.services import Services
from dspex.kit import json
from dspex.kit.errors import DspexError

__all__ = ["END", "HEADERS", "MEDIA_TYPE", "place_in", "told"]
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
LOOK_S = 0.5
# Looks without news before a word that the connection lives.
QUIET = 30
# A reader comes back by itself; so none holds a connection for ever.
LONGEST_S = 3600.0


def place_in(last_event_id: str | None, evaluation_id: str) -> str | None:
    """The place of a Last-Event-ID; None without one. Raises Invalid (code bad_last_event_id)."""
    if last_event_id is None:
        return None
    named, colon, place = last_event_id.rpartition(":")
    if not colon or named != evaluation_id or not (place == END or (place.isascii() and place.isdigit())):
        raise bad_id()
    return place


async def told(services: Services, evaluation: Evaluation, seen: str | None) -> AsyncIterator[bytes]:
    """Each time more of it is done, and at its end. `seen` is the place of the last event that was read."""
    yield RETRY
    quiet, begun = 0, services.clock.monotonic()
    while services.clock.monotonic() - begun < LONGEST_S:
        over = evaluation.completed_at is not None
        place = END if over else _place(evaluation)
        if place != seen:
            seen, quiet = place, 0
            body = json.dumps(presenters.evaluation(evaluation))
            yield f"id: {evaluation.id}:{place}\n".encode() + write("end" if over else "progress", body)
        if over:
            return
        quiet += 1
        if quiet % QUIET == 0:
            yield KEEP_ALIVE
        await asyncio.sleep(LOOK_S)
        try:
            evaluation = await services.evaluations.get(evaluation.project, evaluation.id)
        except DspexError:
            # Deleted, or the database is away: who comes back is told.
            return


def _place(evaluation: Evaluation) -> str:
    """How many results are written, and whether it runs: it only ever grows."""
    progress = evaluation.progress or {}
    done = int(progress.get("scored", 0)) + int(progress.get("failed", 0))
    return str(2 * done + (evaluation.started_at is not None))
