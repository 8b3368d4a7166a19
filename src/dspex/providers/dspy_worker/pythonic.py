"""Signatures read off Python: a `dspy.Signature` class, or what a module's forward takes."""

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_type_hints

import dspy
from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from dspex.kit.errors import Invalid
from dspex.signatures.document import parse_signature, signature_to_document

ANY = "Any"
_NAMES = ("title", "description")
_SKIPPED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def signature_document(signature: type[dspy.Signature]) -> dict[str, Any]:
    """The document of a signature class: names, order, types, descriptions, defaults, instructions.

    Raises Invalid (code bad_signature) for a type that has no place in the published table.
    """
    default = dspy.Signature(_bare(signature)).instructions
    document: dict[str, Any] = {
        "inputs": [_field(name, field) for name, field in signature.input_fields.items()],
        "outputs": [_field(name, field) for name, field in signature.output_fields.items()],
    }
    if signature.instructions != default:
        document["instructions"] = signature.instructions
    return signature_to_document(parse_signature(document))


def _bare(signature: type[dspy.Signature]) -> str:
    return f"{', '.join(signature.input_fields)} -> {', '.join(signature.output_fields)}"


def _field(name: str, field: Any) -> dict[str, Any]:
    annotation = field.annotation
    constrained = Annotated[annotation, *field.metadata] if field.metadata else annotation
    document: dict[str, Any] = {"name": name, "type": _schema(name, constrained)}
    description = field.json_schema_extra.get("desc")
    if description and description != f"${{{name}}}":
        document["description"] = description
    if not field.is_required():
        document["default"] = TypeAdapter(annotation).dump_python(
            field.get_default(call_default_factory=True), mode="json"
        )
    try:
        parse_field(document)
    except Invalid as error:
        raise Invalid(
            f"The field {name!r}, {type_name(annotation)}, has no place in the table of types: "
            f"{error.problems[0].message}.",
            code="bad_signature",
        ) from None
    return document


def type_name(annotation: Any) -> str:
    """As its author writes it."""
    return (
        annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    )


def _schema(name: str, annotation: Any) -> Any:
    if annotation is Any:
        return ANY
    try:
        return TypeAdapter(annotation).json_schema()
    except (PydanticUserError, ValueError) as error:
        raise Invalid(
            f"The type of {name!r}, {annotation!r}, has no JSON form: {error}", code="bad_signature"
        ) from None


def module_signature(module: dspy.Module) -> dict[str, Any]:
    """What a module of the user's own takes: its attribute `signature`, or the parameters of its forward.

    From the parameters nothing is known of the outputs: they are an empty list, and any are taken. A parameter
    without an annotation, or with one that has no place in the published table, takes any JSON.
    """
    own = getattr(module, "signature", None)
    if isinstance(own, type) and issubclass(own, dspy.Signature):
        return signature_document(own)
    inputs = []
    for name, parameter in parameters_of(module).items():
        if parameter.kind in _SKIPPED:
            raise Invalid(
                f"forward takes *args or **kwargs; declare the program's `signature`, or give {type(module).__name__} "
                "an attribute `signature`.",
                code="signature_needed",
            )
        inputs.append(_parameter(name, parameter))
    if not inputs:
        raise Invalid("forward takes no input; give it at least one parameter.", code="signature_needed")
    return {"inputs": inputs, "outputs": []}


def parameters_of(module: dspy.Module) -> Mapping[str, inspect.Parameter]:
    """The parameters of forward, or of aforward where that is all there is, with annotations resolved."""
    # Of the class: DSPy warns whoever takes forward from an instance.
    run = method_of(module)
    signature = inspect.signature(run)
    try:
        hints = get_type_hints(run)
    except Exception:
        # Names that only a type checker sees: such a parameter takes any JSON.
        hints = {}
    _, *parameters = signature.parameters.items()
    return {
        name: one.replace(annotation=hints.get(name, inspect.Parameter.empty)) for name, one in parameters
    }


def method_of(module: dspy.Module) -> Any:
    """The function that runs it, of its class. Raises Invalid (code not_a_module) when there is none."""
    for name in ("forward", "aforward"):
        if hasattr(type(module), name):
            return getattr(type(module), name)
    raise Invalid(f"{type(module).__name__} has neither forward nor aforward.", code="not_a_module")


def _parameter(name: str, parameter: inspect.Parameter) -> dict[str, Any]:
    document: dict[str, Any] = {"name": name, "type": ANY}
    if parameter.annotation is not inspect.Parameter.empty:
        wanted = {"name": name, "type": schema_or_any(name, parameter.annotation)}
        try:
            document = parse_field(wanted)
        except Invalid:
            document = {"name": name, "type": ANY}
    if parameter.default is not inspect.Parameter.empty:
        with_default = {**document, "default": parameter.default}
        try:
            return parse_field(with_default)
        except (Invalid, TypeError, ValueError):
            # A default that has no JSON form: the input may be left out, and forward has its own.
            return parse_field({**document, "type": ANY, "default": None})
    return document


def parse_field(document: dict[str, Any]) -> dict[str, Any]:
    """The canonical document of one field. Raises Invalid."""
    parsed = parse_signature({"inputs": [document], "outputs": [{"name": "x_"}]})
    field: dict[str, Any] = signature_to_document(parsed)["inputs"][0]
    return field


def schema_or_any(name: str, annotation: Any) -> Any:
    """Of what a module takes, where a near type says more than none."""
    try:
        return _without_titles(_schema(name, annotation))
    except Invalid:
        return ANY


def _without_titles(schema: Any) -> Any:
    """An enumeration's class has a name and a text of its own, which a literal has no place for."""
    if isinstance(schema, list):
        return [_without_titles(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    left = {name: _without_titles(one) for name, one in schema.items()}
    return {name: left[name] for name in left if name not in _NAMES} if "enum" in left else left
