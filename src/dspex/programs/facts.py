"""What the programs room announces."""

from msgspec import Struct


class ProgramChanged(Struct, frozen=True):
    """Another version answers now, or the program's settings changed, or it was archived."""

    project: str
    name: str
