"""From the text of replies to events of output fields, for one who watches an execution of one signature."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from dspex.executions.events import Began, Event, FieldDelta, Listener, StatusChanged
from dspex.executions.native.program import Stage
from dspex.executions.native.repairing import Repair, TooSlow
from dspex.executions.native.streaming.chat import ChatFields
from dspex.executions.native.streaming.json_object import JsonFields
from dspex.executions.native.streaming.ports import FieldReader
from dspex.executions.reading import QUICK
from dspex.kit import json
from dspex.signatures.records import Signature
from dspex.signatures.types import NONE, STR, FieldType, UnionOf
from dspex.signatures.values import to_json

# A piece of this length is no stream: its fields are told when it is read.
LONGEST_PIECE = 20_000


class Teller:
    """A gateway's `TextSink`. Fields of type str are told as their text comes, others whole and as JSON text.

    What was told of a field is a beginning of what it becomes. Where that can't be kept (another attempt, another
    adapter, a reply that had to be repaired), a StatusChanged with `restarted` takes all of it back. In the end
    `settle` tells what is missing, so that the deltas of each field always come to its value.
    """

    def __init__(
        self, listener: Listener, outputs: Signature, most_characters: int, step: str | None = None
    ) -> None:
        """`most_characters` are followed of a reply; what is longer can't become outputs either."""
        self._listener = listener
        self._step = step
        self._texts = frozenset(field.name for field in outputs.outputs if is_text(field.type))
        self._most = most_characters
        self._told: dict[str, list[str]] = {}
        self._stage: Stage | None = None
        self._form: str | None = None
        self._reader: FieldReader | None = None
        self._room = 0
        self._reading_s = 0.0
        self._asked = 0

    def began(self, execution_id: str, program: str, version: int | None) -> None:
        self._listener.tell(Began(execution_id, program, version))

    def enter(self, stage: Stage) -> None:
        """The replies that come now are in this stage's form."""
        self._stage, self._reader, self._form = stage, None, stage.adapter

    def follow(self, form: str) -> None:
        """The replies that come now are in the form of this adapter, "chat" or "json"; texts alone are told of them."""
        self._stage, self._reader, self._form = None, None, form

    def begin(self, model: str) -> None:
        self._asked += 1
        again = "" if self._asked == 1 else " again"
        form = ", for JSON" if self._asked > 1 and self._stage and self._form == "json" else ""
        self._say(f"The model {model} is asked{again}{form}.")
        stage, self._room, self._reading_s = self._stage, self._most, 0.0
        if self._form is None:
            return
        outputs = () if stage is None else stage.parser.outputs
        others = frozenset(output.name for output in outputs) - self._texts
        kind = ChatFields if self._form == "chat" else JsonFields
        self._reader = kind(self._texts, others, self)

    def add(self, text: str) -> None:
        self._room -= len(text)
        if self._reader is None:
            return
        if self._room < 0 or len(text) > LONGEST_PIECE:
            self._reader = None
            return
        self._reader.add(text)

    def text(self, name: str, more: str) -> None:
        self._told.setdefault(name, []).append(more)
        self._listener.tell(FieldDelta(name, more, self._step))

    def whole(self, name: str, raw: Any) -> None:
        """Told now if that can be read at once; else when everything is."""
        if self._stage is None or self._reading_s > QUICK.seconds:
            return
        if isinstance(raw, str) and not QUICK.takes(raw):
            return
        parse = next(output.parse for output in self._stage.parser.outputs if output.name == name)
        started = time.perf_counter()
        try:
            told = as_text(to_json(parse(raw, Repair(QUICK.seconds))))
        except (ValueError, TooSlow, RecursionError, MemoryError):
            # Whoever reads the whole reply will meet it again, and say so.
            return
        finally:
            self._reading_s += time.perf_counter() - started
        self.text(name, told)

    def of_step(self, step: str, outputs: Signature, names: Mapping[str, Sequence[str]]) -> "Teller":
        """For a step of a pipeline, told as this one's: `names` are the outputs of the whole that a field is."""
        return Teller(_Renamed(self, names), outputs, self._most, step)

    def relay(self, event: FieldDelta | StatusChanged) -> None:
        """What a step told of outputs of the whole."""
        if isinstance(event, FieldDelta):
            self._told.setdefault(event.name, []).append(event.delta)
        self._listener.tell(event)

    def forget(self, names: Iterable[str]) -> None:
        """What was told of these is void."""
        for name in names:
            self._told.pop(name, None)

    def take_back(self, message: str) -> None:
        """Says that nothing comes of what was told, if anything was."""
        if self._told:
            self._say(message)

    def settle(self, outputs: Mapping[str, Any]) -> None:
        """`outputs` are final: what was not told of them yet is told now."""
        final = {
            name: (value or "") if name in self._texts else as_text(value) for name, value in outputs.items()
        }
        told = {name: "".join(parts) for name, parts in self._told.items()}
        if any(not final.get(name, "").startswith(text) for name, text in told.items()):
            self._say("The reply was read anew.")
            told = {}
        for name, text in final.items():
            rest = text[len(told.get(name, "")) :]
            if rest:
                self.text(name, rest)
        # It refers to this, which refers to it.
        self._reader = None

    def _say(self, message: str) -> None:
        """Takes back what was told."""
        self._listener.tell(StatusChanged(message, restarted=bool(self._told), step=self._step))
        self._told.clear()


class _Renamed:
    """A step's listener: its fields go by the names they have in the whole, those that stay inside are not told."""

    def __init__(self, whole: Teller, names: Mapping[str, Sequence[str]]) -> None:
        self._whole = whole
        self._names = names

    def tell(self, event: Event) -> None:
        if isinstance(event, FieldDelta):
            for name in self._names.get(event.name, ()):
                self._whole.relay(replace(event, name=name))
        elif isinstance(event, StatusChanged):
            if event.restarted:
                self._whole.forget(name for names in self._names.values() for name in names)
            self._whole.relay(event)


def is_text(type_: FieldType) -> bool:
    """Whether a field's value is the text itself: str, or str that may be absent."""
    if isinstance(type_, UnionOf):
        return set(type_.options) == {STR, NONE}
    return type_ == STR


def as_text(value: Any) -> str:
    """A value that is no text, as JSON."""
    return json.dumps(value).decode()
