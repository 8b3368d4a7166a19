"""From text to a condition. Nothing is ever evaluated or imported.

condition  = conjunction ("or" conjunction)*
conjunction = negation ("and" negation)*
negation   = "not" negation | comparison
comparison = operand (("==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not in") operand)?
operand    = "(" condition ")" | "len" "(" condition ")" | literal | name ("." name)*
literal    = number | text in quotes | "true" | "false" | "null" | "[" literal ("," literal)* "]"
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Final, NoReturn, cast

from dspex.kit.errors import Invalid, Problem
from dspex.programs.conditions.records import (
    Compared,
    Comparison,
    Constant,
    Junction,
    Length,
    Node,
    Not,
    Path,
    Value,
)

MAX_LENGTH = 1000
MAX_DEPTH = 20
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.]))
      | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<name>[^\W\d]\w*)
      | (?P<mark>==|!=|<=|>=|[<>()\[\],.])
    )""",
    re.VERBOSE,
)
_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})
_WORDS: Final[Mapping[str, Value]] = {"true": True, "false": False, "null": None}
_KEYWORDS = frozenset({"and", "or", "not", "in", *_WORDS})
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", "'": "'", '"': '"'}
_ADVICE: Final[Mapping[str, str]] = {
    "True": "write true",
    "False": "write false",
    "None": "write null",
    "=": "write == to compare",
    "&": "write and",
    "|": "write or",
    "!": "write not",
    '"': "this text is never closed; add a quote",
    "'": "this text is never closed; add a quote",
}


class ConditionError(Invalid):
    """`position` is the 0-based character in the text that was given."""

    default_code = "bad_condition"

    def __init__(self, advice: str, text: str, position: int) -> None:
        self.position = position
        message = f"{advice} (at character {position})"
        start = max(0, position - 30)
        line = "".join(one if one.isprintable() else " " for one in text[start : position + 30])
        super().__init__(
            f"{message[:1].upper()}{message[1:]}\n  {line.rstrip()}\n  {' ' * (position - start)}^",
            problems=[Problem("", "bad_condition", message)],
        )


def parse_condition(text: str) -> Node:
    """Raises ConditionError, which points at the character, also for text beyond MAX_LENGTH or MAX_DEPTH."""
    if len(text) > MAX_LENGTH:
        raise ConditionError(
            f"a condition may have {MAX_LENGTH} characters, this one has {len(text)}", text, MAX_LENGTH
        )
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._depth = 0
        self._next = 0
        self._advance()

    def whole(self) -> Node:
        node = self._any_of()
        if self._kind != "end":
            self._odd("a condition ends here; join two with and, or")
        return node

    def _advance(self) -> None:
        found = _TOKEN.match(self._text, self._next)
        if found is not None:
            self._kind = cast(str, found.lastgroup)
            self._token = found[self._kind]
            self._at, self._next = found.start(self._kind), found.end()
            return
        rest = self._text[self._next :]
        self._at = self._next + len(rest) - len(rest.lstrip())
        self._kind, self._token = "end", ""
        if rest.strip():
            mark = rest.lstrip()[0]
            digits = "a number is written 4, -4, 0.5 or 1e3"
            self._odd(
                _ADVICE.get(mark, digits if mark in "-.0123456789" else f"{mark!r} has no meaning here")
            )

    def _odd(self, advice: str, at: int | None = None) -> NoReturn:
        raise ConditionError(advice, self._text, self._at if at is None else at)

    def _is(self, *tokens: str) -> bool:
        return self._kind in ("name", "mark") and self._token in tokens

    def _take(self, token: str, advice: str) -> None:
        if not self._is(token):
            self._odd(advice)
        self._advance()

    def _inside(self, read: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._odd(f"a condition may be {MAX_DEPTH} levels deep")
        node = read()
        self._depth -= 1
        return node

    def _any_of(self) -> Node:
        at, parts = self._at, [self._all_of()]
        while self._is("or"):
            self._advance()
            parts.append(self._all_of())
        return parts[0] if len(parts) == 1 else Junction("or", tuple(parts), at)

    def _all_of(self) -> Node:
        at, parts = self._at, [self._negation()]
        while self._is("and"):
            self._advance()
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else Junction("and", tuple(parts), at)

    def _negation(self) -> Node:
        if self._is("not"):
            at = self._at
            self._advance()
            return Not(self._inside(self._negation), at)
        return self._comparison()

    def _comparison(self) -> Node:
        left = self._operand()
        at, operator = self._at, self._operator()
        if operator is None:
            return left
        node = Compared(left, operator, self._operand(), at)
        at = self._at
        if self._operator() is not None:
            self._odd("two comparisons are joined by and, as in 1 < x and x < 5", at)
        return node

    def _operator(self) -> Comparison | None:
        if (self._kind == "mark" and self._token in _COMPARISONS) or self._is("in"):
            operator = cast(Comparison, self._token)
            self._advance()
            return operator
        if self._is("not"):
            self._advance()
            self._take("in", "not stands before a condition, as in `not (a == b)`, or in `not in`")
            return "not in"
        return None

    def _operand(self) -> Node:
        at = self._at
        if self._is("("):
            self._advance()
            node = self._inside(self._any_of)
            self._take(")", "a bracket is still open here; close it with )")
            return node
        if self._kind == "name" and self._token not in _KEYWORDS:
            return self._name(at)
        return Constant(self._literal(), at)

    def _name(self, at: int) -> Node:
        names = [self._token]
        self._advance()
        if self._is("("):
            if names != ["len"]:
                self._odd("the only function is len(...)", at)
            self._advance()
            of = self._inside(self._any_of)
            self._take(")", "a bracket is still open here; close it with )")
            return Length(of, at)
        while self._is("."):
            self._advance()
            if self._kind != "name":
                self._odd("the name of a field is missing here")
            names.append(self._token)
            self._advance()
        if len(names) == 1 and names[0] in _ADVICE:
            self._odd(_ADVICE[names[0]], at)
        return Path(tuple(names), at)

    def _literal(self) -> Value:
        value: Value
        if self._kind == "number":
            value = self._number()
        elif self._kind == "text":
            value = self._unquoted()
        elif self._kind == "name" and self._token in _WORDS:
            value = _WORDS[self._token]
        elif self._is("["):
            return self._list()
        elif self._kind == "end":
            self._odd("something is missing here; write a field, such as step.field, or a value")
        else:
            self._odd(f"{self._token!r} can't stand here; write a field, such as step.field, or a value")
        self._advance()
        return value

    def _number(self) -> int | float:
        number = float(self._token)
        if not math.isfinite(number):
            self._odd("this number is too large")
        return number if any(one in self._token for one in ".eE") else int(self._token)

    def _unquoted(self) -> str:
        def plain(found: re.Match[str]) -> str:
            if found[1] not in _ESCAPES:
                self._odd(f"write \\\\ for a backslash; there is no {found[0]}", self._at + 1 + found.start())
            return _ESCAPES[found[1]]

        return re.sub(r"\\(.)", plain, self._token[1:-1])

    def _list(self) -> Value:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._odd(f"a condition may be {MAX_DEPTH} levels deep")
        self._advance()
        values: list[Value] = []
        while not self._is("]"):
            values.append(self._literal())
            if not self._is("]"):
                self._take(",", "a list is values with commas between them, and ends with ]")
        self._advance()
        self._depth -= 1
        return tuple(values)
