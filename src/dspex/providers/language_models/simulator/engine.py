"""The simulator itself, without any transport: a call goes in, an outcome comes out."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from dspex.gateway.records import Message, Usage
from dspex.providers.language_models.simulator.answers import (
    draw_fields,
    format_schema,
    plain_answer,
    schema_answer,
    write_fields,
)
from dspex.providers.language_models.simulator.draws import Draws, digest
from dspex.providers.language_models.simulator.embeddings import DEFAULT_DIMENSIONS, embed
from dspex.providers.language_models.simulator.faults import Fault, FaultRule, Latency, find_fault
from dspex.providers.language_models.simulator.prompts import Prompt, read_prompt
from dspex.providers.language_models.simulator.proposing import propose_fields, propose_text
from dspex.providers.language_models.simulator.scripts import Script, ScriptReader
from dspex.providers.language_models.simulator.teaching import taught_fields
from dspex.providers.language_models.simulator.tuning import Tuning

_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4
_REPEATED_REQUESTS_KEPT = 10_000


class SimulatorOptions(Struct, frozen=True):
    """`latency` is the time to the whole reply, or to a stream's first chunk; `chunk_interval` the seconds
    between a stream's chunks. `kept_calls` bounds how many request bodies are kept for the control address.
    """

    seed: int = 0
    latency: Latency = field(default_factory=Latency)
    chunk_interval: float = 0.0
    faults: tuple[FaultRule, ...] = ()
    script: Script = field(default_factory=Script)
    teach: bool = False
    kept_calls: int = 100


class SimulatedCall(Struct, frozen=True):
    """`rollout_id` tells repeated samples of one prompt apart, as DSPy's does.

    Without it and a seed, teachable mode counts the repetitions of a request at a temperature above 0, since
    optimizers ask the same again to get something else.
    """

    messages: tuple[Message, ...]
    seed: int | None = None
    rollout_id: int | None = None
    temperature: float | None = None
    response_format: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    choices: int = 1
    # One that was fine-tuned knows more.
    model: str | None = None


class Answer(Struct, frozen=True):
    text: str
    finish_reason: str


class Outcome(Struct, frozen=True):
    """What happens to one call: wait `delay` seconds, then the answers or the fault.

    `number` counts calls from 0 since the last reset. The faults `empty` and `missing_marker` are already
    in the answers; the others concern the transport.
    """

    number: int
    id: str
    delay: float
    answers: tuple[Answer, ...]
    usage: Usage
    fault: Fault | None


class Embedded(Struct, frozen=True):
    """What happens to one call for embeddings, as with `Outcome`."""

    vectors: tuple[tuple[float, ...], ...]
    tokens: int
    delay: float
    fault: Fault | None


class Simulator:
    """Answers calls and remembers what it was asked. One event loop; not for several threads."""

    def __init__(self, options: SimulatorOptions | None = None) -> None:
        self.options = options or SimulatorOptions()
        self.bodies: deque[object] = deque(maxlen=self.options.kept_calls)
        self.counts: dict[str, int] = {}
        self.reset()

    def reset(self) -> None:
        """Back to the options it was started with: counts at 0, script and faults as at the start."""
        self.calls = 0
        self.tuning = Tuning()
        self.bodies.clear()
        self.counts = {"answered": 0, "embeddings": 0}
        self._script = ScriptReader(self.options.script)
        self._faults: Sequence[FaultRule] = self.options.faults
        self._latency = self.options.latency
        self.chunk_interval = self.options.chunk_interval
        self._repetitions: dict[bytes, int] = {}

    def set_script(self, script: Script) -> None:
        self._script = ScriptReader(script)

    def set_faults(self, faults: Sequence[FaultRule]) -> None:
        self._faults = faults

    def set_latency(self, latency: Latency) -> None:
        self._latency = latency

    def left(self) -> None:
        """Counts a client that did not wait for the end of a stream."""
        self.counts["left"] = self.counts.get("left", 0) + 1

    def answer(self, call: SimulatedCall, body: object = None) -> Outcome:
        """Decide one call. `body` is what is kept of it: the request as it came.

        The answers depend on messages, seed, rollout and the simulator's own seed only; delay and faults
        depend on the call's number.
        """
        number = self.calls
        self.calls += 1
        self.bodies.append(call if body is None else body)
        prompt = read_prompt(call.messages)
        last_user = next((m.content for m in reversed(call.messages) if m.role == "user"), "")
        rule = self._script.next_rule(number, last_user, prompt)
        fault = rule.fault if rule is not None else find_fault(self._faults, self.options.seed, number)
        kind = "answered" if fault is None else fault.kind
        self.counts[kind] = self.counts.get(kind, 0) + 1
        parts = [part for message in call.messages for part in (message.role, message.content)]
        key = digest(self.options.seed, call.seed, call.rollout_id, *parts)
        repetition = self._count_repetition(call, key)
        if repetition:
            key = digest(key, "repetition", repetition)
            call = replace(call, rollout_id=repetition)
        answers: list[Answer] = []
        for choice in range(call.choices):
            choice_key = key if choice == 0 else digest(key, choice)
            if rule is not None and rule.text is not None:
                text = rule.text
            else:
                text = self._answer_text(
                    call, prompt, last_user, choice_key, rule.fields if rule else None, fault
                )
            answers.append(_cut(text, call.max_tokens))
        return Outcome(
            number=number,
            id=f"chatcmpl-simulated-{key[:12].hex()}",
            delay=self._latency.seconds(self.options.seed, number),
            answers=tuple(answers),
            usage=_usage(call.messages, answers),
            fault=fault,
        )

    def embed(self, texts: Sequence[str], dimensions: int | None = None, body: object = None) -> Embedded:
        """The vectors of texts, DEFAULT_DIMENSIONS long unless told. Delay and fault depend on how many such calls

        there were; of the faults, those that concern the text do not strike.
        """
        number = self.counts["embeddings"]
        self.counts["embeddings"] += 1
        self.bodies.append(body)
        return Embedded(
            tuple(embed(text, dimensions or DEFAULT_DIMENSIONS) for text in texts),
            sum(map(count_tokens, texts)),
            self._latency.seconds(self.options.seed, number),
            find_fault(self._faults, self.options.seed, number),
        )

    def _count_repetition(self, call: SimulatedCall, key: bytes) -> int:
        if (
            not (self.options.teach and call.temperature)
            or call.seed is not None
            or call.rollout_id is not None
        ):
            return 0
        repetition = self._repetitions.pop(key, 0)
        self._repetitions[key] = repetition + 1
        if len(self._repetitions) > _REPEATED_REQUESTS_KEPT:
            del self._repetitions[next(iter(self._repetitions))]
        return repetition

    def _answer_text(
        self,
        call: SimulatedCall,
        prompt: Prompt | None,
        last_user: str,
        key: bytes,
        scripted: Mapping[str, Any] | None,
        fault: Fault | None,
    ) -> str:
        if fault is not None and fault.kind == "empty":
            return ""
        draws = Draws(key)
        if prompt is None:
            proposal = propose_text(last_user, draws) if self.options.teach else None
            if proposal is not None:
                return proposal
            schema = format_schema(call.response_format)
            return plain_answer(last_user, draws) if schema is None else schema_answer(schema, draws)
        known: Mapping[str, Any] = {}
        if scripted is not None:
            known = scripted
        elif self.options.teach:
            sample = (
                None if call.seed is None and call.rollout_id is None else digest(call.seed, call.rollout_id)
            )
            known = propose_fields(prompt, draws) or taught_fields(
                prompt, self.options.seed, sample, self.tuning.gains(call.model)
            )
        fields = draw_fields(prompt, draws, call.response_format, known)
        if fault is not None and fault.kind == "missing_marker":
            fields.popitem()
        return write_fields(prompt, fields)


def count_tokens(text: str) -> int:
    """About four characters a token, at least one for any text."""
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def _cut(text: str, max_tokens: int | None) -> Answer:
    if max_tokens is None or count_tokens(text) <= max_tokens:
        return Answer(text, "stop")
    return Answer(text[: max_tokens * _CHARACTERS_PER_TOKEN], "length")


def _usage(messages: Sequence[Message], answers: Sequence[Answer]) -> Usage:
    sent = sum(count_tokens(message.content) + _TOKENS_PER_MESSAGE for message in messages)
    received = sum(count_tokens(answer.text) for answer in answers)
    return Usage(input_tokens=sent, output_tokens=received, total_tokens=sent + received)
