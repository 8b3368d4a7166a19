"""What the programs room needs from outside."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from dspex.jobs.records import Job
from dspex.kit.paging import Page
from dspex.programs.records import CompiledDocument, Definition, Deployment, Program, Showing, Version


class Compiled(Struct, frozen=True):
    """`document` is the compiled document, `saved_state` DSPy's own save format."""

    document: Mapping[str, Any]
    saved_state: Mapping[str, Any]


class Refused(Struct, frozen=True):
    """The definition can't be compiled exactly. `kind` is "invalid" when it is wrong in itself."""

    reason: str
    kind: str = "unsupported"


class Compiler(Protocol):
    """Real DSPy, in a process of its own."""

    async def compile(self, definitions: Sequence[Definition]) -> list[Compiled | Refused]:
        """One outcome for each definition, in order. Raises Unavailable when there is no compiler here."""
        ...


class Inspector(Protocol):
    """Real DSPy in pools: imports and builds programs without running them."""

    async def inspect(self, definitions: Sequence[Definition]) -> list[Compiled | Refused]:
        """One outcome for each definition, in order. Raises Unavailable when there is no pool here."""
        ...


class SignatureReader(Protocol):
    """Real DSPy in pools: imports `dspy.Signature` classes."""

    async def signatures(self, references: Sequence[str]) -> list[Mapping[str, Any] | Refused]:
        """The document of each "package.module:Class", in order. Raises Unavailable when there is no pool here."""
        ...


class ProgramReader(Protocol):
    async def get(self, project: str, name: str) -> Program | None:
        """By name, archived ones too."""
        ...

    async def list(
        self, project: str, *, include_archived: bool, limit: int, cursor: str | None
    ) -> Page[Program]:
        """Ordered by name."""
        ...

    async def version(self, project: str, version_id: str) -> Version | None: ...

    async def version_by_number(self, project: str, program_id: str, number: int) -> Version | None: ...

    async def version_by_digest(self, project: str, program_id: str, digest: str) -> Version | None: ...

    async def versions(
        self, project: str, program_id: str, *, limit: int, cursor: str | None
    ) -> Page[Version]:
        """Newest number first."""
        ...

    async def version_statuses(self, project: str, program_ids: Sequence[str]) -> dict[str, set[str]]:
        """The statuses that occur among each program's versions."""
        ...

    async def deployments(self, project: str, program_id: str) -> Sequence[Deployment]:
        """All of them, newest first: what a rollback goes back to may lie behind any number of others."""
        ...

    async def deployed(self) -> Sequence[tuple[str, Version]]:
        """The deployed version of every program that is not archived, in all projects, with the program's name."""
        ...

    async def showing(
        self,
        project: str,
        *,
        row_id: str | None = None,
        dataset: str | None = None,
        versions: Sequence[int] = (),
    ) -> Sequence[Showing]:
        """Versions with demos from a row, or from any row of these versions of a dataset, by program and number."""
        ...

    async def compiled(self, project: str, digest: str) -> CompiledDocument | None: ...

    async def have_compiled(self, project: str, digests: Sequence[str]) -> set[str]:
        """Those of these digests, a thousand at most, that a document is kept under."""
        ...


class ProgramStore(ProgramReader, Protocol):
    async def add(self, program: Program, *versions: Version) -> None:
        """The program and its first versions, in one transaction; their numbers are stored as given.

        Raises Conflict (code program_exists) when the project has a program of this name.
        """
        ...

    async def update(self, program: Program) -> None:
        """Replaces description, settings, source, updated_at and archived_at; raises Missing."""
        ...

    async def add_version(self, version: Version) -> Version:
        """Stores it with the next number of its program (`version.number` is ignored), atomically."""
        ...

    async def update_version(self, version: Version, *, expected_status: str) -> None:
        """Replaces status, executor, reason, error, compiled_digest.

        Raises Conflict (code version_changed) when the stored status is not `expected_status`.
        """
        ...

    async def deploy(
        self, program: Program, version: Version, deployment: Deployment, *, by: Job | None = None
    ) -> None:
        """In one transaction: the version that was deployed steps back to ready (optimized when it has a
        parent), this one becomes deployed, the program points to it, the history gets its line.

        A job deploys only while it is on record as it was begun and nobody has asked for its end. Raises Missing,
        Conflict: version_changed, program_archived, whatever `program` says of it; job_state.
        """
        ...

    async def add_compiled(self, compiled: CompiledDocument) -> None:
        """Does nothing when the digest is already there."""
        ...
