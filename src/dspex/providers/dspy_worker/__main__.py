"""Reads one JSON request on standard input, compiles, writes one JSON answer on standard output.

Request: {"definitions": [...]}. Answer: {"outcomes": [{"document", "saved_state"} | {"refused", "kind"}]}.
"""

import os
import resource
import sys

import orjson

MEMORY_BYTES = 4 * 1024**3


def limit(cpu_s: int) -> None:
    """Bounds this process before it imports anything large: a signature may be made to cost without end."""
    for what, wanted in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, cpu_s)):
        _, hard = resource.getrlimit(what)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(what, (most, most))
        except (OSError, ValueError):
            # macOS has no limit of address space; the time limit of the server holds there as well.
            continue


def main() -> None:
    if len(sys.argv) > 1:
        limit(int(sys.argv[1]))
    # Whatever a library prints must not mix with the answer: it goes to standard error.
    answer = os.dup(1)
    os.dup2(2, 1)
    request = orjson.loads(sys.stdin.buffer.read())

    from dspex.providers.dspy_worker.compile import compile_all

    outcomes = compile_all(request["definitions"])
    with os.fdopen(answer, "wb") as out:
        out.write(orjson.dumps({"outcomes": outcomes}))


if __name__ == "__main__":
    main()
