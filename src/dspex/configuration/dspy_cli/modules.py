"""The dspy.Module classes of a project, read off its files: nothing of it is imported into the server.

What a file says is enough, and is there at once: a node starts, reloads and is examined without a worker. A class is
a module when its bases lead to one of DSPy's through this project's files.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct, field

# DSPy's module classes by their public names.
DSPY_MODULES = frozenset(
    {
        "BestOfN",
        "ChainOfThought",
        "CodeAct",
        "Flex",
        "Module",
        "MultiChainComparison",
        "Predict",
        "ProgramOfThought",
        "ReAct",
        "ReActV2",
        "Refine",
        "RLM",
    }
)
MOST_BYTES = 5_000_000


class FoundModule(Struct, frozen=True):
    """`reference` is "package.module:Class"; `gateways` are the names in its attribute `gateway`."""

    name: str
    reference: str
    gateways: tuple[str, ...] = ()


class _File(Struct):
    """What a file's top level says: its classes, and where other names come from (module, and name in it)."""

    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    starred: list[str] = field(default_factory=list)


class ProjectFiles:
    """The Python files below `roots`, each read once."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._read: dict[str, _File] = {}
        self.unreadable: dict[str, str] = {}

    def modules_of(self, package: str, directory: Path) -> list[FoundModule]:
        """The public module classes of the files in a package's directory, by file and place in it."""
        found = []
        for path in sorted(directory.glob("*.py")):
            if path.name.startswith("_"):
                continue
            name = f"{package}.{path.stem}"
            for made in self._file(name, path).classes.values():
                if not made.name.startswith("_") and self._is_module(name, made.name, frozenset()):
                    found.append(FoundModule(made.name, f"{name}:{made.name}", tuple(_gateways(made))))
        return found

    def _is_module(self, name: str, attribute: str, seen: frozenset[tuple[str, str]]) -> bool:
        """Whether `attribute` of the Python module `name` is a module class."""
        if name == "dspy" or name.startswith("dspy."):
            return attribute in DSPY_MODULES
        if (name, attribute) in seen:
            return False
        seen |= {(name, attribute)}
        path = self._path_of(name)
        if path is None:
            return False
        file = self._file(name, path)
        made = file.classes.get(attribute)
        if made is not None:
            return any(self._leads_to_module(name, file, base, seen) for base in made.bases)
        if attribute in file.imports:
            origin, original = file.imports[attribute]
            return original is not None and self._is_module(origin, original, seen)
        return any(self._is_module(origin, attribute, seen) for origin in file.starred)

    def _leads_to_module(
        self, name: str, file: _File, base: ast.expr, seen: frozenset[tuple[str, str]]
    ) -> bool:
        parts = _dotted(base)
        if not parts:
            return False
        head, *rest = parts
        if not rest:
            return self._is_module(name, head, seen)
        if head not in file.imports:
            return False
        origin, original = file.imports[head]
        module = ".".join([origin, *([original] if original else []), *rest[:-1]])
        return self._is_module(module, rest[-1], seen)

    def _path_of(self, name: str) -> Path | None:
        for root in self._roots:
            place = root.joinpath(*name.split("."))
            for path in (place / "__init__.py", place.with_name(place.name + ".py")):
                if path.is_file():
                    return path
        return None

    def _file(self, name: str, path: Path) -> _File:
        if name not in self._read:
            self._read[name] = file = _File()
            try:
                if path.stat().st_size > MOST_BYTES:
                    raise ValueError(f"it is larger than {MOST_BYTES} bytes")
                tree = ast.parse(path.read_bytes())
            except (OSError, SyntaxError, ValueError, RecursionError) as error:
                self.unreadable[str(path)] = str(error)
                return file
            _note(file, name if path.name == "__init__.py" else name.rpartition(".")[0], tree.body)
        return self._read[name]


def _note(file: _File, package: str, statements: Sequence[ast.stmt]) -> None:
    """The top level, and what stands below it in `if`, `try` and `with`."""
    for one in statements:
        match one:
            case ast.ClassDef():
                file.classes[one.name] = one
            case ast.Import(names):
                for imported in names:
                    if imported.asname:
                        file.imports[imported.asname] = (imported.name, None)
                    else:
                        top = imported.name.partition(".")[0]
                        file.imports[top] = (top, None)
            case ast.ImportFrom():
                origin = _origin(one, package)
                for imported in one.names:
                    if imported.name == "*":
                        file.starred.append(origin)
                    else:
                        file.imports[imported.asname or imported.name] = (origin, imported.name)
            case ast.If() | ast.Try() | ast.With():
                for body in ("body", "orelse", "finalbody"):
                    _note(file, package, getattr(one, body, ()))
                for handler in getattr(one, "handlers", ()):
                    _note(file, package, handler.body)


def _origin(one: ast.ImportFrom, package: str) -> str:
    if not one.level:
        return one.module or ""
    parts = package.split(".")
    kept = parts[: len(parts) - one.level + 1]
    return ".".join([*kept, one.module] if one.module else kept)


def _dotted(expression: ast.expr) -> list[str]:
    """The names of `a.b.c`, of `a.b.c[d]` too; nothing for other expressions."""
    match expression:
        case ast.Name(name):
            return [name]
        case ast.Attribute(value, name):
            before = _dotted(value)
            return [*before, name] if before else []
        case ast.Subscript(value):
            return _dotted(value)
    return []


def _gateways(made: ast.ClassDef) -> Iterator[str]:
    for one in made.body:
        match one:
            case ast.Assign([ast.Name("gateway")], value) | ast.AnnAssign(ast.Name("gateway"), _, value):
                listed = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
                yield from (parts[-1] for item in listed if item is not None and (parts := _dotted(item)))
