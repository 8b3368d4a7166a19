"""Users' Python code by reference: "package.module:Name", found below the roots that the node names."""

import hashlib
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from dspex.kit.errors import Conflict, Invalid
from dspex.providers.python_code import code_files, content_of, digest_of

_roots: list[str] = []
# What was found to be on disk as a version says, and the files that this worker has, or will have, imported for it.
_checked: set[tuple[str, tuple[str, ...]]] = set()
_files: dict[str, bytes] = {}
# By module: what was imported of one is not replaced by another file either.
_modules: dict[str, set[str]] = {}

# These import no file that has changed since it was checked, however late the import is made.


class _Source(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType | None:
        if not _is_checked(fullname, self.path):
            return super().get_code(fullname)
        content = self.get_data(self.path)
        if _sha(content) != _files[self.path]:
            raise _changed(fullname)
        # Not from __pycache__: Python takes what lies there for this file's by its size and time alone.
        return self.source_to_code(content, self.path)


class _Bytecode(SourcelessFileLoader):
    def get_code(self, fullname: str) -> CodeType | None:
        _check_compiled(fullname, self.path)
        return super().get_code(fullname)


class _Extension(ExtensionFileLoader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        # The system opens it by its name once more: what is put in its place right now is not seen.
        _check_compiled(spec.name, self.path)
        return super().create_module(spec)


def _check_compiled(module: str, path: str) -> None:
    if _is_checked(module, path) and _sha(content_of(Path(path))) != _files[path]:
        raise _changed(module)


def _is_checked(module: str, path: str) -> bool:
    """Raises Conflict for a file that Python prefers to the one that was checked, and that came after that."""
    if module in _modules and path not in _files:
        raise _changed(module)
    return path in _files


def find_code(roots: Sequence[str]) -> None:
    """Puts the roots on the import path, behind everything installed: no file of a project shadows a library."""
    for root in roots:
        _roots.append(root)
        if root not in sys.path:
            sys.path.append(root)
    sys.path_hooks.insert(0, _finder)


def _finder(path: str) -> FileFinder:
    """As Python's own for directories below the roots. Raises ImportError for others, which are Python's."""
    if not os.path.isdir(path) or not any(Path(path).is_relative_to(root) for root in _roots):
        raise ImportError("not below the roots", path=path)
    return FileFinder(
        path,
        (_Extension, EXTENSION_SUFFIXES),
        (_Source, SOURCE_SUFFIXES),
        (_Bytecode, BYTECODE_SUFFIXES),
    )


def check_code(wanted: str | None, references: Sequence[str]) -> None:
    """Raises Conflict (code code_changed) when the files are not those that a version was made of.

    A worker imports each file once, and shares it between programs: it stays with what it has, and is replaced when
    the node sees that it has other files than a version that is on disk.
    """
    if wanted is None or (wanted, tuple(references)) in _checked:
        return
    found = code_files(references, [Path(root) for root in _roots])
    shas = {str(file): _sha(content) for file, (_, content) in found.items()}
    modules: dict[str, set[str]] = {}
    for file, (name, _) in found.items():
        modules.setdefault(name, set()).add(str(file))
    has_others = any(_files.get(file, sha) != sha for file, sha in shas.items()) or any(
        _modules.get(name, files) != files for name, files in modules.items()
    )
    if digest_of(found) != wanted or has_others:
        raise _changed(", ".join(references))
    _files.update(shas)
    _modules.update(modules)
    _checked.add((wanted, tuple(references)))


def _changed(code: str) -> Conflict:
    return Conflict(
        f"The code of this version ({code}) is not what is on disk. Run `dspex reload` to make a version of the "
        "present code, or check out the old code to run the old version.",
        code="code_changed",
    )


def _sha(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def resolve(reference: str) -> Any:
    """The object. Raises Invalid (code bad_reference) when it is not there, with the reason; imports as they fail."""
    name, _, attribute = reference.partition(":")
    try:
        found = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not (name + ".").startswith(missing.name + "."):
            raise
        raise Invalid(
            f"{reference!r}: there is no module {missing.name!r} below the project's directory.",
            code="bad_reference",
        ) from None
    file = getattr(found, "__file__", None)
    if file is not None and not any(Path(file).is_relative_to(root) for root in _roots):
        raise Invalid(
            f"{reference!r}: {name!r} is the name of an installed library ({file}); give your module another name.",
            code="bad_reference",
        )
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            where = getattr(sys.modules[name], "__file__", None)
            raise Invalid(
                f"{reference!r}: {Path(where).name if where else name} has no {attribute!r}.",
                code="bad_reference",
            ) from None
    return found
