"""From what a user writes to a Definition."""

from collections.abc import Mapping
from typing import Any, get_args

from dspex.configuration.models import ModelRegistry, option_advice, unsupported_options
from dspex.kit.errors import Invalid, Problem
from dspex.programs.records import Adapter, Definition, LanguageModelChoice, Module
from dspex.programs.transfer import imported_state
from dspex.signatures.document import parse_signature, signature_to_document


def choose_model(
    registry: ModelRegistry,
    alias: str | None,
    *,
    temperature: float | None = None,
    max_tokens: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> LanguageModelChoice:
    """The model and its LM options: the registry's, overridden by the program's own.

    Raises Invalid for an alias that the registry lacks (code unknown_model) and for options other than
    those that shape an answer (unsupported_option).
    """
    name = alias or registry.default
    settings = registry.registry.get(name)
    if settings is None:
        raise Invalid(
            f"There is no model {name!r}; the registry has {', '.join(sorted(registry.registry))}.",
            code="unknown_model",
            problems=[Problem("/model", "unknown_model", "not in the model registry")],
        )
    check_options(options or {})
    own = {"temperature": temperature, "max_tokens": max_tokens, **(options or {})}
    configured = {"temperature": settings.temperature, "max_tokens": settings.max_tokens, **settings.options}
    merged = configured | {key: value for key, value in own.items() if value is not None}
    return LanguageModelChoice(
        name, settings.model, {key: value for key, value in merged.items() if value is not None}
    )


def check_options(options: Mapping[str, Any]) -> None:
    """Raises Invalid (code unsupported_option): versions are stored and shown, so no key may get in."""
    refused = [
        Problem(f"/options/{name}", "unsupported_option", option_advice(name))
        for name in unsupported_options(options)
    ]
    if refused:
        raise Invalid(f"{refused[0].message}.", code="unsupported_option", problems=refused)


def define(
    signature: str | Mapping[str, Any],
    module: Module,
    adapter: Adapter,
    lm: LanguageModelChoice,
    state: Mapping[str, Any] | None = None,
    mock: Mapping[str, Any] | None = None,
) -> Definition:
    """A definition with its signature in canonical form.

    Of a `state` that DSPy saved, what `transfer.imported_state` keeps: no language model and no key. Raises
    Invalid for a bad signature, its problems placed under /signature, a bad state and an unknown module.
    """
    if module not in get_args(Module):
        raise Invalid(
            f"There is no module {module!r}; natively there are {' and '.join(get_args(Module))}.",
            code="unknown_module",
            problems=[Problem("/module", "unknown_module", "not a module that runs natively")],
        )
    try:
        kept = None if state is None else imported_state(state)[0]
    except Invalid as error:
        found = [Problem("/state", "bad_state", "no predictor with demos is in it")]
        raise Invalid(error.message, code=error.code, problems=found) from error
    try:
        document = signature_to_document(parse_signature(signature))
    except Invalid as error:
        found = [Problem(f"/signature{one.pointer}", one.code, one.message) for one in error.problems]
        raise Invalid(error.message, code=error.code, problems=found) from error
    return Definition(document, module, adapter, lm, kept, mock)
