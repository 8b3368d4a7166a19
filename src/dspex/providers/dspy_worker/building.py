"""From a definition to a module that can be run: DSPy's own kinds, and users' classes."""

from collections.abc import Callable, Mapping
from typing import Any

import dspy
from dspy.adapters import Adapter, ChatAdapter, JSONAdapter, TwoStepAdapter, XMLAdapter
from msgspec import Struct
from msgspec.structs import replace

from dspex.kit.errors import Invalid
from dspex.kit.records import asdict
from dspex.programs.kinds import references_of
from dspex.programs.pipelines.canonical import pipeline_of, step_definitions
from dspex.programs.pipelines.records import Step
from dspex.programs.records import Definition, LanguageModelChoice
from dspex.providers.dspy_worker.composed import composition_of
from dspex.providers.dspy_worker.dspy_cli import Contract, contract_of, offer_gateways
from dspex.providers.dspy_worker.engines import STEP, GatewayLM, check_options
from dspex.providers.dspy_worker.modules import provider_model, signature_class, without_lms
from dspex.providers.dspy_worker.pipeline import answered, build_pipeline
from dspex.providers.dspy_worker.promising import Promise
from dspex.providers.dspy_worker.pythonic import method_of, module_signature
from dspex.providers.dspy_worker.references import check_code, resolve
from dspex.providers.dspy_worker.sandbox import check_sandbox
from dspex.signatures.document import open_signature_from_document, signature_from_document
from dspex.signatures.records import Signature

# What `dspy.context` holds for the models of a pipeline's steps: the parameters of the request.
PARAMETERS = "dspex_parameters"
_ADAPTERS: Mapping[str, type[Adapter]] = {"chat": ChatAdapter, "json": JSONAdapter, "xml": XMLAdapter}


class Built(Struct, frozen=True):
    """A module with the language model and adapter it runs under. `signature` has no outputs when any are taken.

    `asynchronous` says that its own code awaits; else it is run in a thread. With a `contract` of dspy-cli `make` gives
    each execution an instance of its own, as dspy-cli does.
    """

    module: dspy.Module
    lm: GatewayLM
    adapter: Adapter
    signature: Signature
    document: Mapping[str, Any]
    custom: bool
    asynchronous: bool
    contract: Contract | None = None
    make: Callable[[], dspy.Module] | None = None


def build(definition: Mapping[str, Any]) -> Built:
    """Raises Invalid for a definition that makes no module; what users' code raises comes through."""
    if composition_of(definition.get("state")) is not None:
        return _composed(definition)
    lm = language_model_of(definition["lm"])
    kind, config = definition["module"], definition.get("config") or {}
    check_code(definition.get("code"), references_of(config))
    if kind == "pipeline":
        return _pipeline(definition, lm)
    state, custom = definition.get("state"), kind == "custom"
    contract, make = None, None
    if custom:
        if config.get("conventions") == "dspy_cli":
            offer_gateways()
        module = _custom(config)
        if config.get("conventions") == "dspy_cli":
            contract, make = contract_of(module), lambda: _made(config, state)
        own = contract.document if contract is not None else None
        document = definition["signature"] or own or module_signature(module)
    else:
        document = definition["signature"]
        module = _KINDS[kind](signature_class(signature_from_document(document)), config)
        document = _answered(kind, config, document)
    if state is not None:
        _load(module, state, kind)
    return Built(
        module,
        lm,
        adapter_of(definition["adapter"], lm),
        open_signature_from_document(document),
        document,
        custom,
        custom and _awaits(type(module)),
        contract,
        make,
    )


def _composed(definition: Mapping[str, Any]) -> Built:
    """A program that an optimizer composed; it runs in a thread, one instance for all."""
    # It builds what it is made of with this very module.
    from dspex.providers.dspy_worker.optimizing.composing import base_of, composed

    base = base_of(definition)
    module = composed(definition, definition["state"], base)
    return replace(base, module=module, asynchronous=False, make=None)


def _pipeline(document: Mapping[str, Any], lm: GatewayLM) -> Built:
    """Each step built as a program alone is. Its own code awaits when that of all steps does."""
    definition = Definition(**{**document, "lm": LanguageModelChoice(**document["lm"])})
    pipeline = pipeline_of(definition.signature, definition.config)
    built = {name: build(asdict(part)) for name, part in step_definitions(definition).items()}

    def settings(step: Step) -> dict[str, Any]:
        own, parameters = built[step.name], dspy.settings.get(PARAMETERS)
        return {
            "lm": own.lm.copy(**parameters) if parameters else own.lm,
            "adapter": own.adapter,
            STEP: step.name,
        }

    promises = {step.name: Promise(step.answers) for step in pipeline.steps if built[step.name].custom}

    def read(step: Step, prediction: Any) -> Mapping[str, Any]:
        promise = promises.get(step.name)
        return answered(step, prediction) if promise is None else promise.values_of(prediction)

    module = build_pipeline(pipeline, {name: one.module for name, one in built.items()}, settings, read)
    return Built(
        module,
        lm,
        adapter_of(definition.adapter, lm),
        signature_from_document(definition.signature),
        definition.signature,
        custom=False,
        asynchronous=all(
            one.asynchronous if one.custom else hasattr(type(one.module), "aforward")
            for one in built.values()
        ),
    )


def language_model_of(choice: Mapping[str, Any]) -> GatewayLM:
    lm = GatewayLM(provider_model(choice["model"]), alias=choice["alias"], **(choice.get("options") or {}))
    check_options(lm)
    return lm


