"""Jobs that somebody watches: why one does not go on."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from dspex.kit.errors import Conflict

if TYPE_CHECKING:
    from rich.console import Console

# Nobody who waits sees anything happen any more.
STILL = ("completed", "failed", "cancelled", "paused")
# Over, and not as whoever asked for it wanted.
UNDONE = ("failed", "cancelled")
Reason = Callable[[str, str | None], None]


class Left(Exception):
    """Whoever waited does so no more; the message says what becomes of the job."""


def interrupted(group: str, job_id: str, node: str | None) -> Left:
    """Of a command on this database: `node` goes on with the job, None when nobody does before it is resumed."""
    if node is None:
        return Left(
            f"stopped; `dspex {group} resume {job_id}` goes on with it, `dspex {group} cancel {job_id}` ends it."
        )
    return Left(
        f"no longer watched; it goes on on {node}. `dspex {group} cancel {job_id}` ends it, "
        f"`dspex {group} show {job_id}` says how far it is."
    )


def telling_why(console: "Console") -> Reason:
    """Takes the state and the last failure again and again, and says once what a queued job waits for.

    Also where there is no terminal: whoever waits for hours should know what for.
    """
    told: str | None = None

    def tell(status: str, failure: str | None) -> None:
        nonlocal told
        reason = failure if status == "queued" else None
        if reason is not None and reason != told:
            console.print(
                f"It waits, and tries again by itself: {reason}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
        told = reason

    return tell


def exit_unless_done(group: str, job: Mapping[str, Any]) -> None:
    """Ends the command with 1 when the job is not done and nobody does it: what follows in a script must not be."""
    if job["status"] == "paused":
        typer.echo(
            f"dspex: somebody paused it; `dspex {group} resume {job['id']}` goes on with it.", err=True
        )
    if job["status"] in (*UNDONE, "paused"):
        raise typer.Exit(1)


def check_goes_on(what: str, job_id: str, status: str) -> None:
    """Raises Conflict (code job_state) for one that only a retry would begin anew."""
    if status in UNDONE:
        raise Conflict(
            f"The {what} is {status}, and does not go on by itself; `dspex jobs retry {job_id}` begins it again.",
            code="job_state",
        )
