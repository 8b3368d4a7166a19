"""The compiler's process: what it is given, what happens when it dies or hangs."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from dspex.kit.errors import TimedOut, Unavailable
from dspex.programs.definitions import define
from dspex.programs.ports import Compiled, Refused
from dspex.programs.records import Definition, LanguageModelChoice
from dspex.providers.compiler import SubprocessCompiler


def definition(model: str = "openai/gpt-4o-mini") -> Definition:
    return define("question -> answer", "predict", "chat", LanguageModelChoice("main", model, {}))


def pretending(directory: Path, script: str) -> str:
    """An executable that stands in for Python."""
    path = directory / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


async def test_definitions_are_compiled_in_order_each_with_its_own_outcome() -> None:
    good, bad, again = await SubprocessCompiler().compile(
        [definition(), definition("mistral/small"), definition("openai/other")]
    )
    assert isinstance(good, Compiled)
    assert isinstance(bad, Refused)
    assert "LiteLLM" in bad.reason
    assert isinstance(again, Compiled)
    assert good.document["made_by"]["dspy"].startswith("3.4")


async def test_the_worker_sees_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "planted-secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:planted-secret@h/d")
    seen = tmp_path / "seen"
    python = pretending(tmp_path, f"env > {seen}\necho '{{\"outcomes\": []}}'")
    await SubprocessCompiler(python=python).compile([])
    environment = seen.read_text()
    assert "planted-secret" not in environment
    assert "LITELLM_LOCAL_MODEL_COST_MAP=true" in environment
    assert f"HOME={os.environ.get('HOME', '-')}\n" not in environment


async def test_a_worker_that_dies_is_unavailable(tmp_path: Path) -> None:
    python = pretending(tmp_path, "echo 'no such library' >&2; exit 3")
    with pytest.raises(Unavailable) as failed:
        await SubprocessCompiler(python=python).compile([definition()])
    assert failed.value.code == "compiler_failed"


async def test_a_worker_that_hangs_is_stopped(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    python = pretending(tmp_path, f"echo $$ > {mark}; exec sleep 600")
    with pytest.raises(TimedOut):
        await SubprocessCompiler(python=python, timeout_s=1.0).compile([definition()])
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


async def test_without_dspy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SubprocessCompiler, "available", staticmethod(lambda: False))
    with pytest.raises(Unavailable, match=r"dspex\[dspy\]") as missing:
        await SubprocessCompiler().compile([definition()])
    assert missing.value.code == "no_compiler"


async def test_what_the_worker_prints_does_not_spoil_its_answer(tmp_path: Path) -> None:
    answer = orjson.dumps({"outcomes": [{"refused": "no", "kind": "unsupported"}]}).decode()
    python = pretending(tmp_path, f"echo noise >&2; cat > /dev/null; echo '{answer}'")
    (outcome,) = await SubprocessCompiler(python=python).compile([definition()])
    assert outcome == Refused("no")


def test_the_worker_limits_its_memory_and_time_by_itself() -> None:
    ask = "import resource; from dspex.providers.dspy_worker.__main__ import limit; limit(7); "
    ask += "print(resource.getrlimit(resource.RLIMIT_CPU)[0], resource.getrlimit(resource.RLIMIT_AS)[0])"
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split() == ["7", str(4 * 1024**3)]
