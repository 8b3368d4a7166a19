"""What the programs room announces."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProgramChanged:
    """Another version answers now, or the program's settings changed, or it was archived."""

    project: str
    name: str
