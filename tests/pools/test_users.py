"""Workers that run as another user of the system: what they may still do, and what no more."""

import os
import pwd
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dspex.kit.errors import Unavailable
from tests.plugins.pools import PROJECT, ScriptedHost, custom, defined, open_pools, until_gone

USER = "nobody"
QA = defined("question -> answer", "predict")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of other users")
REACHING = """
import os
import signal
from pathlib import Path

import dspy


def tried(what):
    try:
        what()
        return "done"
    except OSError as error:
        return type(error).__name__


class Reaching(dspy.Module):
    def forward(self, files: list[str], processes: list[int]):
        import sqlite3  # whatever of Python it has not imported yet

        Path("written").write_text("here")
        return dspy.Prediction(
            who=[*os.getresuid(), *os.getresgid()],
            groups=os.getgroups(),
            files=[tried(Path(one).read_bytes) for one in files],
            signals=[tried(lambda: os.kill(one, 0)) for one in processes],
            environ=[tried(Path(f"/proc/{one}/environ").read_bytes) for one in processes],
            again=tried(lambda: os.setuid(0)),
            home=[os.environ["HOME"], os.getcwd(), os.listdir(os.environ["HOME"])],
            capabilities=[one for one in Path("/proc/self/status").read_text().splitlines() if "Cap" in one],
        )
"""


def readable(python: str) -> bool:
    """Whether that user can run it, and read Python's own files."""
    account = pwd.getpwnam(USER)
    try:
        done = subprocess.run(
            [
                python,
                "-c",
                "import sqlite3, sys; sys.exit(sys.version_info[:2] != tuple(map(int, sys.argv[1:])))",
            ]
            + [str(one) for one in sys.version_info[:2]],
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            check=False,
            capture_output=True,
            timeout=60,
        )
    except OSError:
        return False
    return done.returncode == 0


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has pools run by a Python that the other user can read, as an installation for it has to have."""
    of_the_system = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/local/bin:/usr/bin")
    found = next((one for one in (sys.executable, of_the_system) if one and readable(one)), None)
    if found is None:
        pytest.skip(f"no Python {sys.version_info[:2]} here that {USER} can read")
    source = Path(__file__).parents[2] / "src"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(source), *site.getsitepackages()]))
    monkeypatch.setattr("dspex.providers.pool.nursery.sys.executable", found)


@pytest.fixture
def project() -> Iterator[Path]:
    """A project that everybody can read; what tests are given otherwise is root's."""
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        place.chmod(0o755)
        shutil.copytree(PROJECT / "shop", place / "shop")
        (place / "reach.py").write_text(REACHING)
        yield place


@pytest.mark.usefixtures("python")
async def test_workers_are_processes_of_the_user_and_do_no_more_than_he_may(project: Path) -> None:
    secret, open_to_all = project / "dspex.db", project / "notes.txt"
    for one, mode in ((secret, 0o600), (open_to_all, 0o644)):
        one.touch()
        one.chmod(mode)
    async with open_pools(project, workers=1, user=USER) as pools:
        assert (await pools.run(QA, {"question": "?"})).outputs == {"answer": "yes"}
        (pid,) = pools.pids
        nursery = psutil.Process(pid).parent()
        assert nursery is not None
        found: dict[str, Any] = dict(
            (
                await pools.run(
                    custom("reach:Reaching", project),
                    {
                        "files": [str(secret), str(open_to_all), "/etc/shadow"],
                        "processes": [os.getpid(), nursery.pid],
                    },
                )
            ).outputs
        )
        account = pwd.getpwnam(USER)
        assert found["who"] == [account.pw_uid] * 3 + [account.pw_gid] * 3
        assert sorted(found["groups"]) == sorted(os.getgrouplist(USER, account.pw_gid))
        assert found["files"] == ["PermissionError", "done", "PermissionError"]
        assert found["signals"] == ["PermissionError", "PermissionError"]
        assert found["environ"] == ["PermissionError", "PermissionError"]
        assert found["again"] == "PermissionError"
        home, working, listed = found["home"]
        assert (home, "written" in listed) == (working, True)
        assert [one.split()[1].strip("0") for one in found["capabilities"][:3]] == ["", "", ""]
        # The directory that its own lies in is not his: nobody puts something else there.
        assert (os.stat(home).st_uid, os.stat(os.path.dirname(home)).st_uid) == (account.pw_uid, 0)
    assert not psutil.pid_exists(pid)


@pytest.mark.usefixtures("python")
async def test_what_goes_wrong_in_such_a_worker_ends_like_in_any_other(project: Path) -> None:
    async with open_pools(project, workers=1, user=USER) as pools:
        exiting = custom("shop.faults:Exiting", project)
        with pytest.raises(Unavailable) as died:
            await pools.run(exiting, {})
        assert died.value.code == "worker_died"
        printing = custom("shop.programs:Printing", project)
        host = ScriptedHost()
        await pools.run(printing, {"text": "hello", "lines": 1}, host)
        assert ("stdout", "hello 0") in host.lines


@pytest.mark.usefixtures("python")
async def test_code_that_the_user_can_not_read_is_told_by_its_directory(project: Path) -> None:
    os.chmod(project, 0o700)
    async with open_pools(project, workers=1, user=USER) as pools:
        with pytest.raises(Unavailable) as refused:
            await pools.inspect(QA)
        assert f"the user 'nobody' may not read {project}" in refused.value.message
        assert refused.value.code == "pool_unavailable"


async def test_a_user_that_is_not_there_is_told_by_its_name() -> None:
    async with open_pools(workers=1, user="nobody-at-all") as pools:
        with pytest.raises(Unavailable, match="/pools/general/user: there is no user 'nobody-at-all'"):
            await pools.inspect(QA)


@pytest.mark.usefixtures("python")
async def test_such_workers_end_when_what_they_were_forked_from_does(project: Path) -> None:
    async with open_pools(project, workers=1, user=USER) as pools:
        await pools.program(QA)
        (pid,) = pools.pids
        nursery = psutil.Process(pid).parent()
        assert nursery is not None
        nursery.kill()
        await until_gone(pid)
