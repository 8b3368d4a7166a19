"""From a reply to what is recorded of it; in this process, or asked of another as a question of bytes."""

import json
import traceback
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from msgspec import Struct

from dspex.executions.errors import AdapterParseError, OutputTooLarge, UnreadableReply
from dspex.executions.native.parsing import ReplyParser
from dspex.executions.native.program import Stage, outputs_of, read
from dspex.executions.native.repairing import Repair
from dspex.gateway.errors import LMUnexpectedError
from dspex.kit import json as exact_json
from dspex.kit.errors import DspexError
from dspex.signatures.document import signature_from_document, signature_to_document
from dspex.signatures.records import Signature
from dspex.signatures.validation import OutputChecker
from dspex.signatures.values import outputs_to_json

DEEPEST = 200
_ERRORS: dict[str, type[DspexError]] = {
    one.__name__: one for one in (AdapterParseError, LMUnexpectedError, OutputTooLarge, UnreadableReply)
}
# Lone surrogates, which a reply may hold, have no UTF-8.
_UTF8 = ("utf-8", "surrogatepass")


class Answer(Struct, frozen=True):
    """The outputs as JSON values, their size in bytes, and which constraints they break that DSPy does not enforce.

    `values` are the typed outputs, where they were read in this process.
    """

    outputs: Mapping[str, Any]
    size: int
    violations: tuple[Mapping[str, str], ...] = ()
    values: Mapping[str, Any] | None = None


def judged(values: Mapping[str, Any], checker: OutputChecker, output_bytes: int) -> Answer:
    """Typed outputs as an answer. Raises UnreadableReply when nested too deeply, OutputTooLarge."""
    if (
        largest := max((len(one) for one in values.values() if isinstance(one, str)), default=0)
    ) > output_bytes:
        raise OutputTooLarge(
            f"An output has {largest} characters, more than the limit of {output_bytes} bytes."
        )
    try:
        outputs = outputs_to_json(values)
        size = len(exact_json.dumps(outputs))
    except (RecursionError, ValueError):
        raise UnreadableReply("The model's outputs are nested too deeply.") from None
    if exact_json.nests_deeper_than(outputs, DEEPEST):
        raise UnreadableReply(f"The model's outputs are nested more than {DEEPEST} levels deep.")
    if size > output_bytes:
        raise OutputTooLarge(f"The outputs take {size} bytes, more than the limit of {output_bytes}.")
    violations = checker.violations(values)
    return Answer(
        outputs,
        size,
        tuple({"pointer": one.pointer, "code": one.code, "message": one.message} for one in violations),
        values,
    )


def question(
    stage: Stage, outputs: Sequence[Mapping[str, Any]], signature: Signature, text: str, output_bytes: int
) -> bytes:
    """What `answer` reads. `outputs` are those of the compiled document, `signature` is what they are checked by."""
    head = {
        "reading": json.dumps([outputs, signature_to_document(signature)]),
        "adapter": stage.adapter,
        "finite_only": stage.finite_only,
        "output_bytes": output_bytes,
    }
    return json.dumps(head).encode() + b"\n" + text.encode(*_UTF8)


def answer(asked: bytes) -> bytes:
    """Reads a reply, whatever time it takes. Every failure is part of the answer."""
    head, _, text = asked.partition(b"\n")
    try:
        found = _read(json.loads(head), text.decode(*_UTF8))
        told: dict[str, Any] = {"outputs": found.outputs, "size": found.size, "violations": found.violations}
    except DspexError as error:
        told = {"error": type(error).__name__, "message": error.message, "code": error.code}
    except Exception:
        told = {"defect": traceback.format_exc()}
    return json.dumps(told).encode()


def understood(answered: bytes) -> Answer:
    """What `answer` gave. Raises the error it met, or RuntimeError with the trace of a defect there."""
    told = json.loads(answered)
    if "defect" in told:
        raise RuntimeError(told["defect"])
    if "error" in told:
        raise _ERRORS[told["error"]](told["message"], code=told["code"])
    return Answer(told["outputs"], told["size"], tuple(told["violations"]))


def _read(head: Mapping[str, Any], text: str) -> Answer:
    parser, checker = _readers(head["reading"], head["adapter"])
    return judged(
        read(parser, text, Repair(), finite_only=head["finite_only"]), checker, head["output_bytes"]
    )


@lru_cache(maxsize=100)
def _readers(reading: str, adapter: Any) -> tuple[ReplyParser, OutputChecker]:
    outputs, signature = json.loads(reading)
    return ReplyParser(adapter, outputs_of(outputs)), OutputChecker(signature_from_document(signature))
