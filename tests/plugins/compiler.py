"""The real worker, forked from a process that has loaded DSPy already: a compilation costs milliseconds."""

import asyncio
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspex.kit.errors import Unavailable
from dspex.providers.compiler import SubprocessCompiler, _environment

# Ends with its parent: standard input is then at its end.
_SOURCE = """
import os, select, signal, socket, sys
from dspex.providers.dspy_worker import __main__ as worker
import dspex.providers.dspy_worker.compile
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
listener = socket.socket(fileno=int(sys.argv[1]))
while listener in select.select([listener, 0], [], [])[0]:
    connection, _ = listener.accept()
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(connection.fileno(), 0)
        os.dup2(connection.fileno(), 1)
        connection.close()
        listener.close()
        worker.main()
        sys.exit(0)
    connection.close()
"""


class ForkingCompiler(SubprocessCompiler):
    """Differs from the one in service only in how the worker's process comes to be."""

    def __init__(self, address: Path) -> None:
        super().__init__()
        self._address = address

    async def _run(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self._address))
        try:
            writer.write(request)
            writer.write_eof()
            answer = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
        if not answer:
            raise Unavailable("the worker died; its last words are on standard error", code="compiler_failed")
        return answer


@pytest.fixture(scope="session")
def compiler_address() -> Iterator[Path]:
    """Where ForkingCompilers find their worker."""
    # Not pytest's own directory: the path of a Unix socket is short.
    directory = Path(tempfile.mkdtemp(prefix="dspex-test-"))
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(directory / "s"))
            listener.listen()
            command = [sys.executable, "-P", "-c", _SOURCE, str(listener.fileno())]
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                env=_environment(directory),
                cwd=directory,
                pass_fds=[listener.fileno()],
            )
        yield directory / "s"
        process.communicate(timeout=20)
    finally:
        shutil.rmtree(directory)
