"""`dspex init`: a project that serves and tests itself."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from dspex.kit.errors import Conflict

_TEMPLATES = ("dspex.yaml", "README.md", "test_programs.py", "gitignore", "env.example")
_NAMES = {
    "gitignore": ".gitignore",
    "env.example": ".env.example",
    "test_programs.py": "tests/test_programs.py",
}


def add_to(app: typer.Typer) -> None:
    @app.command()
    def init(directory: Annotated[Path, typer.Argument(help="The directory to make.")]) -> None:
        """Make a new project: a dspex.yaml, tests, a README."""
        for path in create(directory):
            typer.echo(f"  {path}")
        typer.echo(
            f"\nNext, with the environment active that dspex is installed in (it needs pytest for the tests):\n"
            f"  cd {directory}\n  dspex serve\n  python -m pytest"
        )


def create(directory: Path) -> list[Path]:
    """Writes the project's files and returns their paths. Raises Conflict (code exists) rather than overwrite."""
    written = [(directory / _NAMES.get(name, name), _text(name)) for name in _TEMPLATES]
    taken = [path for path, _ in written if path.exists()]
    if taken:
        raise Conflict(
            f"{taken[0]} exists already; choose another directory. Nothing was written.", code="exists"
        )
    for path, text in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{{name}}", directory.resolve().name), encoding="utf-8")
    return [path for path, _ in written]


def _text(name: str) -> str:
    return (files("dspex.interfaces.cli") / "templates" / f"{name}.txt").read_text(encoding="utf-8")
