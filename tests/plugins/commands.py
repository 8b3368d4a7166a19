"""`dspex` at the command line: a process each, forked from one that has imported what commands need.

A start costs a second of computing and most of it is imports. Servers and workers are started from nothing.
"""

import atexit
import json
import os
import shutil
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp

# Ends with its parent: standard input is then at its end. DSPy stays out, as where it is not installed.
_SOURCE = """
import importlib, os, pkgutil, select, signal, socket, sys
from dspex import __main__ as command
import alembic.command, dspex.interfaces.cli, sqlalchemy.ext.asyncio
from dspex.application import commands
for room in ("application", "configuration", "evaluations", "executions", "gateway", "interfaces.cli", "jobs",
             "programs", "signatures", "storage"):
    package = importlib.import_module("dspex." + room)
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if "migrations" not in found.name:
            importlib.import_module(found.name)
assert "dspy" not in sys.modules
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
listener = socket.socket(fileno=int(sys.argv[1]))

def run(connection):
    import json
    asked, streams, _, _ = socket.recv_fds(connection, 1_000_000, 2)
    asked = json.loads(asked)
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.path.insert(0, asked["directory"])
    sys.argv[:] = ["dspex", *asked["arguments"]]
    try:
        command.main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(b"%d" % status)
    os._exit(status)

while listener in select.select([listener, 0], [], [])[0]:
    connection, _ = listener.accept()
    if os.fork() == 0:
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        run(connection)
    connection.close()
"""


@cache
def _address() -> str:
    # Not pytest's own directory: the path of a Unix socket is short.
    directory = Path(mkdtemp(prefix="dspex-test-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "s"))
        listener.listen()
        command = [sys.executable, "-P", "-c", _SOURCE, str(listener.fileno())]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            cwd=directory,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    atexit.register(process.communicate, timeout=20)
    return str(directory / "s")


def clean_environment() -> dict[str, str]:
    """Without what would configure a node."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("DSPEX_", "DATABASE_URL"))
    }


def command(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `dspex` with these arguments in the directory."""
    asked = {
        "directory": str(directory.absolute()),
        "arguments": arguments,
        "environment": clean_environment() | environment,
    }
    with socket.socket(socket.AF_UNIX) as connection, TemporaryFile() as out, TemporaryFile() as err:
        connection.settimeout(300)
        connection.connect(_address())
        socket.send_fds(connection, [json.dumps(asked).encode()], [out.fileno(), err.fileno()])
        status = connection.recv(8)
        assert status, "the command was killed"
        out.seek(0)
        err.seek(0)
        said, told = out.read().decode(), err.read().decode()
        return subprocess.CompletedProcess(["dspex", *arguments], int(status), said, told)


def dspex(directory: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """A command that is to end with this status, and never with a traceback."""
    done = command(directory, *arguments)
    assert done.returncode == status, (arguments, done.stdout + done.stderr)
    assert "Traceback" not in done.stderr
    return done
