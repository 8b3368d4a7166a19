"""Users' Python code by reference: "package.module:Name", found below the roots that the node names."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dspex.kit.errors import Conflict, Invalid
from dspex.providers.python_code import code_digest

_roots: list[str] = []
_digests: dict[tuple[str, ...], str] = {}


def find_code(roots: Sequence[str]) -> None:
    """Puts the roots on the import path, behind everything installed: no file of a project shadows a library."""
    for root in roots:
        _roots.append(root)
        if root not in sys.path:
            sys.path.append(root)


def check_code(wanted: str | None, references: Sequence[str]) -> None:
    """Raises Conflict (code code_changed) when the files are not those that a version was made of.

    A worker imports each file once: it stays with what it has, and is replaced when the node reloads.
    """
    if wanted is None:
        return
    found = _digests.get(tuple(references))
    if found is None:
        found = _digests[tuple(references)] = code_digest(references, [Path(root) for root in _roots])
    if found != wanted:
        raise Conflict(
            f"The code of this version ({', '.join(references)}) is not what is on disk. Run `dspex reload` to make a "
            "version of the present code, or check out the old code to run the old version.",
            code="code_changed",
        )


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
