"""A plausible value for a JSON Schema: what pydantic writes as a schema, it accepts back.

A schema can come from anyone who sends a request, so keywords of the wrong shape count as absent.
"""

import math
from collections.abc import Mapping
from typing import Any

from dspex.providers.language_models.simulator.draws import Draws

Schema = Mapping[str, Any]

_WORDS = (
    *("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "harbor", "inlet", "jasper", "kelp"),
    *("lagoon", "meadow", "north", "opal", "prairie", "quartz", "river", "summit", "tundra", "upland"),
    *("valley", "willow", "yarrow"),
)
_LEAN_FROM = 6
_DEEPEST = 40
_LONGEST = 10_000
_MOST_ITEMS = 100
_SHARES = ("probability", "confidence", "likelihood", "score")


def draw_value(draws: Draws, schema: Schema, name: str, sentence: str, root: Schema, depth: int = 0) -> Any:
    """`sentence` is the text for a plain string; `root` holds the definitions that `$ref` points to.

    From a nesting of six on, optional parts are left out, so that a recursive schema ends; one that never
    ends gives None at a nesting of forty.
    """
    if depth > _DEEPEST:
        return None
    if isinstance(schema.get("$ref"), str):
        return draw_value(draws, _resolve(root, schema["$ref"]), name, sentence, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if choices := _list(schema, "enum"):
        return choices[draws.below(len(choices))]
    if options := _schemas(schema, "anyOf") or _schemas(schema, "oneOf"):
        return draw_value(draws, _branch(options, depth), name, sentence, root, depth + 1)
    if parts := _schemas(schema, "allOf"):
        merged = {key: value for part in parts for key, value in part.items()}
        return draw_value(draws, merged, name, sentence, root, depth + 1)
    kind = schema.get("type", "object" if _members(schema) else "string")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "boolean":
            return draws.below(2) == 1
        case "integer":
            return _integer(draws, schema)
        case "number":
            return _number(draws, schema, name)
        case "array":
            return _array(draws, schema, name, root, depth)
        case "object":
            return _object(draws, schema, root, depth)
        case "null":
            return None
        case _:
            return _string(draws, schema, sentence)


def word(draws: Draws) -> str:
    return _WORDS[draws.below(len(_WORDS))]


def _list(schema: Schema, keyword: str) -> list[Any]:
    value = schema.get(keyword)
    return value if isinstance(value, list) else []


def _schemas(schema: Schema, keyword: str) -> list[Schema]:
    return [part for part in _list(schema, keyword) if isinstance(part, Mapping)]


def _members(schema: Schema) -> Schema:
    value = schema.get("properties")
    return value if isinstance(value, Mapping) else {}


def _size(schema: Schema, keyword: str, most: int) -> int | None:
    value = schema.get(keyword)
    return min(max(value, 0), most) if type(value) is int else None


def _bound(schema: Schema, keyword: str) -> float | None:
    value = schema.get(keyword)
    return value if isinstance(value, int | float) and math.isfinite(value) and abs(value) < 2**53 else None


def _resolve(root: Schema, pointer: str) -> Schema:
    target: Any = root
    for part in pointer.removeprefix("#").split("/")[1:]:
        target = target.get(part) if isinstance(target, Mapping) else None
    return target if isinstance(target, Mapping) else {}


def _branch(options: list[Schema], depth: int) -> Schema:
    absent = [option for option in options if option.get("type") == "null"]
    if depth >= _LEAN_FROM and absent:
        return absent[0]
    return next((option for option in options if option.get("type") != "null"), options[0])


def _bounds(schema: Schema, low: float, high: float, step: float) -> tuple[float, float]:
    """The interval to draw from: the usual one, moved and cut by what the schema demands."""
    above, below = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
    least = above + step if above is not None else _bound(schema, "minimum")
    most = below - step if below is not None else _bound(schema, "maximum")
    if least is None:
        least = low if most is None or most >= low else most - (high - low)
    if most is None:
        most = high if high >= least else least + (high - low)
    return least, most


def _integer(draws: Draws, schema: Schema) -> int:
    low, high = _bounds(schema, 1, 100, 1)
    factor = _size(schema, "multipleOf", 2**53) or 1
    first, last = math.ceil(low / factor), math.floor(high / factor)
    return (first + draws.below(max(last - first + 1, 1))) * factor


def _number(draws: Draws, schema: Schema, name: str) -> float:
    share = any(part in name.lower() for part in _SHARES)
    low, high = _bounds(schema, 0.0, 1.0 if share else 100.0, 1e-3)
    value = round(low + draws.unit() * (high - low), 3)
    return value if low <= value <= high else low


def _string(draws: Draws, schema: Schema, sentence: str) -> str:
    written = schema.get("format")
    if not isinstance(written, str):
        shortest, longest = _size(schema, "minLength", _LONGEST) or 0, _size(schema, "maxLength", _LONGEST)
        return sentence.ljust(shortest, ".")[:longest]
    day = f"20{20 + draws.below(10)}-{1 + draws.below(12):02d}-{1 + draws.below(28):02d}"
    clock = f"{draws.below(24):02d}:{draws.below(60):02d}:{draws.below(60):02d}"
    formats = {
        "date": day,
        "date-time": f"{day}T{clock}",
        "time": clock,
        "duration": f"PT{1 + draws.below(59)}M",
        "email": "someone@example.org",
        "uri": "https://example.org/",
        "uuid": f"00000000-0000-4000-8000-{draws.below(1 << 48):012x}",
    }
    return formats.get(written, sentence)


def _array(draws: Draws, schema: Schema, name: str, root: Schema, depth: int) -> list[Any]:
    if fixed := _schemas(schema, "prefixItems"):
        return [draw_value(draws, part, name, word(draws), root, depth + 1) for part in fixed]
    fewest = _size(schema, "minItems", _MOST_ITEMS) or 0
    most = _size(schema, "maxItems", _MOST_ITEMS)
    count = fewest if depth >= _LEAN_FROM else max(1 + draws.below(3), fewest)
    items = schema.get("items")
    item = items if isinstance(items, Mapping) else {}
    drawn = [draw_value(draws, item, name, word(draws), root, depth + 1) for _ in range(count)][:most]
    if schema.get("uniqueItems"):
        drawn = [value for position, value in enumerate(drawn) if value not in drawn[:position]]
    return drawn


def _object(draws: Draws, schema: Schema, root: Schema, depth: int) -> dict[str, Any]:
    members, required = _members(schema), _list(schema, "required")
    drawn = {
        name: draw_value(draws, member, name, word(draws), root, depth + 1)
        for name, member in members.items()
        if isinstance(member, Mapping) and (depth < _LEAN_FROM or name in required)
    }
    extra = schema.get("additionalProperties")
    if not members and extra is not False and depth < _LEAN_FROM:
        item = extra if isinstance(extra, Mapping) else {}
        for _ in range(1 + draws.below(2)):
            drawn[word(draws)] = draw_value(draws, item, "", word(draws), root, depth + 1)
    return drawn
