from enum import StrEnum

import dspy
from dspy_cli.gateway import IdentityGateway
from pydantic import BaseModel, Field


class Desk(StrEnum):
    SPORTS = "sports"
    POLITICS = "politics"


class Piece(BaseModel):
    text: str
    desk: Desk = Desk.SPORTS


class Verdict(BaseModel):
    label: str
    words: int = Field(ge=0)
    seen: list[str] = Field(default_factory=list)


class Labels(dspy.Module):
    """A pydantic model in (dspy-cli hands it over as a dict) and one out; asynchronous, with a gateway."""

    gateway = IdentityGateway

    def __init__(self):
        super().__init__()
        self.calls = 0

    async def aforward(self, piece: Piece, least: int, loud: bool = False) -> Verdict:
        self.calls += 1
        label = piece["desk"].value.upper() if loud else piece["desk"].value
        return Verdict(label=label, words=max(least, len(piece["text"].split())), seen=[str(self.calls)])
