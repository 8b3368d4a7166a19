"""The two programs that are measured, and what is asked of them: every request is a case of its own."""

from dataclasses import dataclass
from typing import Any

import orjson

# The slow model, and how many callers wait for it at once.
SLOW_MS = 500
SLOW_CALLERS = 256
# The program whose model never answers.
DOWN = "down"
# How many streams are open at once on one core.
MANY_STREAMS = 1000
TAG = b"case-"
TAG_LENGTH = len("case-00000000")


@dataclass(frozen=True, slots=True)
class Pace:
    """How a model streams: so many pieces, one after the other. `name` is that of its program."""

    name: str
    pieces: int
    interval_s: float

    @property
    def path(self) -> str:
        """Where the benchmark's model answers so."""
        return f"/stream/{self.pieces}/{self.interval_s * 1000:g}"


PACES = (Pace("short", 10, 0.02), Pace("long", 110, 0.02))
MANY = Pace("many", 60, 0.1)


@dataclass(frozen=True, slots=True)
class Case:
    """`inputs(n)` are the inputs of case n, `outputs(n)` what the benchmark's model answers to them."""

    name: str
    signature: dict[str, Any]

    def inputs(self, number: int) -> dict[str, Any]:
        tag = f"case-{number:08d}"
        if self.name == "answer":
            return {"question": f"What does {tag} say about the third parcel of the order?"}
        return {
            "message": f"My parcel of {tag} never came, and you charged me twice. Call me before Friday.",
            "product": "express delivery",
            "history": ["ordered three parcels", "two were delivered", "asked for an invoice"],
        }

    def outputs(self, number: int) -> dict[str, Any]:
        tag = f"case-{number:08d}"
        if self.name == "answer":
            return {"answer": f"It says {tag}."}
        return {"team": "billing", "urgent": True, "score": 0.75, "tags": [tag, "parcel"]}


ANSWER = Case(
    "answer",
    {"inputs": [{"name": "question", "type": "str"}], "outputs": [{"name": "answer", "type": "str"}]},
)
TRIAGE = Case(
    "triage",
    {
        "instructions": "Sort a customer's message so that the right team sees it first.",
        "inputs": [
            {"name": "message", "type": "str", "description": "what the customer wrote"},
            {"name": "product", "type": "str"},
            {"name": "history", "type": "list[str]", "description": "what happened before"},
        ],
        "outputs": [
            {"name": "team", "type": "Literal['billing', 'technical', 'sales', 'other']"},
            {"name": "urgent", "type": "bool"},
            {"name": "score", "type": "float"},
            {"name": "tags", "type": "list[str]"},
        ],
    },
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a candidate answers a case. `wrapped`: inputs and outputs lie inside a larger document.

    With `repeated` there are only so many different requests, else each one is new.
    """

    candidate: str
    port: int
    path: str
    case: Case
    wrapped: bool = False
    repeated: int | None = None

    def request(self, number: int) -> bytes:
        """A whole HTTP request."""
        inputs = self.case.inputs(self._case(number))
        body = orjson.dumps({"inputs": inputs} if self.wrapped else inputs)
        return (
            f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body

    def is_right(self, number: int, status: int, body: bytes) -> bool:
        if status != 200:
            return False
        document = orjson.loads(body)
        outputs = document["outputs"] if self.wrapped else document
        return bool(outputs == self.case.outputs(self._case(number)))

    def _case(self, number: int) -> int:
        return number if self.repeated is None else number % self.repeated
