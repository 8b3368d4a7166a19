"""An address of a database that can't be used: told without showing anything of it, and never a crash."""

from pathlib import Path

import pytest

from dspex.application.examining import examine
from dspex.kit.errors import Invalid
from dspex.storage.migrations import current

HUSH = "hush"
BAD = [
    f"postgresql://u:p@ss:{HUSH}@127.0.0.1/db",
    f"postgresql://u:{HUSH}@127.0.0.1:99999/db",
    f"postgresql://u:{HUSH}@127.0.0.1:port/db",
    f"postgresql://u:{HUSH}@[::1/db",
    f"postgresql://u:{HUSH}@h/db?pool_size={HUSH}",
    f"postgresql:///db?host=h&user=u&password={HUSH}&port={HUSH}",
    f"{HUSH}:{HUSH}@h/db",
    "sqlite:///",
]


@pytest.mark.parametrize("url", BAD)
def test_it_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(Invalid) as refused:
        current(url)
    assert refused.value.code == "bad_database_url"
    assert HUSH not in refused.value.message
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("url", BAD)
def test_the_doctor_names_it_and_goes_on(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", url)
    (database,) = [one for one in examine(None) if one.subject == "database"]
    assert database.state == "failed"
    assert HUSH not in database.detail


def test_the_doctor_survives_what_it_did_not_expect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise OSError("gone")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dspex.application.examining._disk", broken)
    found = {one.subject: one.state for one in examine(None)}
    assert (found["data directory"], found["database"]) == ("failed", "ok")
