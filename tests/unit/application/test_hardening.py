"""A serving process can't be read by others of its user. Tried in a process of its own, as it stays so."""

import subprocess
import sys

import pytest

ASK = """
import ctypes
{before}
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def dumpable(before: str) -> str:
    command = [sys.executable, "-c", ASK.format(before=before)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.parametrize("function", ["serve(Path('none.yaml'), {})", "worker()"])
def test_serving_processes_are_not_dumpable(function: str) -> None:
    assert dumpable("") == "1"
    tried = (
        "from pathlib import Path\nfrom dspex.application.serving import serve, worker\n"
        f"try:\n    {function}\nexcept Exception: pass\n"
    )
    assert dumpable(tried) == "0"
