"""`dspex cache warm-embeddings`: the texts of a file are embedded by a running node, which keeps their vectors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from dspex.interfaces.cli.batch_output import Summary
from dspex.interfaces.cli.batch_progress import showing
from dspex.interfaces.cli.remote import Remote
from dspex.kit import json
from dspex.kit.errors import DspexError, Invalid
from dspex.kit.records import asdict

# Of one request: well below what a node takes, so that progress shows and little is asked twice after a failure.
TEXTS, CHARACTERS = 256, 128 * 1024
# So many bad lines are named; whoever has more has sent something else.
TOLD = 100


class Warmed(Struct):
    """`cost_usd` is None when the price of some is not known; hits were kept before."""

    texts: int = 0
    hits: int = 0
    misses: int = 0
    tokens: int = 0
    cost_usd: float | None = 0.0
    saved_usd: float = 0.0

    def add(self, texts: int, answer: dict[str, Any]) -> None:
        self.texts += texts
        self.hits += answer["cache"]["hits"]
        self.misses += answer["cache"]["misses"]
        self.tokens += answer["usage"]["total_tokens"]
        self.saved_usd = round(self.saved_usd + answer["saved_usd"], 12)
        unknown = self.cost_usd is None or answer["cost_usd"] is None
        self.cost_usd = None if unknown else round((self.cost_usd or 0.0) + answer["cost_usd"], 12)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class _Bad(Struct, frozen=True):
    reason: str


def warm(node: Remote, file: Path, field: str, model: str, dimensions: int | None) -> Warmed:
    """Raises Invalid (code bad_lines) before anything is asked, and what the node answers with: what was embedded

    until then is kept.
    """
    warmed = Warmed()
    progress = Summary(_count(file, field))
    body: dict[str, Any] = {"model": model, "encoding_format": "base64"}
    if dimensions is not None:
        body["dimensions"] = dimensions
    with showing(progress) as tell:
        tell()
        for texts in _chunks(file, field):
            try:
                answer = node.request("POST", "/v1/embeddings", {**body, "input": texts})
            except DspexError as error:
                error.args = (
                    f"{error.message} {warmed.texts} of {progress.items} texts are kept; run it again.",
                )
                error.message = error.args[0]
                raise
            warmed.add(len(texts), answer)
            progress.completed = warmed.texts
            tell()
    return warmed


def _count(file: Path, field: str) -> int:
    """How many texts there are. Raises Invalid with every bad line."""
    bad: list[str] = []
    count = 0
    for number, found in _read(file, field):
        if isinstance(found, str):
            count += 1
        elif len(bad) < TOLD:
            bad.append(f"  line {number} {found.reason}")
    if bad:
        told = "\n".join(bad)
        raise Invalid(f"{file} has lines without a text; nothing was embedded:\n{told}", code="bad_lines")
    return count


def _chunks(file: Path, field: str) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for _, text in _read(file, field):
        if not isinstance(text, str):
            continue
        if chunk and (len(chunk) >= TEXTS or size + len(text) > CHARACTERS):
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += len(text)
    if chunk:
        yield chunk


def _read(file: Path, field: str) -> Iterator[tuple[int, str | _Bad]]:
    """Each line's number and text, or what is wrong with it; blank lines are left out."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _text(line, field)


def _text(line: bytes, field: str) -> str | _Bad:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _Bad(f"is not JSON: {json.why_not_json(error)}")
    text = value.get(field) if isinstance(value, dict) else None
    if not isinstance(text, str):
        return _Bad(f"has no text under {field!r}")
    return text
