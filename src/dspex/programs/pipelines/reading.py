"""From a pipeline as its author writes it to a Definition, or to everything that is wrong with it."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from dspex.configuration.models import ModelRegistry
from dspex.configuration.pipelines import PipelineEntry, StepEntry
from dspex.kit.errors import Invalid, Problem
from dspex.programs.conditions.records import Node
from dspex.programs.conditions.syntax import parse_condition
from dspex.programs.definitions import CodeDigest, check_options, choose_model
from dspex.programs.kinds import read_module, read_pipeline_options, references_of
from dspex.programs.pipelines.canonical import config_of
from dspex.programs.pipelines.states import joined, of_step
from dspex.programs.pipelines.wiring import Draft, Wiring
from dspex.programs.records import Adapter, Definition, LanguageModelChoice, Module, WantedExecutor
from dspex.programs.rules import answers_of
from dspex.programs.transfer import imported_pipeline_state, imported_state
from dspex.signatures.document import (
    parse_inputs,
    parse_signature,
    signature_from_document,
    signature_to_document,
)
from dspex.signatures.names import name_problem
from dspex.signatures.problems import pointer_to
from dspex.signatures.records import Field, Signature

# A step is an attribute of one `dspy.Module`, whose own these are; a condition takes the last three for values.
_TAKEN = frozenset(
    {
        "acall",
        "aforward",
        "batch",
        "callbacks",
        "deepcopy",
        "dump_state",
        "forward",
        "get_lm",
        "history",
        "inspect_history",
        "load",
        "load_state",
        "map_named_predictors",
        "metadata",
        "named_parameters",
        "named_predictors",
        "named_sub_modules",
        "parameters",
        "predictors",
        "reset_copy",
        "save",
        "self",
        "set_lm",
        "true",
        "false",
        "null",
    }
)


def define_pipeline(
    entry: PipelineEntry,
    models: ModelRegistry,
    adapter: Adapter,
    lm: LanguageModelChoice,
    state: Mapping[str, Any] | None = None,
    mock: Mapping[str, Any] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    executor: WantedExecutor = "auto",
    code: CodeDigest | None = None,
    base: Definition | None = None,
) -> Definition:
    """The definition of a whole pipeline; `adapter` and `lm` are for the steps that name none.

    `config` are options of the whole; `code` as for `define`. `state` is what DSPy saved of the whole, by step; a
    step's own wins. Steps without one have that of the same step, with the same signature and module, in `base`. Raises
    Invalid (code bad_pipeline) with every problem, as JSON pointers under /pipeline and /state.
    """
    options = read_pipeline_options(config or {})
    read = _Reading(entry, models, adapter, lm, may_name_code=code is not None)
    wiring = Wiring(read.inputs, read.drafts, entry.outputs)
    problems = [*read.problems, *wiring.problems]
    signature = None
    if not problems and read.inputs is not None:
        signature, problems = _signature(read.inputs, wiring.output_fields())
    states = _states(read.drafts, state, problems)
    if problems or signature is None:
        raise _refused(problems)
    options |= config_of(wiring.pipeline())
    if base is not None and state is None:
        states = _kept(base, options) | states
    references = references_of(options)
    return Definition(
        signature_to_document(signature),
        "pipeline",
        adapter,
        lm,
        joined(states) or None,
        mock,
        options,
        code(references) if references and code is not None else None,
        executor,
    )


def with_state(pipeline: Definition, saved: Mapping[str, Any]) -> Definition:
    """With what DSPy saved of the whole. Raises Invalid (code bad_state), with pointers under /state."""
    modules = {step["name"]: step["module"] for step in pipeline.config["steps"]}
    try:
        states, _ = imported_pipeline_state(saved, modules)
    except Invalid as error:
        found = [Problem(f"/state{one.pointer}", one.code, one.message) for one in error.problems]
        raise Invalid(error.message, code=error.code, problems=found) from error
    return replace(pipeline, state=joined(states))


def _kept(base: Definition, config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The states of the steps that stay what they are to DSPy."""
    if base.module != "pipeline":
        return {}
    before = {step["name"]: (step["signature"], step["module"]) for step in base.config["steps"]}
    kept = {}
    for step in config["steps"]:
        state = of_step(base.state, step["name"])
        if state is not None and before.get(step["name"]) == (step["signature"], step["module"]):
            kept[step["name"]] = state
    return kept


