"""Where a definition runs: natively where that is exact, else with real DSPy in a pool."""

from collections.abc import Sequence

from msgspec.structs import replace

from dspex.programs.pipelines.canonical import step_definitions
from dspex.programs.ports import Compiled, Compiler, Inspector, Refused
from dspex.programs.records import NATIVE_ADAPTERS, NATIVE_MODULES, Definition


class ChoosingCompiler:
    """Compiles what may be native, and inspects in a pool what can't be or should not.

    The document of a program for the pool has `executor: pool` and the `reason`.
    """

    def __init__(self, compiler: Compiler, inspector: Inspector) -> None:
        self._compiler = compiler
        self._inspector = inspector

    async def compile(self, definitions: Sequence[Definition]) -> list[Compiled | Refused]:
        """One outcome for each definition, in order. Raises Unavailable as both do."""
        reasons = {index: _of_the_pool(one) for index, one in enumerate(definitions)}
        natively = [index for index, reason in reasons.items() if reason is None]
        outcomes: dict[int, Compiled | Refused] = {}
        if natively:
            compiled = await self._compiler.compile([definitions[index] for index in natively])
            outcomes.update(zip(natively, compiled, strict=True))
        for index, outcome in outcomes.items():
            if (
                isinstance(outcome, Refused)
                and outcome.kind == "unsupported"
                and _may_choose(definitions[index])
            ):
                reasons[index] = f"not native: {outcome.reason}"
        pooled = [index for index, reason in reasons.items() if reason is not None]
        if pooled:
            inspected = await self._inspector.inspect([definitions[index] for index in pooled])
            for index, found in zip(pooled, inspected, strict=True):
                outcomes[index] = _with_reason(found, str(reasons[index]))
        return [outcomes[index] for index in range(len(definitions))]


def _of_the_pool(definition: Definition) -> str | None:
    """Why it is not tried natively; None when it is."""
    if definition.executor == "pool":
        return "asked for"
    if definition.executor == "native":
        return None
    if definition.module == "custom":
        return "a module of your own runs with real DSPy"
    if definition.module == "pipeline":
        return _of_its_steps(definition)
    if definition.module not in NATIVE_MODULES:
        return f"{definition.module} runs with real DSPy only"
    if definition.adapter not in NATIVE_ADAPTERS:
        return f"the {definition.adapter} adapter runs with real DSPy only"
    return None


def _of_its_steps(pipeline: Definition) -> str | None:
    for name, step in step_definitions(pipeline).items():
        if (reason := _of_the_pool(step)) is not None:
            return f"step {name!r}: {reason}"
    return None


def _may_choose(definition: Definition) -> bool:
    return definition.executor == "auto"


def _with_reason(found: Compiled | Refused, reason: str) -> Compiled | Refused:
    if isinstance(found, Refused):
        return found
    return replace(found, document={**found.document, "reason": reason})
