"""The only processes that import DSPy: `nursery N` forks the workers of a pool, without it one compilation is made.

The compiler reads one JSON request on standard input and writes one JSON answer on standard output.
Request: {"definitions": [...]}. Answer: {"outcomes": [{"document", "saved_state"} | {"refused", "kind"}]}.
"""

import json
import os
import resource
import sys

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
    if sys.argv[1:2] == ["nursery"]:
        from dspex.providers.dspy_worker import nursery

        nursery.main(int(sys.argv[2]))
    else:
        compile_once()


def compile_once() -> None:
    if len(sys.argv) > 1:
        limit(int(sys.argv[1]))
    # Whatever a library prints must not mix with the answer: it goes to standard error.
    answer = os.dup(1)
    os.dup2(2, 1)
    request = json.loads(sys.stdin.buffer.read())

    from dspex.kit.json import dumps
    from dspex.providers.dspy_worker.compile import compile_all

    outcomes = compile_all(request["definitions"])
    with os.fdopen(answer, "wb") as out:
        out.write(dumps({"outcomes": outcomes}))


if __name__ == "__main__":
    main()
