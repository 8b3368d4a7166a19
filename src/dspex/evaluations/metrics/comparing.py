"""One label against one output. Text is normalised as `dspy.evaluate` does it, so that scores are DSPy's own."""

import re
import string
import unicodedata
from collections import Counter
from typing import Any

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """NFD, lower case, without ASCII punctuation, the articles a, an, the, and runs of white space."""
    bare = unicodedata.normalize("NFD", text).lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(expected: Any, given: Any) -> float:
    """1 when both are the same. A text is also right when it is one of several expected texts."""
    if isinstance(given, str):
        if isinstance(expected, str):
            return float(normalised(expected) == normalised(given))
        if _texts(expected):
            said = normalised(given)
            return float(any(normalised(one) == said for one in expected))
    return float(same(expected, given))


def f1(expected: Any, given: Any) -> float:
    """Of the words that both have, the best of several expected texts; other values as `exact_match`."""
    if isinstance(given, str):
        if isinstance(expected, str):
            return _f1(expected, given)
        if _texts(expected):
            return max(_f1(one, given) for one in expected)
    return float(same(expected, given))


def contains(expected: Any, given: Any) -> float:
    """1 when the output has the label in it: a text as a part, a list as an item, or each of several items.

    Of several expected texts one is enough for a text. Other values as `exact_match`.
    """
    if isinstance(given, str):
        if isinstance(expected, str):
            return float(_within(expected, given))
        if _texts(expected):
            return float(any(_within(one, given) for one in expected))
    if isinstance(given, list | tuple):
        wanted = expected if isinstance(expected, list | tuple) else [expected]
        return float(all(any(exact_match(one, item) for item in given) for one in wanted))
    return float(same(expected, given))


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 is 1.0, true is not 1, and the order of an object's members is nothing."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    return type(one) is type(other) and bool(one == other)


def _texts(expected: Any) -> bool:
    return (
        isinstance(expected, list | tuple)
        and bool(expected)
        and all(isinstance(one, str) for one in expected)
    )


def _within(expected: str, given: str) -> bool:
    wanted, said = normalised(expected), normalised(given)
    # Nothing is in everything: a label without words wants an answer without any.
    return wanted in said if wanted else not said


def _f1(expected: str, given: str) -> float:
    wanted, said = normalised(expected).split(), normalised(given).split()
    shared = sum((Counter(wanted) & Counter(said)).values())
    if shared == 0:
        return 0.0
    precision, recall = 1.0 * shared / len(said), 1.0 * shared / len(wanted)
    return (2 * precision * recall) / (precision + recall)
