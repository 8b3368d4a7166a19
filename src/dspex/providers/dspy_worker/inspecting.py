"""What is found out about a program before it is run: that it imports, constructs, and what it takes and gives."""

import asyncio
from importlib.metadata import version
from typing import Any

from dspy.utils.saving import get_dependency_versions

from dspex.kit.errors import DspexError
from dspex.kit.json import dumps
from dspex.programs.records import COMPILED_FORMAT
from dspex.providers.dspy_worker.exactness import signature_of
from dspex.providers.dspy_worker.running import Ready, Runner
from dspex.providers.worker_protocol import worker_pb2 as wire


async def inspected(runner: Runner, program: wire.Program) -> wire.InspectReply:
    """The document of a program that can be run, with the state that DSPy saves of it, or why it can't."""
    try:
        ready = await runner.ready(program.digest, program.definition_json)
        return wire.InspectReply(document_json=dumps(_document(ready)), saved_state_json=dumps(_saved(ready)))
    except DspexError as error:
        return wire.InspectReply(refused=error.message)
    except Exception as error:
        # Users' code says no in any way it likes.
        return wire.InspectReply(refused=f"It can't be built: {type(error).__name__}: {str(error)[:2000]}")


async def read_signature(reference: str) -> wire.SignatureReply:
    """The document of a signature class, or why it has none."""
    try:
        return wire.SignatureReply(document_json=dumps(await asyncio.to_thread(signature_of, reference)))
    except DspexError as error:
        return wire.SignatureReply(refused=error.message)
    except Exception as error:
        return wire.SignatureReply(refused=f"It can't be read: {type(error).__name__}: {str(error)[:2000]}")


def _document(ready: Ready) -> dict[str, Any]:
    built = ready.built
    document = {
        "v": COMPILED_FORMAT,
        "executor": "pool",
        "made_by": {"dspy": version("dspy")},
        "signature": built.document,
        "predictors": [name for name, _ in built.module.named_predictors()],
        "asynchronous": built.asynchronous,
    }
    return document if built.contract is None else {**document, "typed": built.contract.typed}


def _saved(ready: Ready) -> dict[str, Any]:
    saved: dict[str, Any] = ready.built.module.dump_state()
    saved["metadata"] = {"dependency_versions": get_dependency_versions()}
    return saved
