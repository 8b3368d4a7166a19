"""What pydantic finds wrong in a document, in words for whoever wrote it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

Schema = Mapping[str, Any]
# Looking for what was meant takes a while; whoever has more unknown names sent something else.
LOOKED_FOR = 20
LONGEST_NAME = 100
# Of 1: "question" is no way to write "version" (0.67).
ALIKE = 0.7
_WORDS = {"missing": "is needed", "tuple_type": "must be a list", "list_type": "must be a list"}


def mistakes(
    errors: Sequence[Mapping[str, Any]], noun: str, schema: Callable[[], Schema] | None = None
) -> list[str]:
    """A message for each of pydantic's errors. `noun` is what the document's members are: a member, a setting.

    With the document's JSON Schema the first names that are not known are answered with the nearest that are.
    """
    unknown = [index for index, one in enumerate(errors) if one["type"] == "extra_forbidden"]
    said = [_WORDS.get(one["type"]) or str(one["msg"]) for one in errors]
    known = _made(schema) if schema is not None and unknown else {}
    for count, index in enumerate(unknown):
        near = _nearest(known, errors[index]["loc"]) if count < LOOKED_FOR else []
        advice = f"did you mean {near[0]!r}?" if near else "leave it out"
        said[index] = f"there is no such {noun} here; {advice}"
    return said


@lru_cache(maxsize=32)
def _made(schema: Callable[[], Schema]) -> Schema:
    """Once for each form: making one takes milliseconds, and who sends mistakes may send many."""
    return schema()


def _nearest(schema: Schema, loc: Sequence[str | int]) -> list[str]:
    # Nobody who makes no mistake waits for it.
    from difflib import get_close_matches

    *above, name = loc
    here = list(_branches(schema, schema))
    for part in above:
        # Which branch of a union it is stands in a place too, and leads nowhere.
        here = [below for one in here for below in _below(schema, one, part)] or here
    names = [known for one in here for known in one.get("properties", ())]
    return get_close_matches(str(name)[:LONGEST_NAME], names, 1, ALIKE)


def _below(root: Schema, schema: Schema, part: str | int) -> Iterable[Schema]:
    if isinstance(part, int):
        found = schema.get("items")
    else:
        found = schema.get("properties", {}).get(part) or schema.get("additionalProperties")
    return _branches(root, found) if isinstance(found, Mapping) else ()


def _branches(root: Schema, schema: Schema) -> Iterable[Schema]:
    """What a schema stands for: itself, what it refers to, and all of its alternatives."""
    if "$ref" in schema:
        yield from _branches(root, root["$defs"][schema["$ref"].rpartition("/")[2]])
    elif alternatives := schema.get("anyOf") or schema.get("oneOf"):
        for one in alternatives:
            yield from _branches(root, one)
    else:
        yield schema
