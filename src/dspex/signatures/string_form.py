"""A signature as one line: `question: str, k: int = 3 -> answer: Literal['yes', 'no']`.

A superset of DSPy's string form. Python's own parser reads it, nothing is ever evaluated or imported.
"""

import ast
import keyword
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from dspex.kit.errors import Invalid, Problem
from dspex.signatures.names import name_problem
from dspex.signatures.records import UNSET, Field, Signature
from dspex.signatures.strict import check_default
from dspex.signatures.type_strings import type_of_node
from dspex.signatures.types import NONE, STR, FieldType

MAX_LENGTH = 10_000
# On each side. Compiling costs the square of it: a hundred take seconds.
MAX_FIELDS = 100
MAX_DEPTH = 40
_EXCERPT = 30
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class SignatureSyntaxError(Invalid):
    """`position` is the 0-based character in the text that was given."""

    default_code = "bad_signature"

    def __init__(self, advice: str, text: str, position: int) -> None:
        self.position = max(0, min(position, len(text)))
        start = max(0, self.position - _EXCERPT)
        line = "".join(c if c.isprintable() else " " for c in text[start : self.position + _EXCERPT])
        caret = " " * (self.position - start) + "^"
        advice = advice[:1].upper() + advice[1:]
        super().__init__(
            f"{advice} (at character {self.position})\n  {line.rstrip()}\n  {caret}",
            problems=[Problem("", "bad_signature", f"{advice} (at character {self.position})")],
        )


def parse_signature_string(text: str) -> Signature:
    """Inputs and outputs in order, without instructions. Raises SignatureSyntaxError."""
    arrow = _find_arrow(text)
    inputs = _Part(text, 0, arrow).fields("input")
    outputs = _Part(text, arrow + 2, len(text)).fields("output")
    for fields in (inputs, outputs):
        _check_count(fields, text)
    seen = {field.name for _, field in inputs}
    for position, field in outputs:
        if field.name in seen:
            raise SignatureSyntaxError(
                f"{field.name!r} is an input and an output; rename one of them", text, position
            )
    return Signature(tuple(field for _, field in inputs), tuple(field for _, field in outputs))


def parse_inputs_string(text: str) -> tuple[Field, ...]:
    """What stands before the arrow, alone. Raises SignatureSyntaxError."""
    for position, mark, _ in _Scan(text):
        if mark == "->":
            raise SignatureSyntaxError("write the inputs alone, without '->'", text, position)
    if not text.strip():
        raise SignatureSyntaxError("write at least one input, as in 'question'", text, 0)
    fields = _Part(text, 0, len(text)).fields("input")
    _check_count(fields, text)
    return tuple(field for _, field in fields)


def parse_type_string(text: str) -> FieldType:
    """One type of the grammar, such as `list[str] | None`. Raises SignatureSyntaxError."""
    for position, character, depth in _Scan(text):
        if character == "->" or (character in "=,:" and depth == 0):
            raise SignatureSyntaxError("write one type, without name or default", text, position)
    part = _Part(text, 0, len(text), before="(")
    if not text.strip():
        raise SignatureSyntaxError("a type is missing; write str, for example", text, 0)
    tree = part.parse(")")
    match tree.body:
        case [ast.Expr(value=node)]:
            return type_of_node(node, part.refuse)
    raise SignatureSyntaxError("write one type, such as str", text, 0)


def _check_count(fields: Sequence[tuple[int, Field]], text: str) -> None:
    if len(fields) > MAX_FIELDS:
        position, _ = fields[MAX_FIELDS]
        message = f"a signature may have {MAX_FIELDS} fields on each side; put some into one object"
        raise SignatureSyntaxError(message, text, position)


def _find_arrow(text: str) -> int:
    arrow = None
    for position, character, depth in _Scan(text):
        if character != "->":
            continue
        if arrow is not None:
            raise SignatureSyntaxError("only one '->' may stand between inputs and outputs", text, position)
        if depth:
            raise SignatureSyntaxError("a bracket is still open here; close it before '->'", text, position)
        arrow = position
    if arrow is None:
        raise SignatureSyntaxError(
            "'->' is missing; write inputs -> outputs, as in 'question -> answer'", text, len(text)
        )
    return arrow


class _Scan:
    """The characters that give a text its shape (brackets, arrows, `,` `:` `=`), outside of strings.

    Raises SignatureSyntaxError for brackets and quotes that do not match, and beyond the limits, so that
    Python's parser only sees text it reads safely.
    """

    _MARKS = re.compile(r"->|[()\[\]{},:=;@`$?!\\]|#[^\r\n]*|'''|\"\"\"|['\"]")

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise SignatureSyntaxError(
                f"the text has {len(text)} characters, more than {MAX_LENGTH}; use the structured form",
                text,
                MAX_LENGTH,
            )
        odd = re.search("[\x00\ud800-\udfff]", text)
        if odd:
            raise SignatureSyntaxError("this character can't be part of a signature", text, odd.start())
        self._text = text

    def __iter__(self) -> Iterator[tuple[int, str, int]]:
        """Position, mark, and how many brackets are open around it."""
        text, position = self._text, 0
        stack: list[tuple[str, int]] = []
        while found := self._MARKS.search(text, position):
            mark, start, position = found.group(), found.start(), found.end()
            if mark[0] in "'\"":
                position = self._end_of_string(mark, start)
            elif mark in _CLOSING:
                yield start, mark, len(stack)
                stack.append((_CLOSING[mark], start))
                if len(stack) > MAX_DEPTH:
                    raise SignatureSyntaxError(f"more than {MAX_DEPTH} brackets deep", text, start)
            elif mark in ")]}":
                if not stack or stack[-1][0] != mark:
                    raise SignatureSyntaxError(f"{mark!r} closes nothing; remove it", text, start)
                stack.pop()
            elif mark in ";@`$?!\\":
                raise SignatureSyntaxError(f"{mark!r} has no meaning here; remove it", text, start)
            elif mark[0] != "#":
                yield start, mark, len(stack)
        if stack:
            raise SignatureSyntaxError(
                f"this bracket is never closed; add {stack[-1][0]!r}", text, stack[-1][1]
            )

    def _end_of_string(self, quote: str, start: int) -> int:
        stop = re.compile(rf"\\.|{quote}" if len(quote) == 3 else rf"\\(?:\r\n|.)|{quote}|[\r\n]", re.DOTALL)
        position = start + len(quote)
        while found := stop.search(self._text, position):
            if found.group() == quote:
                return found.end()
            if found.group()[0] in "\r\n":
                break
            position = found.end()
        raise SignatureSyntaxError("this string is never closed; add a quote", self._text, start)


