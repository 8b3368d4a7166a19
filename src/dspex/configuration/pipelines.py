"""A pipeline as its author writes it, in the file and over HTTP: its shape, not yet its sense."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

MOST_STEPS = 50
MOST_FIELDS = 100
MOST_SOURCES = 10


def _source(value: object) -> list[object]:
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(one, str) for one in texts):
        raise PydanticCustomError(
            "source",
            "write where it comes from, such as step.field, or a list of those of which the first counts",
        )
    if len(texts) > MOST_SOURCES:
        raise PydanticCustomError("too_long", "name at most ten sources")
    return texts


def _signature(value: object) -> object:
    return _text_or(dict, value, "write a signature string, or an object with inputs and outputs")


def _inputs(value: object) -> object:
    return _text_or(
        list, value, "write fields as text, such as `ticket: str, k: int = 3`, or a list of fields"
    )


def _state(value: object) -> object:
    return _text_or(dict, value, "write the state as an object, or in a file its path")


def _text_or(kind: type, value: object, advice: str) -> object:
    if value is None or isinstance(value, str | kind):
        return value
    raise PydanticCustomError("wrong_type", "{advice}", {"advice": advice})


_TEXT = {"type": "string"}
Source = Annotated[
    Any, PlainValidator(_source), WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]})
]
SignatureSource = Annotated[
    Any, PlainValidator(_signature), WithJsonSchema({"anyOf": [_TEXT, {"type": "object"}]})
]
InputsSource = Annotated[
    Any,
    PlainValidator(_inputs),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": {"type": "object"}}]}),
]
StateSource = Annotated[Any, PlainValidator(_state), WithJsonSchema({"anyOf": [_TEXT, {"type": "object"}]})]


class _Form(BaseModel):
    model_config = ConfigDict(
        defer_build=True, extra="forbid", frozen=True, strict=True, protected_namespaces=()
    )


class StepEntry(_Form):
    """One step. What it leaves out of model and adapter it has from the program.

    `config` are the options of its module. A step that names a model starts from that model's own options. `state` is
    JSON that DSPy saved of the step alone.
    """

    name: Annotated[str, Field(max_length=64)]
    signature: SignatureSource
    module: Annotated[str, Field(max_length=500)] = "predict"
    config: dict[str, Any] = Field(default_factory=dict)
    inputs: Annotated[dict[str, Source], Field(max_length=MOST_FIELDS)] = Field(default_factory=dict)
    when: str | None = None
    on_failure: Literal["fail", "skip"] = "fail"
    model: str | None = None
    adapter: Literal["chat", "json", "xml", "two_step"] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    state: StateSource = None


class PipelineEntry(_Form):
    """`inputs` are fields as before the arrow of a signature; `outputs` say which step's field each of them is."""

    inputs: InputsSource
    steps: Annotated[list[StepEntry], Field(min_length=1, max_length=MOST_STEPS)]
    outputs: Annotated[dict[str, Source], Field(min_length=1, max_length=MOST_FIELDS)]


def kind_complaint(signature: Any, pipeline: PipelineEntry | None, module: str) -> str | None:
    """What is wrong about how a program says what it is; None when it is one signature or one pipeline."""
    if pipeline is None:
        # A module of one's own may say itself what it takes and gives.
        own = module == "custom" or ":" in module
        return "a `signature` or a `pipeline` is needed" if signature is None and not own else None
    if signature is not None:
        return "give a `signature` or a `pipeline`, not both"
    if module != "predict":
        return "a `module` goes with a `signature`; each step of a pipeline has its own"
    return None
