"""Compiling what belongs to no program: once for each definition, whoever asks, however many at once."""

import asyncio
from collections import OrderedDict

from msgspec import Struct, field

from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Exhausted, Invalid, TimedOut
from dspex.programs.ports import Compiled, Compiler, ProgramStore, Refused
from dspex.programs.records import CompiledDocument, Definition
from dspex.programs.rules import compiled_digest

RUNS = 2
BATCH = 16
QUEUE = 64
REFUSALS_KEPT = 1000
# What took too long would take as long again.
TOO_LONG_KEPT_S = 600.0

_Key = tuple[str, str]


class _Job(Struct):
    """A definition that somebody waits for; nobody waits any more when `callers` is 0."""

    definition: Definition
    done: "asyncio.Future[CompiledDocument]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    callers: int = 0


class AdhocCompiling:
    """One for each process. At most RUNS worker runs at once, each for up to BATCH definitions that wait."""

    def __init__(self, store: ProgramStore, compiler: Compiler, clock: Clock) -> None:
        self._store = store
        self._compiler = compiler
        self._clock = clock
        self._waiting: OrderedDict[_Key, _Job] = OrderedDict()
        self._compiling: dict[_Key, _Job] = {}
        self._runs: set[asyncio.Task[None]] = set()
        # Asking again for what DSPy refuses should not start a process again.
        self._refused: OrderedDict[str, tuple[float, DspexError]] = OrderedDict()

    async def compile(self, project: str, definition: Definition) -> CompiledDocument:
        """The compiled document of a definition, compiled the first time it is seen.

        Raises Invalid (code not_native) when it is refused, Exhausted when too many wait, TimedOut when compiling
        takes too long, Unavailable without a compiler. What nobody waits for any more is not compiled.
        """
        digest = compiled_digest(definition)
        stored = await self._store.compiled(project, digest)
        if stored is not None:
            return stored
        self._check_refused(digest)
        key = (project, digest)
        job = self._compiling.get(key) or self._waiting.get(key) or self._enqueue(key, definition)
        job.callers += 1
        try:
            # The first caller going away must not fail the others who wait for it.
            return await asyncio.shield(job.done)
        finally:
            job.callers -= 1
            if not job.callers and self._waiting.get(key) is job:
                del self._waiting[key]

    def _check_refused(self, digest: str) -> None:
        until, error = self._refused.get(digest, (0.0, None))
        if error is None:
            return
        if until < self._clock.monotonic():
            del self._refused[digest]
            return
        raise type(error)(error.message, code=error.code)

    def _enqueue(self, key: _Key, definition: Definition) -> _Job:
        if len(self._waiting) >= QUEUE:
            raise Exhausted(
                f"{QUEUE} signatures are waiting to be compiled; try again in a while, or register the program "
                "so that it is compiled once.",
                code="compile_queue_full",
                retry_after=10,
            )
        job = self._waiting[key] = _Job(definition)
        if len(self._runs) < RUNS:
            run = asyncio.create_task(self._run())
            self._runs.add(run)
            run.add_done_callback(self._runs.discard)
        return job

    async def _run(self) -> None:
        # The next turn of the loop: those who ask at the same moment share a worker.
        await asyncio.sleep(0)
        while self._waiting:
            batch = [self._waiting.popitem(last=False) for _ in range(min(BATCH, len(self._waiting)))]
            self._compiling.update(batch)
            try:
                await self._compile(batch)
            finally:
                for key, job in batch:
                    del self._compiling[key]
                    if not job.done.done():
                        job.done.cancel()

    async def _compile(self, batch: list[tuple[_Key, _Job]]) -> None:
        try:
            outcomes = await self._compiler.compile([job.definition for _, job in batch])
        except DspexError as error:
            if len(batch) > 1 and error.code != "no_compiler":
                # One of them is guilty; the others should not suffer for it.
                for one in batch:
                    await self._compile([one])
                return
            for key, job in batch:
                if isinstance(error, TimedOut):
                    self._refuse(key, error, TOO_LONG_KEPT_S)
                _fail(job, error)
            return
        for (key, job), outcome in zip(batch, outcomes, strict=True):
            await self._settle(key, job, outcome)

    async def _settle(self, key: _Key, job: _Job, outcome: Compiled | Refused) -> None:
        project, digest = key
        if isinstance(outcome, Refused):
            refused = Invalid(f"This can't run: {outcome.reason}", code="not_native")
            self._refuse(key, refused, float("inf"))
            _fail(job, refused)
            return
        compiled = CompiledDocument(digest, project, outcome.document, outcome.saved_state, self._clock.now())
        try:
            await self._store.add_compiled(compiled)
        except DspexError as error:
            _fail(job, error)
        else:
            if not job.done.done():
                job.done.set_result(compiled)

    def _refuse(self, key: _Key, error: DspexError, for_s: float) -> None:
        self._refused[key[1]] = (self._clock.monotonic() + for_s, error)
        if len(self._refused) > REFUSALS_KEPT:
            self._refused.popitem(last=False)


def _fail(job: _Job, error: DspexError) -> None:
    if job.done.done():
        return
    if job.callers:
        job.done.set_exception(type(error)(error.message, code=error.code, retry_after=error.retry_after))
    else:
        job.done.cancel()
