"""`dspex batch run` on a running node: the file is sent, the results are fetched when they are there."""

import time
from pathlib import Path
from urllib.parse import urlencode

import typer

from dspex.interfaces.cli.batch_output import Summary, replacing
from dspex.interfaces.cli.batch_progress import showing
from dspex.interfaces.cli.remote import Remote
from dspex.kit import json
from dspex.kit.errors import Invalid, of_kind

LOOK_S = 0.5


def run(
    node: Remote, program: str, inputs: Path, output: Path, version: int | None, concurrency: int | None
) -> Summary:
    """Beside the output is noted which batch it waits for, until it is there: run again, it waits on.

    Raises what the node answers with, Unavailable.
    """
    note = output.with_name(f"{output.name}.batch")
    batch_id = _noted(note, node)
    if batch_id is None:
        query = {"program": program, "version": version, "concurrency": concurrency}
        given = urlencode({name: value for name, value in query.items() if value is not None})
        batch = node.upload(f"/v1/batches?{given}", inputs)
        batch_id = str(batch["id"])
        note.write_bytes(json.dumps({"url": node.url, "batch": batch_id}))
    try:
        summary = _wait(node, batch_id)
    except KeyboardInterrupt:
        typer.echo(
            f"dspex: the node goes on with it; `dspex jobs cancel {batch_id}` there would end it.", err=True
        )
        raise
    with replacing(output) as file:
        for chunk in node.download(f"/v1/batches/{batch_id}/results"):
            file.write(chunk)
    note.unlink()
    return summary


def _noted(note: Path, node: Remote) -> str | None:
    if not note.exists():
        return None
    noted = json.loads(note.read_bytes())
    if noted["url"] != node.url:
        raise Invalid(
            f"The output waits for a batch of {noted['url']}; ask there, or remove {note}.",
            code="foreign_output",
        )
    return str(noted["batch"])


def _wait(node: Remote, batch_id: str) -> Summary:
    batch = node.request("GET", f"/v1/batches/{batch_id}")
    summary = Summary(batch["items"])
    with showing(summary) as tell:
        while True:
            summary.completed, summary.failed = batch["completed"], batch["failed"]
            tell()
            if batch["status"] not in ("pending", "running"):
                break
            time.sleep(LOOK_S)
            batch = node.request("GET", f"/v1/batches/{batch_id}")
    if batch["error"] is not None:
        error = batch["error"]
        raise of_kind(error["kind"], f"The batch {batch['status']}: {error['message']}", code=error["code"])
    return summary
