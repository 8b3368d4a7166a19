"""Reads one JSON request on standard input, compiles, writes one JSON answer on standard output.

Request: {"definitions": [...]}. Answer: {"outcomes": [{"document", "saved_state"} | {"refused", "kind"}]}.
"""

import os
import sys

import orjson


def main() -> None:
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
