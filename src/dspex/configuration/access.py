"""Whether callers need keys."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Access(BaseModel):
    """`auto`: no keys on loopback, keys on every other address; `required`: keys everywhere.

    `open` asks nobody, wherever it listens: for a proxy that knows its callers.
    """

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    mode: Literal["auto", "required", "open"] = "auto"
