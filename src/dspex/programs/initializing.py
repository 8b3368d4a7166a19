"""Making versions executable: compiled documents found again, the rest compiled by DSPy."""

from collections import defaultdict
from collections.abc import Sequence

from msgspec.structs import replace

from dspex.kit.clock import Clock
from dspex.kit.errors import Conflict, DspexError, Invalid
from dspex.programs.ports import Compiled, Compiler, ProgramStore, Refused
from dspex.programs.records import EXECUTABLE, CompiledDocument, Definition, Version
from dspex.programs.rules import check_transition, compiled_digest

# Of one run of the worker, whose time is limited.
RUN = 100
EXACT = "exact: compiled by DSPy and checked against it"
# Of one question to the database.
ASKED = 1000


class Initializing:
    """What can run is decided by one thing: a compiled document under the digest that this release gives it.

    Releases that run side by side keep theirs side by side.
    """

    def __init__(self, store: ProgramStore, compiler: Compiler, clock: Clock) -> None:
        self._store = store
        self._compiler = compiler
        self._clock = clock

    async def unready(self, versions: Sequence[Version]) -> list[Version]:
        """Those that can't run here: not initialized, or compiled by other releases only."""
        uncompiled = await self._uncompiled(versions)
        return [one for one in versions if one.status not in EXECUTABLE or one.id in uncompiled]

    async def initialize(self, versions: Sequence[Version]) -> list[Version]:
        """Makes versions executable: compiled documents found again, the rest compiled together.

        A refused definition leaves its version in `error`, or as it is when other releases can run it, with the
        reason. Raises Conflict for a version that can't be initialized, as one that can run already; and, once
        the others are done, Unavailable or TimedOut when the compiler is missing, dies or hangs (its versions have
        that for their reason).
        """
        uncompiled = await self._uncompiled(versions)
        started = [await self._start(version, uncompiled) for version in versions]
        waiting = [version for version in started if version.id in uncompiled]
        outcomes: list[Compiled | DspexError | Refused] = []
        for first in range(0, len(waiting), RUN):
            outcomes += await self._compile([one.definition for one in waiting[first : first + RUN]])
        of = dict(zip((version.id for version in waiting), outcomes, strict=True))
        concluded = [await self._conclude(version, of.get(version.id)) for version in started]
        for outcome in outcomes:
            if isinstance(outcome, DspexError):
                raise outcome
        return concluded

    async def check_state(self, project: str, definition: Definition) -> None:
        """Compiles a definition with a new state before it becomes a version.

        Raises Invalid (code bad_state) when DSPy refuses it, Unavailable or TimedOut as `initialize`.
        """
        digest = compiled_digest(definition)
        if await self._store.have_compiled(project, [digest]):
            return
        (outcome,) = await self._compiler.compile([definition])
        if isinstance(outcome, Refused):
            raise Invalid(f"With this state the program can't run: {outcome.reason}", code="bad_state")
        await self._keep(project, digest, outcome)

    async def _uncompiled(self, versions: Sequence[Version]) -> set[str]:
        """The ids of those that this release has to compile before they can run."""
        wanted = {
            one.id: (one.project, compiled_digest(one.definition))
            for one in versions
            if one.definition.mock is None
        }
        asked: defaultdict[str, list[str]] = defaultdict(list)
        for project, digest in dict.fromkeys(wanted.values()):
            asked[project].append(digest)
        kept: set[tuple[str, str]] = set()
        for project, digests in asked.items():
            for first in range(0, len(digests), ASKED):
                found = await self._store.have_compiled(project, digests[first : first + ASKED])
                kept.update((project, digest) for digest in found)
        return {version_id for version_id, place in wanted.items() if place not in kept}

    async def _start(self, version: Version, uncompiled: set[str]) -> Version:
        """The version, initializing; or as another node has made it executable meanwhile.

        One that other releases can run stays what it is while it is compiled for this one.
        """
        if version.status in EXECUTABLE and version.id in uncompiled:
            return version
        check_transition(version.status, "initializing")
        started = replace(version, status="initializing", error=None)
        try:
            await self._store.update_version(started, expected_status=version.status)
        except Conflict:
            stored = await self._store.version(version.project, version.id)
            if stored is None or stored.status not in {"initializing", *EXECUTABLE}:
                raise
            return stored
        return started

    async def _compile(self, definitions: Sequence[Definition]) -> list[Compiled | DspexError | Refused]:
        try:
            return [*await self._compiler.compile(definitions)]
        except DspexError as error:
            if len(definitions) == 1 or error.code != "compiler_failed":
                return [error] * len(definitions)
        # One of them is guilty; the others should not suffer for it.
        half = len(definitions) // 2
        return [*await self._compile(definitions[:half]), *await self._compile(definitions[half:])]

    async def _conclude(self, version: Version, outcome: Compiled | DspexError | Refused | None) -> Version:
        done = version.status if version.status in EXECUTABLE else "ready"
        if version.definition.mock is not None:
            after = replace(version, status=done, executor="mock", executor_reason="asked for")
        elif isinstance(outcome, Refused | DspexError):
            reason = outcome.reason if isinstance(outcome, Refused) else outcome.message
            status = version.status if version.status in EXECUTABLE else "error"
            after = replace(version, status=status, error=reason)
        else:
            digest = compiled_digest(version.definition)
            if outcome is not None:
                await self._keep(version.project, digest, outcome)
            found = outcome or await self._store.compiled(version.project, digest)
            document = found.document if found is not None else {}
            pooled = document.get("executor") == "pool"
            after = replace(
                version,
                status=done,
                error=None,
                executor="pool" if pooled else "native",
                executor_reason=document["reason"] if pooled else EXACT,
                compiled_digest=digest,
                signature=document["signature"] if pooled else None,
            )
        return version if after == version else await self._finish(version, after)

    async def _keep(self, project: str, digest: str, compiled: Compiled) -> None:
        now = self._clock.now()
        await self._store.add_compiled(
            CompiledDocument(digest, project, compiled.document, compiled.saved_state, now)
        )

    async def _finish(self, before: Version, after: Version) -> Version:
        if after.status != before.status:
            check_transition(before.status, after.status)
        try:
            await self._store.update_version(after, expected_status=before.status)
        except Conflict:
            # Another node initialized the same version meanwhile; compiling is deterministic, so its result is ours.
            stored = await self._store.version(before.project, before.id)
            if stored is None or stored.status not in EXECUTABLE:
                raise
            return stored
        return after
