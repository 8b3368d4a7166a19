"""From steps with their signatures to a wired pipeline, or to everything that is wrong with the wires."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from dspex.configuration.pipelines import StepEntry
from dspex.kit.errors import Problem
from dspex.programs.conditions.checking import UnknownPath, member_type, mistakes_in
from dspex.programs.conditions.records import Node
from dspex.programs.pipelines.fitting import may_fit
from dspex.programs.pipelines.graph import cycles, in_order, needed_by
from dspex.programs.pipelines.records import Pipeline, Reference, Step, named_steps
from dspex.programs.records import Adapter, LanguageModelChoice, Module
from dspex.signatures.problems import pointer_to
from dspex.signatures.records import Field, Signature
from dspex.signatures.type_strings import type_to_string
from dspex.signatures.types import NONE, STR, FieldType, ListOf, allows_none, union_of

Sources = Mapping[str, tuple[Reference, ...]]


class Draft(Struct, frozen=True):
    """A step that was read. `signature` is None where it is wrong: then nothing is said of its fields."""

    index: int
    entry: StepEntry
    signature: Signature | None
    answers: Signature | None
    module: Module
    adapter: Adapter
    lm: LanguageModelChoice
    config: Mapping[str, Any]
    condition: Node | None

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def path(self) -> tuple[str | int, ...]:
        return ("pipeline", "steps", self.index)


class Wiring:
    """`problems` is empty when `pipeline` can be used."""

    def __init__(
        self, inputs: Sequence[Field] | None, drafts: Sequence[Draft], outputs: Mapping[str, Sequence[str]]
    ) -> None:
        self.problems: list[Problem] = []
        self._inputs = None if inputs is None else {field.name: field for field in inputs}
        self._drafts = {draft.name: draft for draft in drafts}
        self._listed = drafts
        self._sources = {draft.name: self._wire(draft) for draft in drafts}
        self._outputs = {
            name: self._read(texts, ("pipeline", "outputs", name)) for name, texts in outputs.items()
        }
        self._needs = {draft.name: self._needed(draft) for draft in drafts}
        self._check_cycles()
        self._order: tuple[str, ...] = ()
        self._absent: set[str] = set()
        if not self.problems:
            self._order = in_order(self._needs)
            self._find_absent()
            self._check_types()
            self._check_conditions()
            self._check_used()
        elif self._inputs is not None and all(draft.answers is not None for draft in drafts):
            # Told together with the wires. Which steps may be skipped is not known: as if each could be, so that
            # only what is wrong for certain is told.
            self._absent = set(self._drafts)
            self._check_conditions()

    def pipeline(self) -> Pipeline:
        """Once there are no problems, here and in the drafts."""
        steps = [
            Step(
                name=draft.name,
                signature=draft.signature,
                answers=draft.answers,
                module=draft.module,
                adapter=draft.adapter,
                lm=draft.lm,
                config=draft.config,
                inputs=self._sources[draft.name],
                when=draft.condition,
                source=draft.entry.when,
                on_failure=draft.entry.on_failure,
            )
            for draft in self._listed
            if draft.signature is not None and draft.answers is not None
        ]
        return Pipeline(
            tuple((self._inputs or {}).values()), tuple(steps), self._outputs, self._needs, self._order
        )

    def output_fields(self) -> list[Field]:
        """The outputs of the whole: each as its sources have it, or null where all of them may be skipped."""
        return [self._output_field(name, sources) for name, sources in self._outputs.items()]

    def _output_field(self, name: str, sources: tuple[Reference, ...]) -> Field:
        fields = [field for one in sources if (field := self._field(one)) is not None]
        types = [field.type for field in fields]
        if self._may_be_absent(sources):
            types.append(NONE)
        first = fields[0]
        same = all(field.constraints == first.constraints for field in fields)
        return Field(
            name,
            union_of(types),
            first.description,
            constraints=first.constraints if same else (),
            typed=len(types) > 1 or first.typed,
        )

    def _problem(self, path: Iterable[str | int], code: str, message: str) -> None:
        self.problems.append(Problem(pointer_to("", path), code, message))

    def _wire(self, draft: Draft) -> Sources:
        if draft.signature is None:
            return {}
        given, wired = draft.entry.inputs, {}
        known = {field.name for field in draft.signature.inputs}
        for name in given:
            if name not in known:
                self._problem(
                    (*draft.path, "inputs", name),
                    "unknown_field",
                    f"{name!r} is no input of {draft.name!r}; it has {', '.join(sorted(known))}",
                )
        for field in draft.signature.inputs:
            if field.name in given:
                wired[field.name] = self._read(given[field.name], (*draft.path, "inputs", field.name))
            elif found := self._by_name(draft, field):
                wired[field.name] = (found,)
        return wired

    def _by_name(self, draft: Draft, field: Field) -> Reference | None:
        candidates = [Reference(None, field.name)] if field.name in (self._inputs or {}) else []
        candidates += [
            Reference(other.name, field.name)
            for other in self._before(draft)
            if other.answers is not None and _named(other.answers.outputs, field.name) is not None
        ]
        if len(candidates) == 1:
            return candidates[0]
        path = (*draft.path, "inputs", field.name)
        if candidates:
            listed = " and ".join(map(str, candidates))
            self._problem(
                path,
                "ambiguous_field",
                f"{field.name!r} could come from {listed}; say which, as in "
                f"inputs: {{{field.name}: {candidates[-1]}}}",
            )
        elif not field.has_default and not allows_none(field.type) and self._all_known(draft):
            self._problem(
                path,
                "unknown_field",
                f"{field.name!r} comes from nowhere: no input of the pipeline and no step before {draft.name!r} has "
                f"it; say where it comes from, as in inputs: {{{field.name}: step.field}}",
            )
        return None

    def _before(self, draft: Draft) -> list[Draft]:
        return [one for one in self._listed if one.index < draft.index]

    def _all_known(self, draft: Draft) -> bool:
        return self._inputs is not None and all(one.answers is not None for one in self._before(draft))

    def _read(self, texts: Sequence[str], path: tuple[str | int, ...]) -> tuple[Reference, ...]:
        found = []
        for text in texts:
            parts = text.split(".")
            reference = Reference(None, text) if len(parts) == 1 else Reference(parts[0], ".".join(parts[1:]))
            if (complaint := self._complaint(reference)) is not None:
                self._problem(path, "unknown_field", complaint)
            else:
                found.append(reference)
        return tuple(found)

    def _complaint(self, reference: Reference) -> str | None:
        """Why a reference leads nowhere; None when it leads somewhere, or to what could not be read."""
        step, field = reference.step, reference.field
        if step is None:
            if field in self._drafts:
                return f"{field!r} is a step; name a field of it, as in {self._example(self._drafts[field])}"
            if self._inputs is None or field in self._inputs:
                return None
            return f"there is no input {field!r}; the pipeline has {', '.join(self._inputs)}"
        draft = self._drafts.get(step)
        if draft is None:
            return f"there is no step {step!r}; there are {', '.join(self._drafts)}"
        if draft.answers is None or _named(draft.answers.outputs, field) is not None:
            return None
        known = ", ".join(one.name for one in draft.answers.outputs)
        return f"{step!r} has no output {field!r}; it has {known}"

    def _example(self, draft: Draft) -> str:
        return f"{draft.name}.{draft.answers.outputs[0].name if draft.answers else 'field'}"

    def _field(self, reference: Reference) -> Field | None:
        if reference.step is None:
            return (self._inputs or {}).get(reference.field)
        answers = self._drafts[reference.step].answers
        return None if answers is None else _named(answers.outputs, reference.field)

    def _needed(self, draft: Draft) -> frozenset[str]:
        sources = [one for sources in self._sources[draft.name].values() for one in sources]
        conditions = named_steps(draft.condition, frozenset(self._drafts))
        return conditions | {one.step for one in sources if one.step is not None}

    def _check_cycles(self) -> None:
        for way in cycles(self._needs):
            told = " needs ".join([*way, way[0]])
            self._problem(self._drafts[way[0]].path, "cycle", f"these steps wait for one another: {told}")

    def _find_absent(self) -> None:
        for name in self._order:
            draft = self._drafts[name]
            required = [
                self._sources[name][field.name]
                for field in (draft.signature.inputs if draft.signature else ())
                if field.name in self._sources[name] and not field.has_default and not allows_none(field.type)
            ]
            if (
                draft.condition is not None
                or draft.entry.on_failure == "skip"
                or any(map(self._may_be_absent, required))
            ):
                self._absent.add(name)

    def _may_be_absent(self, sources: tuple[Reference, ...]) -> bool:
        return all(one.step in self._absent for one in sources)

    def _check_types(self) -> None:
        for draft in self._listed:
            for field in draft.signature.inputs if draft.signature else ():
                for source in self._sources[draft.name].get(field.name, ()):
                    given = self._field(source)
                    if given is not None and not _fits(given.type, field):
                        self._problem(
                            (*draft.path, "inputs", field.name),
                            "wrong_type",
                            f"{source} is {type_to_string(given.type)}, and {field.name!r} of {draft.name!r} takes "
                            f"{type_to_string(field.type)}",
                        )

    def _check_conditions(self) -> None:
        for draft in self._listed:
            if draft.condition is not None:
                for mistake in mistakes_in(draft.condition, self._type_of):
                    where = f"{mistake.message} (at character {mistake.at})"
                    self._problem((*draft.path, "when"), "bad_condition", where)

    def _type_of(self, names: tuple[str, ...]) -> FieldType:
        """Of a path in a condition. Raises UnknownPath."""
        first = names[0]
        if first in (self._inputs or {}):
            reference, rest = Reference(None, first), names[1:]
        elif first in self._drafts and len(names) > 1:
            reference, rest = Reference(first, names[1]), names[2:]
        elif first in self._drafts:
            raise UnknownPath(f"name a field of the step, as in {self._example(self._drafts[first])}")
        else:
            raise UnknownPath(f"there is no input or step of this name; {self._instead(first)}")
        field = self._field(reference)
        if field is None:
            raise UnknownPath(self._complaint(reference) or "is not known")
        found = field.type
        for name in rest:
            found = member_type(found, name)
        return union_of([found, NONE]) if reference.step in self._absent else found

    def _instead(self, field: str) -> str:
        """What somebody may have meant who wrote the name of a field alone."""
        meant = [
            f"{one.name}.{field}"
            for one in self._listed
            if one.answers is not None and _named(one.answers.outputs, field) is not None
        ]
        if meant:
            return f"write {' or '.join(meant)}"
        return f"there are {', '.join([*(self._inputs or {}), *(f'{one}.…' for one in self._drafts)])}"

    def _check_used(self) -> None:
        wanted = [one.step for sources in self._outputs.values() for one in sources if one.step is not None]
        used = needed_by(wanted, self._needs)
        for draft in self._listed:
            if draft.name not in used:
                self._problem(
                    draft.path,
                    "unused_step",
                    f"no output needs what {draft.name!r} gives; name a field of it among the outputs, or leave it out",
                )


def _named(fields: Iterable[Field], name: str) -> Field | None:
    return next((field for field in fields if field.name == name), None)


def _fits(given: FieldType, field: Field) -> bool:
    if field.type == STR and isinstance(given, ListOf) and may_fit(given.item, STR):
        # DSPy numbers the texts of a list for such a field, as a retriever's passages.
        return True
    # Without a type of its own a field is text, which everything but a list of something else is written as.
    return may_fit(given, field.type) or (not field.typed and not isinstance(given, ListOf))
