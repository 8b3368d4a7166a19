"""The results of a batch as a file, and how far it has come."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import Struct, field

from dspex.executions.batches.lines import TOLD, read_line
from dspex.kit import json
from dspex.kit.errors import Invalid, Problem


class Summary(Struct):
    """What came of the items so far."""

    items: int
    completed: int = 0
    failed: int = 0
    # All of it was in the output before.
    nothing_left: bool = False
    # What the first failure of each code says.
    reasons: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, int]:
        return {"items": self.items, "completed": self.completed, "failed": self.failed}

    def count(self, line: Mapping[str, Any]) -> None:
        if line["status"] == "completed":
            self.completed += 1
        else:
            self.failed += 1
            if error := line.get("error"):
                self.reasons.setdefault(error["code"], _told(error))

    def reason(self) -> str | None:
        """Why all items failed, if it was for one reason."""
        return next(iter(self.reasons.values())) if len(self.reasons) == 1 and not self.completed else None


def _told(error: Mapping[str, Any]) -> str:
    problems = [f"{one['pointer']}: {one['message']}" for one in error.get("problems") or ()]
    return " ".join([f"{error['code']}: {error['message']}", *problems[:1]])


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


def read_done(
    path: Path,
    given: Mapping[int, Mapping[str, Any]],
    program: str,
    version: int | None,
    *,
    retry_failed: bool = False,
) -> dict[int, dict[str, Any]]:
    """The results that a file already has, by line of input. What else is in it is taken away: what was cut off in the
    middle of a line, and with `retry_failed` what failed.

    Raises Invalid (code foreign_output) for results of other inputs, or of another program or version, so that nothing
    is mixed or lost.
    """
    if not path.exists():
        return {}
    done: dict[int, dict[str, Any]] = {}
    complete = True
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                complete = False
                break
            found = read_line(0, line)
            if isinstance(found, Problem) or not _is_of(found, given, program, version):
                raise Invalid(
                    f"{path} has other results in it, of other inputs or of another program or version; name another "
                    "output, or remove it.",
                    code="foreign_output",
                )
            if retry_failed and found["status"] != "completed":
                complete = False
                continue
            done[found["position"]] = found
    if not complete:
        write_all(path, done)
    return done


def _is_of(
    line: Mapping[str, Any], given: Mapping[int, Mapping[str, Any]], program: str, version: int | None
) -> bool:
    # A line that was refused has no version, and one of an older release no program.
    return (
        given.get(line.get("position", 0)) == line.get("inputs")
        and line.get("program", program) == program
        and (version is None or line.get("version", version) == version)
    )


def write_all(path: Path, lines: Mapping[int, Mapping[str, Any]]) -> None:
    """In the order of the inputs."""
    with replacing(path) as file:
        file.writelines(json.dumps(lines[position]) + b"\n" for position in sorted(lines))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of another one when it is whole: whoever is killed meanwhile has one or the other."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        yield file
    beside.replace(path)


class Output:
    """Results in the order in which they come; `write_all` brings them into that of the inputs."""

    def __init__(self, file: BinaryIO, lines: dict[int, dict[str, Any]]) -> None:
        self._file = file
        self._lines = lines

    def write(self, line: dict[str, Any]) -> None:
        self._lines[line["position"]] = line
        self._file.write(json.dumps(line) + b"\n")
        self._file.flush()


@contextmanager
def appending(path: Path, lines: dict[int, dict[str, Any]]) -> Iterator[Output]:
    """What is written is added to the `lines` that the file has already."""
    with path.open("ab") as file:
        yield Output(file, lines)