class _Part:
    """A stretch of the text, read by Python's parser, with places mapped back to the whole text."""

    def __init__(self, text: str, start: int, end: int, before: str = "def f(*,") -> None:
        self._text = text
        self._source = text[start:end]
        self._before = before + "\n"
        # Python's lines; the columns it reports are UTF-8 bytes.
        breaks = [found.end() for found in re.finditer(r"\r\n|\r|\n", self._source)]
        self._starts = [start + offset for offset in (0, *breaks)]
        self._start, self._end = start, end

    def parse(self, after: str) -> ast.Module:
        try:
            return ast.parse(self._before + self._source + "\n" + after)
        except SyntaxError as error:
            at = self._from_characters(error.lineno or 0, error.offset or 1)
            raise SignatureSyntaxError(self._advice(at), self._text, at) from None
        except (RecursionError, MemoryError, ValueError):
            raise SignatureSyntaxError(
                "this is nested too deeply, or holds too large a number; use the structured form",
                self._text,
                self._start,
            ) from None

    def refuse(self, node: ast.AST, advice: str) -> SignatureSyntaxError:
        return SignatureSyntaxError(advice, self._text, self.position(node))

    def position(self, node: ast.AST) -> int:
        line = getattr(node, "lineno", 2) - 2
        start = self._starts[min(max(line, 0), len(self._starts) - 1)]
        encoded = self._text[start : self._end].encode()
        return start + len(encoded[: getattr(node, "col_offset", 0)].decode(errors="ignore"))

    def fields(self, role: str) -> list[tuple[int, Field]]:
        if not self._source.strip():
            where = "before" if role == "input" else "after"
            example = "question -> answer"
            raise SignatureSyntaxError(
                f"an {role} is missing {where} '->'; write at least one, as in {example!r}",
                self._text,
                self._start,
            )
        match self.parse("): pass").body:
            case [ast.FunctionDef(args=arguments)]:
                pass
            case _:
                self._odd(self._start)
        if arguments.kwarg:
            raise self.refuse(arguments.kwarg, "write plain names; '**' has no meaning here")
        fields: list[tuple[int, Field]] = []
        names: set[str] = set()
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            field = self._field(argument, default, role)
            if field.name in names:
                raise self.refuse(argument, f"{field.name!r} is there twice; rename one of them")
            names.add(field.name)
            fields.append((self.position(argument), field))
        return fields

    def _field(self, argument: ast.arg, default: ast.expr | None, role: str) -> Field:
        problem = name_problem(argument.arg, role)
        if problem:
            raise self.refuse(argument, problem)
        field_type: FieldType = STR
        if argument.annotation is not None:
            field_type = type_of_node(argument.annotation, self.refuse)
        if field_type == NONE:
            # DSPy reads a field of type None as a str.
            raise self.refuse(
                argument, "None alone is no type for a field; write T | None, such as str | None"
            )
        value = UNSET if default is None else self._default(default, field_type)
        return Field(
            argument.arg,
            field_type,
            default=value,
            typed=argument.annotation is not None,
        )

    def _default(self, node: ast.expr, field_type: FieldType) -> Any:
        value = self._literal(node)
        try:
            return check_default(field_type, {}, value)
        except ValueError as error:
            raise self.refuse(node, f"the default does not fit its type: {error}") from None

    def _literal(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=None | bool() | int() | float() | str() as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)) if not (
                isinstance(number, bool)
            ):
                return -number
            case ast.List(elts=items):
                return [self._literal(item) for item in items]
            case ast.Dict(keys=keys, values=values):
                return {
                    self._key(node, key): self._literal(one) for key, one in zip(keys, values, strict=True)
                }
        raise self.refuse(
            node, "a default is a plain value: text in quotes, a number, True, False, None, a list or a dict"
        )

    def _key(self, node: ast.expr, key: ast.expr | None) -> str:
        match key:
            case ast.Constant(value=str() as text):
                return text
        raise self.refuse(key or node, "the keys of a dict are text in quotes")

    def _from_characters(self, line: int, column: int) -> int:
        if line < 2:
            return self._start
        if line - 2 >= len(self._starts):
            return self._end
        return min(self._starts[line - 2] + max(column - 1, 0), self._end)

    def _advice(self, at: int) -> str:
        rest = self._text[at : self._end].lstrip()
        if not rest:
            return "something is missing here; write fields as 'name', 'name: type' or 'name: type = value'"
        word = re.match(r"\w+", rest)
        if word and keyword.iskeyword(word.group()):
            return f"{word.group()!r} is a keyword of Python; write another name"
        return "this can't be read; write fields as 'name', 'name: type' or 'name: type = value', with commas"

    def _odd(self, position: int) -> NoReturn:
        raise SignatureSyntaxError(self._advice(position), self._text, position)
