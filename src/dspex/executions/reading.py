"""Where a reply is read: on the event loop as long as that takes milliseconds, else in a process apart.

A thread would not do: it can't be stopped, it shares the interpreter's lock with the event loop, and a process waits
for its threads before it ends.
"""

from typing import Protocol

from msgspec import Struct

from dspex.executions.native.answers import Answer, judged, question, understood
from dspex.executions.native.program import CompiledProgram, Stage
from dspex.executions.native.repairing import Repair, TooSlow
from dspex.executions.ports import ReadingProcess
from dspex.kit.clock import Clock
from dspex.signatures.records import Signature
from dspex.signatures.validation import OutputChecker


class Quick(Struct, frozen=True):
    """What is read on the event loop: texts of so many characters, with so many marks that begin or part values,

    whose repair takes so many seconds. Together some 20 ms at worst.
    """

    characters: int = 20_000
    marks: int = 1000
    seconds: float = 0.01

    def takes(self, text: str) -> bool:
        return (
            len(text) <= self.characters and text.count(",") + text.count("[") + text.count("{") <= self.marks
        )


QUICK = Quick()


class Answering(Protocol):
    """What replies are checked against: a runnable, or a step of one."""

    @property
    def outputs(self) -> Signature: ...

    @property
    def checker(self) -> OutputChecker: ...


class ReplyReader:
    """Stateless; `output_bytes` is the limit of outputs as JSON."""

    def __init__(
        self, process: ReadingProcess, clock: Clock, output_bytes: int, quick: Quick = QUICK
    ) -> None:
        self._process = process
        self._clock = clock
        self._output_bytes = output_bytes
        self._quick = quick

    async def read(
        self, program: CompiledProgram, answering: Answering, stage: Stage, text: str | None, deadline: float
    ) -> Answer:
        """By `deadline` on the clock's monotonic time. Raises as `Stage.read` and `judged`, or as the process."""
        if not text or self._quick.takes(text):
            try:
                values = stage.read(text, Repair(self._quick.seconds))
                return judged(values, answering.checker, self._output_bytes)
            except TooSlow:
                pass
        asked = question(stage, program.outputs, answering.outputs, text or "", self._output_bytes)
        left_s = max(deadline - self._clock.monotonic(), 0.0)
        return understood(await self._process.ask(asked, timeout_s=left_s))
