"""The results of a batch as a file, and how far it has come."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dspex.executions.batches.lines import TOLD, read_line
from dspex.kit import json
from dspex.kit.errors import Invalid, Problem


@dataclass(slots=True)
class Summary:
    """What came of the items so far."""

    items: int
    completed: int = 0
    failed: int = 0

    def to_json(self) -> dict[str, int]:
        return {"items": self.items, "completed": self.completed, "failed": self.failed}

    def count(self, line: Mapping[str, Any]) -> None:
        if line["status"] == "completed":
            self.completed += 1
        else:
            self.failed += 1


def read_inputs(path: Path) -> dict[int, dict[str, Any]]:
    """The inputs by the number of their line. Raises Invalid (code bad_batch) that names the lines which are none."""
    given: dict[int, dict[str, Any]] = {}
    problems = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            value = read_line(number, line)
            if isinstance(value, Problem):
                problems.append(value)
                if len(problems) >= TOLD:
                    break
            else:
                given[number] = value
    if problems:
        raise Invalid(
            f"{path} has lines that are no inputs; nothing was run.", code="bad_batch", problems=problems
        )
    if not given:
        raise Invalid(f"{path} has no inputs.", code="empty_batch")
    return given


def read_done(path: Path, given: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """The results that a file already has, by line of input; what was cut off in the middle of a line is taken away.

    Raises Invalid (code foreign_output) for results of other inputs, so that nothing is mixed or lost.
    """
    if not path.exists():
        return {}
    done: dict[int, dict[str, Any]] = {}
    good = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            found = read_line(0, line)
            if isinstance(found, Problem) or given.get(found.get("position", 0)) != found.get("inputs"):
                raise Invalid(
                    f"{path} has other results in it; name another output, or remove it.",
                    code="foreign_output",
                )
            done[found["position"]] = found
            good += len(line)
    os.truncate(path, good)
    return done


class Output:
    """Results in the order in which they come; `sort` brings them into that of the inputs."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + b"\n")
        self._file.flush()


@contextmanager
def appending(path: Path) -> Iterator[Output]:
    with path.open("ab") as file:
        yield Output(file)


def sort(path: Path) -> None:
    """All at once: whoever is killed meanwhile has one file or the other."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines.sort(key=lambda line: int(json.loads(line)["position"]))
    with replacing(path) as output:
        output.writelines(lines)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of another one when it is whole."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        yield file
    beside.replace(path)
