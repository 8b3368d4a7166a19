"""Who may control the simulator, and what its command says when it can't start."""

import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from dspex.providers.language_models.simulator.app import SimulatorApp
from dspex.providers.language_models.simulator.engine import Simulator


@pytest.mark.parametrize(("allowed", "status"), [(True, 200), (False, 404)])
async def test_control_addresses_exist_only_when_allowed(allowed: bool, status: int) -> None:
    app = SimulatorApp(Simulator(), allow_control=allowed)
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://simulator") as client:
        assert (await client.get("/_simulator/calls")).status_code == status
        assert (await client.get("/v1/models")).status_code == 200


def run_command(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "dspex.providers.language_models.simulator", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, said = run_command("--port", port)
    assert code == 1
    assert said.count("\n") == 1
    assert port in said


def test_a_bad_script_and_a_bad_latency_are_explained(tmp_path: Path) -> None:
    (tmp_path / "script.yaml").write_text("rules: [{}]")
    code, said = run_command("--script", str(tmp_path / "script.yaml"))
    assert (code, "/rules/0" in said) == (1, True)
    code, said = run_command("--latency", "soon")
    assert (code, "'soon' is no latency" in said) == (1, True)
    code, said = run_command("--latency", "5000s")
    assert (code, "'5000s' is not between 0 s and 3600 s" in said) == (1, True)
    code, said = run_command("--port", "99999")
    assert (code, "99999 is no port" in said) == (1, True)
