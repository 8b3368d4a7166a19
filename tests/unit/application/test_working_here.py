"""Who goes on with a job that a command gave back."""

from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from dspex.application.maintenance import DEAD_AFTER
from dspex.application.origin import Origin
from dspex.application.working_here import working_here
from dspex.configuration.settings import Settings
from dspex.jobs.records import Job


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ((), 1, None),
        (("command-b",), 1, None),
        (("work-a", "host-1"), 1, "work-a"),
        (("work-a", "work-b"), 1, "work-a or work-b"),
        # One that serves starts workers when a job waits, where it may have any.
        (("host-1",), 1, "host-1"),
        (("host-1",), 0, None),
    ],
)
async def test_a_worker_goes_on_with_what_waits(
    tmp_path: Path, nodes: tuple[str, ...], workers: int, expected: str | None
) -> None:
    settings = Settings(data_dir=tmp_path, jobs={"workers": workers})
    async with working_here(settings, Origin(tmp_path)) as here:
        foundation = here._foundation
        now = foundation.clock.now()
        job = Job("j", "default", "evaluation", "evaluation", now, now, {})
        await foundation.database.jobs.add(job)
        for node in nodes:
            await foundation.database.nodes.beat(node, now)
        await foundation.database.nodes.beat("work-dead", now - DEAD_AFTER - timedelta(seconds=1))
        assert await here.elsewhere("default", "j") == expected


async def test_who_does_it_is_named_and_what_is_paused_goes_on_nowhere(tmp_path: Path) -> None:
    async with working_here(Settings(data_dir=tmp_path), Origin(tmp_path)) as here:
        foundation = here._foundation
        now = foundation.clock.now()
        job = Job("j", "default", "evaluation", "evaluation", now, now, {})
        await foundation.database.jobs.add(replace(job, state="running", node="command-b"))
        await foundation.database.jobs.add(replace(job, id="k", state="paused"))
        for node in ("command-b", "work-a"):
            await foundation.database.nodes.beat(node, now)
        assert await here.elsewhere("default", "j") == "command-b"
        assert await here.elsewhere("default", "k") is None
