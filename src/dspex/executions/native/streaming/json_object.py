"""Fields of a reply that is a JSON object, as far as it has come."""

import json
import re
from collections.abc import Callable, Collection

from dspex.executions.native.streaming.ports import Found

# Some models put their JSON into a block of Markdown, which the parser's repair sees through.
_FENCE = re.compile(r"\s*```[a-zA-Z]*[ \t]*\n")
_LONGEST_FENCE = 100
_SPACE = re.compile(r"[ \t\n\r]*")
# Where plain text of a string ends: its quote, an escape, or a control character, which JSON has not.
_SPECIAL = re.compile(r'["\\\x00-\x1f]')
_STRUCTURE = re.compile(r'["\[\]{},]')


class JsonFields:
    """Follows a strict object. Of anything else it tells no more: what repairing makes of it is not foreseen here.

    A machine of few states. Each takes what it can of `_text` from `_at` on, and returns False where it needs more.
    """

    def __init__(self, texts: Collection[str], others: Collection[str], found: Found) -> None:
        self._texts = texts
        self._others = others
        self._found = found
        self._seen: set[str] = set()
        self._text = ""
        self._at = 0
        self._state: Callable[[], bool] = self._before
        self._name = ""
        self._key: list[str] = []
        self._raw: list[str] = []
        self._depth = 0
        self._lost = False

    def add(self, text: str) -> None:
        if self._lost:
            return
        self._text, self._at = self._text[self._at :] + text, 0
        while not self._lost and self._at < len(self._text) and self._state():
            pass

    def _lose(self) -> bool:
        self._lost, self._text = True, ""
        return False

    def _rest(self) -> str:
        rest, self._at = self._text[self._at :], len(self._text)
        return rest

    def _next(self, expected: str) -> str | None:
        """The next character after space, if it is one of these. None: there is none yet, or reading ends here."""
        self._skip_space()
        if self._at == len(self._text):
            return None
        character = self._text[self._at]
        if character not in expected:
            self._lose()
            return None
        self._at += 1
        return character

    def _skip_space(self) -> None:
        space = _SPACE.match(self._text, self._at)
        self._at = space.end() if space else self._at

    def _before(self) -> bool:
        if fence := _FENCE.match(self._text):
            self._at = fence.end()
        self._skip_space()
        beginning = self._text[self._at : self._at + 3]
        if beginning.startswith("{"):
            self._at += 1
            self._state = self._next_key
            return True
        may_be_fence = not fence and "```".startswith(beginning)
        if len(self._text) > _LONGEST_FENCE or (beginning and not may_be_fence):
            return self._lose()
        self._at = 0
        return False

    def _next_key(self) -> bool:
        if self._next('"') is None:
            return False
        self._key.clear()
        self._state = self._in_key
        return True

    def _in_key(self) -> bool:
        if not self._string(self._key.append):
            return False
        name = "".join(self._key)
        known = name not in self._seen and (name in self._texts or name in self._others)
        self._seen.add(name)
        self._name = name if known else ""
        self._state = self._colon
        return True

    def _colon(self) -> bool:
        if self._next(":") is None:
            return False
        self._state = self._value
        return True

    def _value(self) -> bool:
        self._skip_space()
        if self._at == len(self._text):
            return False
        if self._text[self._at] == '"' and self._name in self._texts:
            self._at += 1
            self._state = self._in_text
        else:
            self._depth = 0
            self._raw.clear()
            self._state = self._in_value
        return True

    def _in_text(self) -> bool:
        if not self._string(self._say):
            return False
        self._state = self._after_value
        return True

    def _say(self, text: str) -> None:
        self._found.text(self._name, text)

    def _after_value(self) -> bool:
        character = self._next(",}")
        if character == "}":
            return self._lose()
        self._state = self._next_key
        return character is not None

    def _in_value(self) -> bool:
        """Up to the comma or the brace that ends it; what is between is read when it is whole."""
        mark = _STRUCTURE.search(self._text, self._at)
        if mark is None:
            self._raw.append(self._rest())
            return False
        character, at = mark.group(), mark.start()
        if self._depth == 0 and character in ",}":
            self._raw.append(self._text[self._at : at])
            self._at, self._state = at, self._after_value
            return self._end_value()
        self._raw.append(self._text[self._at : at + 1])
        self._at = at + 1
        if character in "[{":
            self._depth += 1
        elif character in "]}":
            self._depth -= 1
        else:
            self._state = self._in_inner_string if character == '"' else self._in_value
        return True

    def _in_inner_string(self) -> bool:
        mark = _SPECIAL.search(self._text, self._at)
        if mark is None:
            self._raw.append(self._rest())
            return False
        end = mark.end() + (mark.group() == "\\")
        if end > len(self._text):
            return False
        self._raw.append(self._text[self._at : end])
        self._at = end
        if mark.group() == '"':
            self._state = self._in_value
        return True

    def _end_value(self) -> bool:
        if self._name in self._others:
            try:
                value = json.loads("".join(self._raw))
            except (ValueError, RecursionError):
                return self._lose()
            self._found.whole(self._name, value)
        return True

    def _string(self, take: Callable[[str], None]) -> bool:
        """Takes the text of a string, escapes read; True once its quote has come."""
        while mark := _SPECIAL.search(self._text, self._at):
            if mark.start() > self._at:
                take(self._text[self._at : mark.start()])
                self._at = mark.start()
            if mark.group() == '"':
                self._at += 1
                return True
            if mark.group() != "\\":
                return self._lose()
            escape = _escape(self._text[self._at : self._at + 12])
            if escape is None:
                return False
            try:
                take(json.loads(f'"{escape}"'))
            except ValueError:
                return self._lose()
            self._at += len(escape)
        if self._at < len(self._text):
            take(self._rest())
        return False


def _escape(text: str) -> str | None:
    """The escape that the text begins with; None while it is not all there.

    A character beyond the first plane has two, which only mean something together.
    """
    length = 6 if text[1:2] == "u" else 2
    if len(text) < length:
        return None
    if length == 6 and _half(text[2:4], "89ab"):
        second = text[6:10]
        if len(second) < 4 and "\\ud".startswith(second[:3].lower()):
            return None
        if second[:2] == "\\u" and _half(second[2:], "cdef"):
            return text if len(text) == 12 else None
    return text[:length]


def _half(digits: str, kinds: str) -> bool:
    return digits[:1] in ("d", "D") and digits[1:].lower() in tuple(kinds)
