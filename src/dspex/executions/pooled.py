"""A program that runs in a worker process."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from dspex.configuration.pools import GENERAL
from dspex.kit import json
from dspex.kit.errors import Invalid, Problem
from dspex.kit.records import asdict
from dspex.programs.kinds import references_of
from dspex.programs.pipelines.canonical import pipeline_of
from dspex.programs.pipelines.records import Pipeline
from dspex.programs.records import Definition
from dspex.programs.rules import definition_digest
from dspex.signatures.document import open_signature_from_document
from dspex.signatures.records import Signature

PARAMETERS = ("temperature", "max_tokens", "seed", "stop", "rollout_id")
# Other kinds run nobody's code: doing it twice costs money at most.
_OWN_CODE = ("custom", "react")


class PooledProgram(Struct, frozen=True):
    """Shared by all requests. `definition` is what a worker builds the module from, known by `digest`.

    `signature` is the module's own; without outputs in it, any are taken. `plan` is that of a pipeline. `typed` says
    whether a module that is served as dspy-cli serves it has types, None for all others.
    """

    alias: str
    model: str
    pool: str
    digest: str
    definition: bytes
    repeatable: bool
    signature: Signature
    references: tuple[str, ...]
    code: str | None
    plan: Pipeline | None = None
    typed: bool | None = None

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Raises Invalid for those that would change what a worker may do."""
        unknown = [name for name in parameters if name not in PARAMETERS]
        if unknown:
            raise Invalid(
                f"A program in a pool does not take {', '.join(unknown)}; it takes {', '.join(PARAMETERS)}.",
                code="unsupported_parameter",
                problems=[
                    Problem(f"/parameters/{name}", "unsupported", "not supported here") for name in unknown
                ],
            )


def pooled(definition: Definition, document: Mapping[str, Any]) -> PooledProgram:
    """A definition ready to run, with the document that inspecting its module gave."""
    config = definition.config
    return PooledProgram(
        alias=definition.lm.alias,
        model=definition.lm.model,
        pool=config.get("pool", GENERAL),
        digest=definition_digest(definition),
        definition=json.dumps(asdict(definition)),
        repeatable=bool(config.get("idempotent", not _runs_own_code(definition.module, config))),
        signature=open_signature_from_document(document["signature"]),
        references=tuple(references_of(config)),
        code=definition.code,
        plan=pipeline_of(definition.signature, config) if definition.module == "pipeline" else None,
        typed=document.get("typed"),
    )


def _runs_own_code(module: str, config: Mapping[str, Any]) -> bool:
    return module in _OWN_CODE or any(step["module"] in _OWN_CODE for step in config.get("steps", ()))
