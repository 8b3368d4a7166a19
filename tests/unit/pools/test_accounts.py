"""The users of the system that workers run as: which there are, and what the modes of files let them read."""

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from dspex.configuration.pools import PoolSettings
from dspex.kit.errors import Invalid
from dspex.providers.pool.accounts import Account, accounts_of

SOMEBODY = Account("somebody", 4_000_001, 4_000_002, (4_000_003,))


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspex.providers.pool.accounts.os.geteuid", lambda: 0)


@pytest.mark.usefixtures("as_root")
def test_pools_with_a_user_have_its_numbers() -> None:
    name = next(one.pw_name for one in pwd.getpwall() if one.pw_uid)
    pools = {"general": PoolSettings(), "heavy": PoolSettings(user=name)}
    found, known = accounts_of(pools), pwd.getpwnam(name)
    assert found.keys() == {"heavy"}
    assert (found["heavy"].uid, found["heavy"].gid) == (known.pw_uid, known.pw_gid)
    assert known.pw_gid in found["heavy"].groups


@pytest.mark.usefixtures("as_root")
def test_every_user_that_can_not_be_had_is_told_by_its_pool() -> None:
    pools = {"a": PoolSettings(user="nobody-at-all"), "b": PoolSettings(user="root"), "c": PoolSettings()}
    with pytest.raises(Invalid) as refused:
        accounts_of(pools)
    assert refused.value.code == "bad_configuration"
    assert [(one.pointer, one.message.split(";")[0]) for one in refused.value.problems] == [
        ("/pools/a/user", "there is no user 'nobody-at-all' on this system"),
        ("/pools/b/user", "'root' may do anything"),
    ]


def test_only_root_can_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspex.providers.pool.accounts.os.geteuid", lambda: 1000)
    name = next(one.pw_name for one in pwd.getpwall() if one.pw_uid)
    with pytest.raises(Invalid, match="only root can start processes as"):
        accounts_of({"general": PoolSettings(user=name)})


@pytest.fixture
def place() -> Iterator[Path]:
    """A file in a directory of its own; the directories of tests are closed to others."""
    with tempfile.TemporaryDirectory() as made:
        file = Path(made) / "file"
        file.touch()
        yield file


@pytest.mark.parametrize(
    ("mode", "directory", "readable"),
    [(0o644, 0o755, True), (0o640, 0o755, False), (0o600, 0o755, False), (0o644, 0o700, False)],
)
def test_what_a_user_may_read_by_the_modes(place: Path, mode: int, directory: int, readable: bool) -> None:
    place.chmod(mode)
    place.parent.chmod(directory)
    assert SOMEBODY.may_read(place) is readable
    own = replace(SOMEBODY, uid=os.geteuid())
    assert own.may_read(place)
    in_the_group = replace(SOMEBODY, groups=(place.stat().st_gid,))
    assert in_the_group.may_read(place) is (directory == 0o755 and mode != 0o600)


def test_what_is_not_there_is_not_read(tmp_path: Path) -> None:
    assert not SOMEBODY.may_read(tmp_path / "nothing")
