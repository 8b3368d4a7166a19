"""Which names a field may have: those that work in DSPy as well.

The refused ones were found by running DSPy with each candidate as an input and as an output.
"""

import keyword
import re
import unicodedata

# `dspy.Predict` takes these out of a call for itself, so the field would never reach the prompt.
_TAKEN_BY_CALLS = frozenset(
    {"completions", "config", "demos", "lm", "new_signature", "prediction", "self", "signature"}
)
# Properties of DSPy's signature class: a field of this name hides them and building the signature fails.
_TAKEN_BY_SIGNATURES = frozenset({"fields", "input_fields", "instructions", "output_fields", "signature"})
# Members of pydantic's models, which signatures and nested objects are.
_TAKEN_BY_MODELS = frozenset(
    {
        "model_computed_fields",
        "model_config",
        "model_construct",
        "model_copy",
        "model_dump",
        "model_dump_json",
        "model_extra",
        "model_fields",
        "model_fields_set",
        "model_json_schema",
        "model_parametrized_name",
        "model_post_init",
        "model_rebuild",
        "model_validate",
        "model_validate_json",
        "model_validate_strings",
    }
)


def name_problem(name: str, role: str) -> str | None:
    """Why `name` can't name an "input", an "output" or a "member" of an object; None when it can."""
    if not name.isidentifier() or not re.fullmatch(r"\w+", name):
        return f"{name!r} is not a name; use letters, digits and underscores, and start with a letter"
    if name.startswith("_"):
        return (
            f"{name!r} starts with an underscore, which DSPy refuses; write {name.lstrip('_') or 'value'!r}"
        )
    if keyword.iskeyword(name):
        return f"{name!r} is a keyword of Python; write {name.lower() + '_'!r}"
    normal = unicodedata.normalize("NFKC", name)
    if normal != name:
        return (
            f"{name!r} is not in normal form (NFKC), Python would read it as another name; write {normal!r}"
        )
    taken = _TAKEN_BY_MODELS
    if role != "member":
        taken = taken | _TAKEN_BY_SIGNATURES
    if role == "input":
        taken = taken | _TAKEN_BY_CALLS
    if name in taken:
        return f"{name!r} means something else to DSPy; write another name, such as {name + '_'!r}"
    return None
