"""A compiler that does as it is told."""

import asyncio
from collections.abc import Sequence

import pytest

from dspex.kit.errors import TimedOut, Unavailable
from dspex.programs import rules
from dspex.programs.ports import Compiled, Refused
from dspex.programs.records import Definition, LanguageModelChoice

LM = LanguageModelChoice("main", "openai/gpt-4o-mini", {})
DOCUMENT = Compiled({"v": 1}, {"demos": []})


def upgrade(patch: pytest.MonkeyPatch, release: str) -> None:
    """From here on documents are those of another release of DSPex or of its parsers."""
    patch.setattr(rules, "_form", release.encode)


class Compiler:
    """Counts its runs; holds them back while `gate` is closed."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.outcome: Compiled | Refused | Exception = DOCUMENT
        self.gate = asyncio.Event()
        self.gate.set()
        self.too_slow: Definition | None = None
        self.deadly: Definition | None = None

    async def compile(self, definitions: Sequence[Definition]) -> list[Compiled | Refused]:
        self.runs.append(len(definitions))
        await self.gate.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if self.too_slow in definitions:
            raise TimedOut("Compiling took more than 120 s and was stopped.", code="compile_timeout")
        if self.deadly in definitions:
            raise Unavailable("The compiler ended with status -11.", code="compiler_failed")
        return [self.outcome for _ in definitions]

    async def busy(self, runs: int) -> None:
        """Returns when that many runs have begun."""
        while len(self.runs) < runs:
            await asyncio.sleep(0)
