"""Secrets never leave in text: those that are known are masked by value, DSPex's own keys by their form."""

import json
import re
from collections.abc import Iterable

from dspex.kit.addresses import MASK

# A shorter one is no secret worth the name, and would spoil the text around it.
SHORTEST = 6
# Colours of a terminal may end in a letter right before a key.
_OWN_KEYS = r"(?:(?<![A-Za-z0-9_])|(?<=\[\dm)|(?<=\[\d\dm))dx_[A-Za-z0-9]{4,}_[A-Za-z0-9_-]{16,}"
_pattern = re.compile(_OWN_KEYS)


def mask(text: str) -> str:
    """The text with MASK in place of every secret."""
    return _pattern.sub(MASK, text)


def keep_secret(values: Iterable[str]) -> None:
    """From now on these are masked, in this process, besides those that were named before."""
    global _pattern, _known  # noqa: PLW0603 - logs are one for each process, and so is what they must not show
    _known |= {form for value in values if len(value) >= SHORTEST for form in _forms(value)}
    # The longest first, as one secret may begin with another.
    longest_first = sorted(_known, key=len, reverse=True)
    _pattern = re.compile("|".join([*map(re.escape, longest_first), _OWN_KEYS]))


_known: frozenset[str] = frozenset()


def _forms(value: str) -> set[str]:
    """As it is, and as it looks in JSON, in Python's repr and in a repr within JSON."""
    shown = repr(value)[1:-1]
    return {value, shown, json.dumps(value)[1:-1], json.dumps(shown)[1:-1]}
