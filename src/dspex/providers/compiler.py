"""The compiler's side in the server: starts the worker, hands it definitions, reads its answer."""

import asyncio
import importlib.util
import json as standard_json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import structlog

from dspex.kit import json
from dspex.kit.errors import TimedOut, Unavailable
from dspex.kit.records import asdict
from dspex.programs.ports import Compiled, Refused
from dspex.programs.records import Definition

log = structlog.get_logger(__name__)

# What a worker may know of the environment: how to find Python's files and nothing about models or keys.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH")
# Two for what belongs to no program, and one so that programs are never behind them.
_WORKERS_AT_ONCE = 3


class SubprocessCompiler:
    """Compiles in a short-lived process: importing dspy costs seconds and 80 MB that serving never pays.

    `timeout_s` bounds one run of the worker, however many definitions it compiles.
    """

    def __init__(self, *, timeout_s: float = 120.0, python: str = sys.executable) -> None:
        self._timeout_s = timeout_s
        self._python = python
        self._slots = asyncio.Semaphore(_WORKERS_AT_ONCE)

    @staticmethod
    def available() -> bool:
        """Whether dspy is installed here; looks for it without importing it."""
        return importlib.util.find_spec("dspy") is not None

    async def compile(self, definitions: Sequence[Definition]) -> list[Compiled | Refused]:
        """One outcome for each definition, in order. Raises Unavailable without dspy or when the worker dies."""
        if not self.available():
            raise Unavailable(
                "This program is not compiled yet and DSPy is not installed here. Install it with "
                "`pip install 'dspex[dspy]'`, or initialize the program on a machine that has it.",
                code="no_compiler",
            )
        # Written and read exactly: definitions may hold numbers and text that orjson refuses.
        request = json.dumps({"definitions": [asdict(one) for one in definitions]})
        async with self._slots:
            answer = await self._run(request)
        return [
            Refused(one["refused"], one["kind"])
            if "refused" in one
            else Compiled(one["document"], one["saved_state"])
            for one in standard_json.loads(answer)["outcomes"]
        ]

    async def _run(self, request: bytes) -> bytes:
        with tempfile.TemporaryDirectory(prefix="dspex-compile-") as directory:
            worker = await asyncio.create_subprocess_exec(
                self._python,
                "-P",
                "-m",
                "dspex.providers.dspy_worker",
                str(math.ceil(self._timeout_s)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=directory,
                env=_environment(Path(directory)),
            )
            try:
                answer, complaints = await asyncio.wait_for(worker.communicate(request), self._timeout_s)
            except TimeoutError:
                raise TimedOut(
                    f"Compiling took more than {self._timeout_s:g} s and was stopped.", code="compile_timeout"
                ) from None
            finally:
                if worker.returncode is None:
                    worker.kill()
                    await worker.wait()
        if worker.returncode != 0 or not answer:
            log.error(
                "compiler_failed",
                returncode=worker.returncode,
                stderr=complaints.decode(errors="replace")[-4000:],
            )
            raise Unavailable(
                f"The compiler ended with status {worker.returncode} before it answered; its last words are in "
                "the log. Run `dspex doctor` to check the installation.",
                code="compiler_failed",
                retry_after=5,
            )
        return answer


def _environment(directory: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return kept | {
        "HOME": str(directory),
        "DSPY_CACHEDIR": str(directory / "cache"),
        # Model facts come from the snapshot in DSPy's package: the same on every machine, and no network.
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
