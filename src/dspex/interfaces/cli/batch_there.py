"""`dspex batch run` on a running node: the inputs are sent, the results are fetched when they are there."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import typer
from msgspec.structs import replace

from dspex.interfaces.cli.batch_output import Summary, read_done, read_inputs, write_all
from dspex.interfaces.cli.batch_progress import showing
from dspex.interfaces.cli.remote import Remote
from dspex.kit import json
from dspex.kit.errors import Conflict, DspexError, Invalid, Missing, of_kind

LOOK_S = 0.5


def run(
    node: Remote,
    program: str,
    inputs: Path,
    output: Path,
    version: int | None,
    concurrency: int | None,
    *,
    retry_failed: bool,
) -> Summary:
    """Only items are sent that the output has no result of, or with `retry_failed` a failure.

    Beside the output is noted which batch it waits for, until it is over: run again, it waits on. Raises Invalid for
    inputs and an output that do not belong together, what the node answers with, Unavailable.
    """
    given = read_inputs(inputs)
    note = output.with_name(f"{output.name}.batch")
    sent = {"url": node.url, "program": program, "inputs": hashlib.sha256(inputs.read_bytes()).hexdigest()}
    batch_id = _noted(note, sent)
    done = read_done(output, given, program, version, retry_failed=retry_failed and batch_id is None)
    if batch_id is None:
        if given.keys() <= done.keys():
            return replace(_summary(given, done), nothing_left=True)
        query = {"program": program, "version": version, "concurrency": concurrency}
        asked = urlencode({name: value for name, value in query.items() if value is not None})
        _, sent_batch = node.upload(f"/v1/batches?{asked}", _left(inputs, done))
        batch_id = str(sent_batch["id"])
        note.write_bytes(json.dumps({**sent, "batch": batch_id}))
    try:
        batch = _wait(node, batch_id, _summary(given, done))
    except KeyboardInterrupt:
        typer.echo(
            f"dspex: the node goes on with it; `dspex batch cancel {batch_id} --url {node.url}` would end it.",
            err=True,
        )
        raise
    except Missing as missing:
        raise Missing(
            f"{missing.message} To send what is left anew, remove {note}.", code=missing.code
        ) from None
    of_all = {"program": program, "version": batch["version"]}
    for line in _lines(node.download(f"/v1/batches/{batch_id}/results")):
        if line["status"] in ("completed", "failed"):
            position = line["position"]
            done[position] = {"position": position, "inputs": given[position], **of_all, **line}
    write_all(output, done)
    note.unlink()
    if batch["status"] != "completed":
        raise _ended(batch)
    return _summary(given, done)


def _noted(note: Path, sent: Mapping[str, str]) -> str | None:
    if not note.exists():
        return None
    noted = json.loads(note.read_bytes())
    if any(noted.get(name, value) != value for name, value in sent.items()):
        raise Invalid(
            f"The output waits for a batch of {noted.get('program', 'a program')} at {noted['url']}, and these are not "
            f"its program, inputs and node; run it with those, or remove {note}.",
            code="foreign_output",
        )
    return str(noted["batch"])


def _summary(given: Mapping[int, Any], done: Mapping[int, Mapping[str, Any]]) -> Summary:
    summary = Summary(len(given))
    for line in done.values():
        summary.count(line)
    return summary


def _left(inputs: Path, done: Mapping[int, Any]) -> bytes:
    """The lines that are to be run. In place of the others blank ones, so that each keeps its number."""
    lines = inputs.read_bytes().split(b"\n")
    return b"\n".join(b"" if number in done else line for number, line in enumerate(lines, 1))


def _wait(node: Remote, batch_id: str, summary: Summary) -> dict[str, Any]:
    """The batch, when it is over."""
    before = (summary.completed, summary.failed)
    with showing(summary) as tell:
        while True:
            batch = node.request("GET", f"/v1/batches/{batch_id}")
            summary.completed, summary.failed = before[0] + batch["completed"], before[1] + batch["failed"]
            tell()
            if batch["status"] not in ("pending", "running", "paused"):
                return batch
            time.sleep(LOOK_S)


def _lines(chunks: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from map(json.loads, whole)


def _ended(batch: Mapping[str, Any]) -> DspexError:
    """Why a batch is over that did not do all of its items."""
    again = "What was done is in the output; run the same command again for the rest."
    if batch["status"] == "cancelled":
        return Conflict(f"The batch was cancelled. {again}", code="job_state")
    error = batch["error"]
    return of_kind(error["kind"], f"The batch failed: {error['message']} {again}", code=error["code"])
