"""What somebody who watches a job is told."""

import io

import pytest
from rich.console import Console

from dspex.interfaces.cli.waiting import check_goes_on, interrupted, telling_why
from dspex.kit.errors import Conflict


def test_a_reason_to_wait_is_told_once_and_again_after_something_happened() -> None:
    written = io.StringIO()
    tell = telling_why(Console(file=written, width=40))
    tell("queued", None)
    for _ in range(3):
        tell("queued", "http://127.0.0.1:8100 can't be reached; is [the] server running?")
    assert written.getvalue().count("\n") == 1
    assert "is [the] server running?" in written.getvalue()
    tell("running", None)
    tell("queued", "http://127.0.0.1:8100 can't be reached; is [the] server running?")
    tell("failed", "all of it")
    assert written.getvalue().count("\n") == 2


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_what_is_over_is_retried_not_resumed(status: str) -> None:
    with pytest.raises(Conflict, match="dspex jobs retry abc"):
        check_goes_on("optimization", "abc", status)
    check_goes_on("optimization", "abc", "queued")
    check_goes_on("optimization", "abc", "completed")


def test_who_interrupts_is_told_whether_it_goes_on_and_spends() -> None:
    assert "stopped; `dspex eval resume abc` goes on" in str(interrupted("eval", "abc", None))
    told = str(interrupted("optimize", "abc", "work-a"))
    assert "it goes on on work-a. `dspex optimize cancel abc` ends it" in told
    assert "`dspex optimize show abc`" in told
    assert "resume" not in told
