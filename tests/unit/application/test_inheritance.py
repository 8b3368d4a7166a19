"""A child gets its environment when nobody else can read it there, and nobody but a child gets it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dspex.application.inheritance import ADDRESS, Environment, Inheritance, plain

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is hidden")
SECRET = "sk-of-the-node"
WHOLE = {
    **{name: value for name, value in os.environ.items() if name.startswith(("PATH", "PYTHON"))},
    "OPENAI_API_KEY": SECRET,
    "DSPEX_ACCESS__MODE": "required",
    "ODD": "\udcff\n=",
    "LC_ALL": "C.UTF-8",
}
ASKING = """
import ctypes, json, os
from dspex.application.inheritance import inherit
inherit()
print(json.dumps({"environment": dict(os.environ), "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)}))
"""
# A child of the child, which is started with all that the child was started with.
BETWEEN = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {ASKING!r}]))"


class Left(dict[int, Environment]):
    """What each process gets."""


@pytest.fixture
def left() -> Left:
    return Left()


@pytest.fixture
def inheritance(left: Left) -> Iterator[Inheritance]:
    made = Inheritance(left.get)
    yield made
    made.close()


def started(code: str, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_child_starts_without_secrets_and_has_them_when_it_is_hidden(
    inheritance: Inheritance, left: Left
) -> None:
    with started(ASKING, inheritance.start_with(WHOLE)) as child:
        left[child.pid] = WHOLE
        answer, complaints = child.communicate(timeout=60)
    assert child.returncode == 0, complaints
    told = json.loads(answer)
    assert told["dumpable"] == 0
    assert {name: told["environment"][name] for name in WHOLE} == WHOLE
    assert ADDRESS not in told["environment"]


def test_what_a_child_is_started_with_is_what_python_needs(inheritance: Inheritance) -> None:
    given = inheritance.start_with(WHOLE)
    assert SECRET not in json.dumps(given)
    assert given.keys() - {ADDRESS} == WHOLE.keys() - {"OPENAI_API_KEY", "DSPEX_ACCESS__MODE", "ODD"}
    with started("input()", given) as child:
        seen = Path(f"/proc/{child.pid}/environ").read_bytes()
        child.kill()
    assert SECRET.encode() not in seen
    assert plain({"LD_LIBRARY_PATH": "a", "HF_TOKEN": "b", "PYTHONPATH": "c"}).keys() == {
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
    }


def test_a_process_of_somebody_else_gets_nothing_though_it_knows_the_address(
    inheritance: Inheritance, left: Left
) -> None:
    left.update(dict.fromkeys(range(1, 2**22), WHOLE))
    with started(BETWEEN, inheritance.start_with(WHOLE)) as child:
        answer, complaints = child.communicate(timeout=60)
    assert (child.returncode, answer) == (1, "")
    assert "has nothing for it" in complaints


def test_a_child_that_nothing_is_left_to_is_told_so(
    inheritance: Inheritance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspex.application.inheritance.KNOWN_S", 0.2)
    with started(ASKING, inheritance.start_with(WHOLE)) as child:
        answer, complaints = child.communicate(timeout=60)
    assert (child.returncode, answer) == (1, "")
    assert "has nothing for it" in complaints


def test_a_child_whose_parent_is_gone_ends_and_says_why(inheritance: Inheritance) -> None:
    given = inheritance.start_with(WHOLE)
    inheritance.close()
    with started(ASKING, given) as child:
        answer, complaints = child.communicate(timeout=60)
    assert (child.returncode, answer) == (1, "")
    assert "is gone" in complaints


def test_somebody_who_connects_and_says_nothing_holds_up_no_child(
    inheritance: Inheritance, left: Left
) -> None:
    given = inheritance.start_with(WHOLE)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(b"\0" + given[ADDRESS].encode())
        with started(ASKING, given) as child:
            left[child.pid] = WHOLE
            answer, complaints = child.communicate(timeout=60)
    assert json.loads(answer)["environment"]["OPENAI_API_KEY"] == SECRET, complaints
