"""A node does not start with a user for its workers that it can't give them, and warns of what he could read."""

import subprocess
import sys
from pathlib import Path

import pytest
import structlog.testing

from dspex.application.pool_users import check_pool_users
from dspex.application.source import Source
from dspex.configuration.pools import PoolSettings
from dspex.configuration.settings import Settings
from dspex.providers.pool.accounts import Account


@pytest.mark.parametrize("command", ["serve", "work"])
def test_a_start_with_a_user_that_is_not_there_is_refused_by_its_place(tmp_path: Path, command: str) -> None:
    (tmp_path / "dspex.yaml").write_text("pools: {general: {user: nobody-at-all}}\n")
    arguments = ["--port", "0"] if command == "serve" else []
    done = subprocess.run(
        [sys.executable, "-m", "dspex", command, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "/pools/general/user: there is no user 'nobody-at-all' on this system" in done.stderr
    assert not (tmp_path / ".dspex").exists()


def test_files_with_secrets_that_the_user_may_read_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "dspex.application.pool_users.accounts_of",
        lambda pools: {name: Account("somebody", 4_000_001, 4_000_002, ()) for name in pools},
    )
    # By its own modes alone: the directories of tests are closed to others.
    monkeypatch.setattr(
        Account, "may_read", lambda _, file: file.exists() and bool(file.stat().st_mode & 0o004)
    )
    for name, mode in ((".env", 0o644), ("dspex.db", 0o600), ("dspex-jobs.db", 0o644)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    settings = Settings(pools={"heavy": PoolSettings(user="somebody")}, database_url="sqlite:///dspex.db")
    with structlog.testing.capture_logs() as told:
        check_pool_users(settings, Source(None, {}, Path()))
    assert [(one["event"], one["user"], Path(one["file"]).name) for one in told] == [
        ("secrets_readable", "somebody", ".env"),
        ("secrets_readable", "somebody", "dspex-jobs.db"),
    ]
