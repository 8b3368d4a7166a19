"""Users' Python code as files: what a reference depends on, without importing any of it."""

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path

from dspex.kit.errors import Invalid

MOST_FILES, MOST_BYTES = 5_000, 50_000_000
# As Python looks for them: an extension goes before the source beside it.
_SUFFIXES = (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES, *BYTECODE_SUFFIXES)


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

    Of compiled files the content is their sha256. The source beside a compiled file counts too: it says what that
    imports. Imports that are made in other ways, and files that are no Python, do not count. Raises Invalid (code
    bad_reference) for a module that is not below the roots, and for code without end.
    """
    found: dict[Path, tuple[str, bytes]] = {}
    known: set[str] = set()
    waiting = [one.partition(":")[0] for one in references]
    for name in waiting:
        if not _files_of(name, roots):
            where = " or ".join(str(root) for root in roots)
            raise Invalid(f"There is no module {name!r} below {where}.", code="bad_reference")
    size = 0
    while waiting:
        name = waiting.pop()
        for part in _with_parents(name):
            if part in known:
                continue
            known.add(part)
            for place in _files_of(part, roots):
                content = content_of(place)
                found[place] = (part, content)
                size += len(content)
                if len(found) > MOST_FILES or size > MOST_BYTES:
                    raise Invalid(
                        f"The code behind {', '.join(references)} has more than {MOST_FILES} files or {MOST_BYTES} "
                        "bytes.",
                        code="bad_reference",
                    )
                if _is_source(place):
                    waiting.extend(_imported(part, place, content))
    return found


def content_of(file: Path) -> bytes:
    """The bytes of a source file, and the sha256 of a compiled one, which may be large."""
    if _is_source(file):
        return file.read_bytes()
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def _is_source(file: Path) -> bool:
    return file.suffix in SOURCE_SUFFIXES


def _with_parents(name: str) -> Iterator[str]:
    """A package's own code runs before that of a module in it."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])


def _files_of(name: str, roots: Sequence[Path]) -> list[Path]:
    """The one that Python imports, and its source where it is compiled; none for what is not below the roots."""
    for root in roots:
        place = root.joinpath(*name.split("."))
        for stem in (place / "__init__", place):
            named = [stem.with_name(stem.name + suffix) for suffix in _SUFFIXES]
            files = [file for file in named if file.is_file()]
            if files:
                return [file for file in files if file == files[0] or _is_source(file)]
        if place.is_dir() and any(place.glob("*.py")):
            # A namespace package has no code of its own.
            return []
    return []


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
