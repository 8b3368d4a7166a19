"""A pipeline, wired: which step gets what from where."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from dspex.programs.conditions.records import Node, paths_of
from dspex.programs.records import Adapter, LanguageModelChoice, Module
from dspex.signatures.records import Field, Signature

OnFailure = Literal["fail", "skip"]


class Reference(Struct, frozen=True):
    """An output of a step, or with `step` None an input of the pipeline."""

    step: str | None
    field: str

    def __str__(self) -> str:
        return self.field if self.step is None else f"{self.step}.{self.field}"


class Step(Struct, frozen=True):
    """`inputs` say where each input of the signature comes from: the first of several that is there.

    An input that is not among them keeps its default, or is null. `answers` is the signature with the outputs that the
    module really gives: a chain of thought has its reasoning. `config` are the options of the module, `source` is the
    text of `when`.
    """

    name: str
    signature: Signature
    answers: Signature
    module: Module
    adapter: Adapter
    lm: LanguageModelChoice
    config: Mapping[str, Any]
    inputs: Mapping[str, tuple[Reference, ...]]
    when: Node | None = None
    source: str | None = None
    on_failure: OnFailure = "fail"

    def references(self) -> Iterator[Reference]:
        """All that its inputs come from."""
        for sources in self.inputs.values():
            yield from sources


class Pipeline(Struct, frozen=True):
    """`steps` are in the order of the author, `order` names them so that each comes after all that it needs."""

    inputs: tuple[Field, ...]
    steps: tuple[Step, ...]
    outputs: Mapping[str, tuple[Reference, ...]]
    needs: Mapping[str, frozenset[str]]
    order: tuple[str, ...]

    def step(self, name: str) -> Step:
        return next(one for one in self.steps if one.name == name)


def named_steps(condition: Node | None, steps: frozenset[str]) -> frozenset[str]:
    """The steps whose outputs a condition looks at."""
    if condition is None:
        return frozenset()
    return frozenset(path.names[0] for path in paths_of(condition)) & steps