def adapter_of(name: str, lm: GatewayLM) -> Adapter:
    """A fresh adapter; the two-step one reads its answers with the program's own model."""
    return TwoStepAdapter(lm) if name == "two_step" else _ADAPTERS[name]()


def _custom(config: Mapping[str, Any]) -> dspy.Module:
    made = resolve(config["reference"])
    if isinstance(made, type) and issubclass(made, dspy.Module):
        made = made(**config.get("arguments", {}))
    if not isinstance(made, dspy.Module):
        raise Invalid(
            f"{config['reference']!r} is a {type(made).__name__}, not a dspy.Module; name a class or an instance of "
            "one.",
            code="not_a_module",
        )
    method_of(made)
    return made


def _made(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> dspy.Module:
    module = _custom(config)
    if state is not None:
        _load(module, state, "custom")
    return module


def _awaits(kind: type[dspy.Module]) -> bool:
    """Whether a class's own way is aforward: the nearer of the two, and aforward where one class has both."""

    def distance(name: str) -> int:
        return next((index for index, one in enumerate(kind.__mro__) if name in vars(one)), len(kind.__mro__))

    return distance("aforward") <= distance("forward")


def _load(module: dspy.Module, state: Mapping[str, Any], kind: str) -> None:
    try:
        module.load_state(without_lms(state))
    except KeyError as missing:
        raise Invalid(
            f"The saved state lacks {missing}: it is of another module or signature than this {kind}.",
            code="bad_state",
        ) from None


def _inner(signature: type[dspy.Signature], config: Mapping[str, Any], **more: Any) -> dspy.Module:
    kind = dspy.Predict if config.get("of", "chain_of_thought") == "predict" else dspy.ChainOfThought
    return kind(signature, **more)


def _react(signature: type[dspy.Signature], config: Mapping[str, Any]) -> dspy.Module:
    tools = [resolve(one) for one in config.get("tools", [])]
    return dspy.ReAct(signature, tools=tools, max_iters=config.get("max_iters", 20))


def _program_of_thought(signature: type[dspy.Signature], config: Mapping[str, Any]) -> dspy.Module:
    check_sandbox()
    return dspy.ProgramOfThought(signature, max_iters=config.get("max_iters", 3))


def _rewarded(kind: Callable[..., dspy.Module]) -> Callable[..., dspy.Module]:
    def make(signature: type[dspy.Signature], config: Mapping[str, Any]) -> dspy.Module:
        return kind(
            module=_inner(signature, config),
            N=config.get("n", 3),
            reward_fn=resolve(config["reward"]),
            threshold=config.get("threshold", 1.0),
            fail_count=config.get("fail_count"),
        )

    return make


class ComparedChains(dspy.Module):  # type: ignore[misc]
    """Several chains of thought, held against each other by `dspy.MultiChainComparison`."""

    def __init__(self, signature: type[dspy.Signature], n: int, temperature: float) -> None:
        super().__init__()
        self.attempt = dspy.ChainOfThought(signature, n=n, temperature=temperature)
        self.compare = dspy.MultiChainComparison(signature, M=n, temperature=temperature)

    def forward(self, **inputs: Any) -> dspy.Prediction:
        attempts = self.attempt(**inputs).completions
        return self.compare(list(attempts), **inputs)


class Majority(dspy.Module):  # type: ignore[misc]
    """The answer that most of several candidates give, by `dspy.majority`."""

    def __init__(
        self, signature: type[dspy.Signature], config: Mapping[str, Any], n: int, temperature: float
    ) -> None:
        super().__init__()
        self.vote = _inner(signature, config, n=n, temperature=temperature)
        self._field = config.get("field")
        if self._field is not None and self._field not in signature.output_fields:
            raise Invalid(
                f"config.field is {self._field!r}, which is no output; there are {', '.join(signature.output_fields)}.",
                code="bad_config",
            )

    def forward(self, **inputs: Any) -> dspy.Prediction:
        return dspy.majority(self.vote(**inputs), field=self._field)


def _compared(signature: type[dspy.Signature], config: Mapping[str, Any]) -> dspy.Module:
    return ComparedChains(signature, config.get("n", 3), config.get("temperature", 0.7))


def _majority(signature: type[dspy.Signature], config: Mapping[str, Any]) -> dspy.Module:
    return Majority(signature, config, config.get("n", 5), config.get("temperature", 0.7))


_KINDS: Mapping[str, Callable[[type[dspy.Signature], Mapping[str, Any]], dspy.Module]] = {
    "predict": lambda signature, _: dspy.Predict(signature),
    "chain_of_thought": lambda signature, _: dspy.ChainOfThought(signature),
    "react": _react,
    "program_of_thought": _program_of_thought,
    "best_of_n": _rewarded(dspy.BestOfN),
    "refine": _rewarded(dspy.Refine),
    "multi_chain_comparison": _compared,
    "majority": _majority,
}
# How kinds call what they write down before the outputs; the others run an inner module.
_REASONING: Mapping[str, str | None] = {
    "predict": None,
    "chain_of_thought": "reasoning",
    "react": "reasoning",
    "program_of_thought": "reasoning",
    "multi_chain_comparison": "rationale",
}


def _answered(kind: str, config: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """The signature's document with what this kind answers besides its outputs."""
    name = _REASONING[kind if kind in _REASONING else config.get("of", "chain_of_thought")]
    outputs = list(document["outputs"])
    if name is not None and all(one["name"] != name for one in outputs):
        outputs.insert(0, {"name": name, "type": "str"})
    return {**document, "outputs": outputs}
