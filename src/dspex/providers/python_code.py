"""Users' Python code as files: what a reference depends on, without importing any of it."""

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dspex.kit.errors import Invalid

MOST_FILES, MOST_BYTES = 5_000, 50_000_000


def code_digest(references: Sequence[str], roots: Sequence[Path]) -> str:
    """sha256 over the `code_files`. Raises as that does."""
    return digest_of(code_files(references, roots))


def digest_of(files: Mapping[Path, tuple[str, bytes]]) -> str:
    """sha256 over what `code_files` found, wherever the roots are."""
    digest = hashlib.sha256()
    for name, content in sorted(files.values()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def code_files(references: Sequence[str], roots: Sequence[Path]) -> dict[Path, tuple[str, bytes]]:
    """The files below `roots` that "package.module:Name" leads to by import statements: their modules and contents.

    Imports that are made in other ways, and files that are no Python, do not count. Raises Invalid (code
    bad_reference) for a module that is not below the roots, and for code without end.
    """
    found: dict[Path, tuple[str, bytes]] = {}
    known: set[str] = set()
    waiting = [one.partition(":")[0] for one in references]
    for name in waiting:
        if _file_of(name, roots) is None:
            where = " or ".join(str(root) for root in roots)
            raise Invalid(f"There is no module {name!r} below {where}.", code="bad_reference")
    size = 0
    while waiting:
        name = waiting.pop()
        for part in _with_parents(name):
            place = _file_of(part, roots)
            if place is None or part in known:
                continue
            content = place.read_bytes()
            known.add(part)
            found[place] = (part, content)
            size += len(content)
            if len(found) > MOST_FILES or size > MOST_BYTES:
                raise Invalid(
                    f"The code behind {', '.join(references)} has more than {MOST_FILES} files or {MOST_BYTES} bytes.",
                    code="bad_reference",
                )
            waiting.extend(_imported(part, place, content))
    return found


def _with_parents(name: str) -> Iterator[str]:
    """A package's own code runs before that of a module in it."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])


def _file_of(name: str, roots: Sequence[Path]) -> Path | None:
    for root in roots:
        place = root.joinpath(*name.split("."))
        for file in (place / "__init__.py", place.with_name(place.name + ".py")):
            if file.is_file():
                return file
        if place.is_dir() and any(place.glob("*.py")):
            # A namespace package has no code of its own.
            return None
    return None


def _imported(name: str, file: Path, content: bytes) -> Iterator[str]:
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        # It can't be imported either; whoever does is told.
        return
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                kept = parts[: len(parts) - node.level + 1]
                base = ".".join([*kept, base]) if base else ".".join(kept)
            if base:
                yield base
                yield from (f"{base}.{one.name}" for one in node.names if one.name != "*")
