"""Reading a signature document: the checks its parts share, and every problem on the way."""

from collections.abc import Mapping
from typing import Any

from dspex.kit.errors import Invalid, Problem
from dspex.signatures.annotations import Models
from dspex.signatures.constraints import constraint_problems, in_order
from dspex.signatures.names import name_problem
from dspex.signatures.problems import kind_of, pointer_to
from dspex.signatures.records import UNSET
from dspex.signatures.strict import check_default
from dspex.signatures.types import ANY, NONE, Constraint, FieldType, ObjectOf, union_of

MAX_DEPTH = 32
MAX_PARTS = 2_000
Path = tuple[str | int, ...]


class Reading:
    """What one document said so far: every problem with its pointer; `finish` raises them together."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._parts = 0
        self._models = Models()

    def problem(self, path: Path, code: str, message: str) -> None:
        self._problems.append(Problem(pointer_to("", path), code, message))

    def finish(self) -> None:
        if self._problems:
            first = self._problems[0]
            more = len(self._problems) - 1
            raise Invalid(
                f"The signature can't be used: at {first.pointer or 'its root'}, {first.message}"
                + (f" (and {more} more)." if more else "."),
                code="bad_signature",
                problems=self._problems,
            )

    def check(
        self, field_type: FieldType, given: Mapping[str, tuple[Any, Path]], path: Path
    ) -> tuple[tuple[str, Constraint], ...]:
        """The constraints in order, after checking each against the type."""
        constraints = {name: value for name, (value, _) in given.items()}
        wrong = dict(constraint_problems(field_type, constraints))
        for name, message in wrong.items():
            self.problem(given[name][1], "bad_constraint", message)
        kept = {name: value for name, value in constraints.items() if name not in wrong}
        if not kept:
            return ()
        try:
            check_default(union_of([field_type, NONE]), kept, None)
        except ValueError as error:
            self.problem(path, "bad_constraint", f"a constraint can't be used: {error}")
            return ()
        return in_order(kept)

    def default(
        self, field_type: FieldType, constraints: Mapping[str, Constraint], value: Any, path: Path
    ) -> Any:
        """The default in its one spelling, or UNSET when it is refused."""
        try:
            return check_default(field_type, constraints, value)
        except ValueError as error:
            self.problem(path, "bad_default", f"the default does not fit: {error}")
            return UNSET

    def name(self, name: Any, role: str, path: Path) -> str | None:
        if not isinstance(name, str):
            self.problem(path, "bad_name", f"a name is a string, not {kind_of(name)}")
            return None
        problem = name_problem(name, role)
        if problem:
            self.problem(path, "bad_name", problem)
        return name

    def text(self, document: Mapping[str, Any], key: str, path: Path) -> str | None:
        """An optional text member."""
        value = document.get(key)
        if value is not None and not isinstance(value, str):
            self.problem((*path, key), "wrong_type", f"{key} must be a string, not {kind_of(value)}")
            return None
        return value

    def shape(self, shape: ObjectOf, path: Path) -> FieldType:
        """The object, unless its title already stands for another shape in this document."""
        try:
            self._models.model_of(shape)
        except Invalid as error:
            self.problem(path, "duplicate_title", error.message)
            return ANY
        return shape

    def count(self, path: Path, depth: int) -> bool:
        """Whether there is room for one more part; documents are small, references can make them huge."""
        self._parts += 1
        if depth > MAX_DEPTH:
            self.problem(
                path, "too_deep", f"types may be {MAX_DEPTH} levels deep; a type must not hold itself"
            )
            return False
        if self._parts == MAX_PARTS + 1:
            self.problem(path, "too_large", f"a signature may have {MAX_PARTS} types in all")
        return self._parts <= MAX_PARTS
