"""Signatures that are classes in Python, as documents: read once for each state of their files."""

from collections.abc import Mapping
from typing import Any

from dspex.configuration.pipelines import PipelineEntry
from dspex.kit.clock import Clock
from dspex.kit.errors import Invalid, Problem
from dspex.programs.definitions import CodeDigest, code_not_allowed
from dspex.programs.kinds import is_reference
from dspex.programs.ports import ProgramStore, Refused, SignatureReader
from dspex.programs.records import COMPILED_FORMAT, CompiledDocument
from dspex.programs.rules import signature_digest

Written = str | Mapping[str, Any] | None


class PythonSignatures:
    """Kept beside compiled documents, so that a start with files that have not changed needs no worker."""

    def __init__(self, store: ProgramStore, reader: SignatureReader, clock: Clock) -> None:
        self._store = store
        self._reader = reader
        self._clock = clock

    async def pipeline(self, project: str, entry: PipelineEntry, code: CodeDigest | None) -> PipelineEntry:
        """With the documents of the steps' signatures. Raises as `resolved`, with pointers to the steps."""
        steps = [
            one.model_copy(
                update={
                    "signature": await self.resolved(
                        project, one.signature, code, at=f"/pipeline/steps/{index}/signature"
                    )
                }
            )
            for index, one in enumerate(entry.steps)
        ]
        return entry.model_copy(update={"steps": steps})

    async def resolved(
        self, project: str, signature: Written, code: CodeDigest | None, *, at: str = "/signature"
    ) -> Written:
        """A signature as it was written, or the document of the class that it names.

        Raises Invalid that points to `at`: code_not_allowed without `code`, bad_reference for a class that is
        not there, bad_signature for one that can't be read or has no exact document; Unavailable without a pool.
        """
        if not is_reference(signature):
            return signature
        if code is None:
            raise code_not_allowed([signature], at)
        digest = signature_digest(signature, _digest(signature, code, at))
        kept = await self._store.compiled(project, digest)
        if kept is None:
            (found,) = await self._reader.signatures([signature])
            if isinstance(found, Refused):
                raise _refused(signature, found.reason, "bad_signature", at)
            document = {"v": COMPILED_FORMAT, "reference": signature, "signature": found}
            kept = CompiledDocument(digest, project, document, {}, self._clock.now())
            await self._store.add_compiled(kept)
        resolved: Mapping[str, Any] = kept.document["signature"]
        return resolved


def _digest(reference: str, code: CodeDigest, at: str) -> str:
    try:
        return code([reference])
    except Invalid as error:
        raise _refused(reference, error.message, error.code, at) from None


def _refused(reference: str, reason: str, code: str, at: str) -> Invalid:
    return Invalid(
        f"The signature {reference!r} can't be used: {reason}",
        code=code,
        problems=[Problem(at, code, reason)],
    )
