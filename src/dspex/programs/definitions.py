"""From what a user writes to a Definition."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dspex.configuration.models import ModelRegistry, option_advice, unsupported_options
from dspex.kit.errors import Invalid, Problem
from dspex.programs.kinds import is_reference, read_module, references_of
from dspex.programs.records import (
    Adapter,
    Definition,
    LanguageModelChoice,
    Module,
    Version,
    WantedExecutor,
)
from dspex.programs.transfer import imported_state
from dspex.signatures.document import (
    open_signature_from_document,
    parse_signature,
    signature_to_document,
)
from dspex.signatures.records import Signature

# The digest of the Python files that references lead to; raises Invalid (code bad_reference).
CodeDigest = Callable[[Sequence[str]], str]


def contract_of(version: Version) -> Signature | None:
    """What a version takes and gives, without outputs where any may come; None where that is not known yet."""
    document = version.signature or version.definition.signature
    return open_signature_from_document(document) if document else None


def choose_model(
    registry: ModelRegistry,
    alias: str | None,
    *,
    temperature: float | None = None,
    max_tokens: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> LanguageModelChoice:
    """The model and its LM options: the registry's, overridden by the program's own.

    Raises Invalid for an alias that the registry lacks (code unknown_model), for an embedding model (wrong_model_type)
    and for options other than those that shape an answer (unsupported_option).
    """
    name = alias or registry.default
    settings = registry.registry.get(name)
    if settings is None:
        raise Invalid(
            f"There is no model {name!r}; the registry has {', '.join(sorted(registry.registry))}.",
            code="unknown_model",
            problems=[Problem("/model", "unknown_model", "not in the model registry")],
        )
    if settings.model_type != "chat":
        raise Invalid(
            f"The model {name!r} embeds texts and writes none; name a chat model.",
            code="wrong_model_type",
            problems=[Problem("/model", "wrong_model_type", "is an embedding model")],
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
    signature: str | Mapping[str, Any] | None,
    module: str,
    adapter: Adapter,
    lm: LanguageModelChoice,
    state: Mapping[str, Any] | None = None,
    mock: Mapping[str, Any] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    executor: WantedExecutor = "auto",
    code: CodeDigest | None = None,
) -> Definition:
    """A definition with its signature in canonical form.

    Of a `state` that DSPy saved, what `transfer.imported_state` keeps: no language model and no key. `code` gives the
    digest of the Python files that a configuration names; without it none may be named. Raises Invalid for a bad
    signature, its problems placed under /signature, a bad state, an unknown module or a bad configuration of it.
    """
    kind, options = read_module(module, config or {})
    references = references_of(options)
    if references and code is None:
        raise code_not_allowed(references, "/module")
    try:
        kept = None if state is None else imported_state(state, kind)[0]
    except Invalid as error:
        found = [Problem(f"/state{one.pointer}", one.code, one.message) for one in error.problems]
        raise Invalid(error.message, code=error.code, problems=found) from error
    return Definition(
        _document(signature, kind),
        kind,
        adapter,
        lm,
        kept,
        mock,
        config=options,
        code=code(references) if references and code is not None else None,
        executor=executor,
    )


def code_not_allowed(references: Sequence[str], pointer: str) -> Invalid:
    return Invalid(
        f"Python code ({', '.join(references)}) can be named in the configuration file, and by admins.",
        code="code_not_allowed",
        problems=[Problem(pointer, "code_not_allowed", "names Python code")],
    )


def _document(signature: str | Mapping[str, Any] | None, module: Module) -> Mapping[str, Any]:
    if signature is None:
        if module == "custom":
            return {}
        raise Invalid(
            f"A {module} needs a signature.",
            code="bad_signature",
            problems=[Problem("/signature", "missing", "write one, such as 'question -> answer'")],
        )
    if is_reference(signature):
        raise code_not_allowed([signature], "/signature")
    try:
        return signature_to_document(parse_signature(signature))
    except Invalid as error:
        found = [Problem(f"/signature{one.pointer}", one.code, one.message) for one in error.problems]
        raise Invalid(error.message, code=error.code, problems=found) from error
