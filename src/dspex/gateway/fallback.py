"""One request, written for another model."""

from typing import Any

from msgspec.structs import fields, replace

from dspex.gateway.records import LanguageModelRequest, Options, Spelling

# What means the same to every model. Everything else a program chose with its own model in mind.
COMMON = frozenset(
    {"max_tokens", "temperature", "top_p", "seed", "frequency_penalty", "presence_penalty", "stop"}
)


def rewritten(
    request: LanguageModelRequest, alias: str, asked: Spelling, other: Spelling
) -> LanguageModelRequest:
    """The same messages for the model `alias`, whose spelling is `other`; `asked` is that of the request's model.

    An option that the registry sets for the model asked becomes what the registry sets for the other one; what the
    program or the caller set goes along if it means the same everywhere. The form of the answer always goes along.
    A limit of tokens stays when the other model has none.
    """
    options = Options(
        **{
            field.name: _option(field.name, request.options, asked.options, other.options)
            for field in fields(Options)
        }
    )
    return replace(request, model=alias, options=options, dialect=other.dialect)


def _option(name: str, given: Options, asked: Options, other: Options) -> Any:
    wanted, of_registry = getattr(given, name), getattr(other, name)
    if name == "response_format":
        return wanted
    if name not in COMMON:
        return of_registry
    if wanted != getattr(asked, name):
        return wanted
    return wanted if name == "max_tokens" and of_registry is None else of_registry
