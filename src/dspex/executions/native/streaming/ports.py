"""What readers of unfinished replies are given, and what they are."""

from typing import Any, Protocol


class Found(Protocol):
    """Is told what a reader finds."""

    def text(self, name: str, more: str) -> None:
        """More of a text field, whose value begins with all that was told of it."""
        ...

    def whole(self, name: str, raw: Any) -> None:
        """A field that is no text, as the parser will hand it to the field's type."""
        ...


class FieldReader(Protocol):
    def add(self, text: str) -> None:
        """The next piece of a reply, cut anywhere. Never raises: what it can't follow, it tells no more of."""
        ...