class _Reading:
    """Each part for itself, before anything is wired."""

    def __init__(
        self,
        entry: PipelineEntry,
        models: ModelRegistry,
        adapter: Adapter,
        lm: LanguageModelChoice,
        *,
        may_name_code: bool,
    ) -> None:
        self._may_name_code = may_name_code
        self.problems: list[Problem] = []
        self._models, self._adapter, self._lm = models, adapter, lm
        self.inputs = self._inputs(entry.inputs)
        self.drafts: list[Draft] = []
        names = {field.name for field in self.inputs or ()}
        for index, step in enumerate(entry.steps):
            if self._check_name(step.name, index, names):
                self.drafts.append(self._draft(step, index))

    def _problem(self, path: tuple[str | int, ...], code: str, message: str) -> None:
        self.problems.append(Problem(pointer_to("/pipeline", path), code, message))

    def _take(self, error: Invalid, path: tuple[str | int, ...]) -> None:
        """What another room says is wrong, placed here."""
        root = pointer_to("/pipeline", path)
        found = error.problems or (Problem("", error.code, error.message),)
        self.problems += [Problem(root + one.pointer, one.code, one.message) for one in found]

    def _inputs(self, source: str | list[Any]) -> tuple[Field, ...] | None:
        try:
            fields = parse_inputs(source)
        except Invalid as error:
            found = [replace(one, pointer=one.pointer.removeprefix("/inputs")) for one in error.problems]
            self._take(Invalid(error.message, code=error.code, problems=found), ("inputs",))
            return None
        return fields

    def _check_name(self, name: str, index: int, inputs: set[str]) -> bool:
        """Whether the step can be known by it: the first of several of one name is."""
        path = ("steps", index, "name")
        complaint = name_problem(name, "member")
        if complaint is None and name in _TAKEN:
            complaint = (
                f"{name!r} means something else in a pipeline; write another name, such as {name + '_'!r}"
            )
        if complaint is not None:
            self._problem(path, "bad_name", complaint)
        elif name in inputs:
            self._problem(
                path, "duplicate_name", f"{name!r} is an input of the pipeline; give the step another name"
            )
        elif any(one.name == name for one in self.drafts):
            self._problem(path, "duplicate_name", f"there is a step {name!r} already; rename one of them")
            return False
        return True

    def _draft(self, step: StepEntry, index: int) -> Draft:
        path = ("steps", index)
        signature = self._signature(step.signature, path)
        module, config = self._module(step, path)
        return Draft(
            index=index,
            entry=step,
            signature=signature,
            answers=None if signature is None else answers_of(signature, module, config),
            module=module,
            adapter=step.adapter or self._adapter,
            lm=self._model(step, path),
            config=config,
            condition=self._condition(step.when, path),
        )

    def _module(self, step: StepEntry, path: tuple[str | int, ...]) -> tuple[Module, dict[str, Any]]:
        try:
            module, config = read_module(step.module, step.config)
        except Invalid as error:
            self._take(error, path)
            return "predict", {}
        if references_of(config) and not self._may_name_code:
            named = ", ".join(references_of(config))
            self._problem(
                (*path, "module"), "code_not_allowed", f"names Python code ({named}), which an admin may"
            )
        return module, config

    def _signature(self, source: Any, path: tuple[str | int, ...]) -> Signature | None:
        try:
            return parse_signature(source)
        except Invalid as error:
            self._take(error, (*path, "signature"))
            return None

    def _model(self, step: StepEntry, path: tuple[str | int, ...]) -> LanguageModelChoice:
        own = {"temperature": step.temperature, "max_tokens": step.max_tokens, **step.options}
        given = {name: value for name, value in own.items() if value is not None}
        try:
            if step.model is not None:
                return choose_model(self._models, step.model, options=given)
            check_options(given)
        except Invalid as error:
            self._take(error, path)
        return replace(self._lm, options={**self._lm.options, **given})

    def _condition(self, text: str | None, path: tuple[str | int, ...]) -> Node | None:
        if text is None:
            return None
        try:
            return parse_condition(text)
        except Invalid as error:
            self._take(error, (*path, "when"))
            return None


def _signature(inputs: Sequence[Field], outputs: Sequence[Field]) -> tuple[Signature | None, list[Problem]]:
    """The signature of the whole, and what makes it none: outputs that can't be in one signature."""
    signature = Signature(tuple(inputs), tuple(outputs))
    try:
        return signature_from_document(signature_to_document(signature)), []
    except Invalid as error:
        names = {f"/outputs/{index}": f"/outputs/{field.name}" for index, field in enumerate(outputs)}
        found = []
        for one in error.problems:
            place = next((at for at in names if one.pointer == at or one.pointer.startswith(at + "/")), None)
            pointer = "/pipeline" + (one.pointer if place is None else names[place])
            found.append(Problem(pointer, one.code, one.message))
        return None, found


def _states(
    drafts: Sequence[Draft], whole: Mapping[str, Any] | None, problems: list[Problem]
) -> dict[str, Mapping[str, Any]]:
    """Each step's own state, by step, as DSPy saves such a module."""
    states: dict[str, Mapping[str, Any]] = {}
    if whole is not None:
        try:
            states |= imported_pipeline_state(whole, {draft.name: draft.module for draft in drafts})[0]
        except Invalid as error:
            problems += [Problem(f"/state{one.pointer}", one.code, one.message) for one in error.problems]
    for draft in drafts:
        state = draft.entry.state
        if state is None:
            continue
        root = pointer_to("", (*draft.path, "state"))
        if isinstance(state, str):
            problems.append(
                Problem(root, "bad_state", "write the state as an object; only a file names a path")
            )
            continue
        try:
            states[draft.name] = imported_state(state, draft.module)[0]
        except Invalid as error:
            problems += [Problem(root + one.pointer, one.code, one.message) for one in error.problems]
    return states


def _refused(problems: Sequence[Problem]) -> Invalid:
    first, more = problems[0], len(problems) - 1
    return Invalid(
        f"The pipeline can't be used: at {first.pointer}, {first.message}"
        + (f" (and {more} more)." if more else "."),
        code="bad_pipeline",
        problems=problems,
    )
