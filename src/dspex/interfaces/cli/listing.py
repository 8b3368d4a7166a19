"""How commands are listed in a help text: by what they are for, and with whole sentences."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from typer.core import TyperGroup

Sections = Mapping[str, Sequence[str]]
EVERYTHING: Sections = {
    "Serving": ("init", "serve", "work", "reload", "doctor", "migrate", "simulator"),
    "Programs": ("run", "programs", "signatures", "deploy", "rollback"),
    "Making them better": ("datasets", "eval", "optimize"),
    "What ran": ("executions", "batch", "jobs", "queues", "costs", "budgets"),
    "Running nodes": ("pools", "cache", "breakers"),
    "Access": ("keys", "audit"),
}


class Commands(TyperGroup):
    """Lists its commands in `sections`, where it has some; those in none come last."""

    sections: ClassVar[Sections] = {}

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        left = list(self.list_commands(ctx))
        for title, names in self.sections.items():
            self._write(formatter, title, [name for name in names if name in left])
            left = [name for name in left if name not in names]
        self._write(formatter, "Commands", left)

    def _write(self, formatter: Any, title: str, names: Sequence[str]) -> None:
        if names:
            with formatter.section(title):
                formatter.write_dl([(name, _told(self.commands[name].help or "")) for name in names])


class AllCommands(Commands):
    sections: ClassVar[Sections] = EVERYTHING


def _told(text: str) -> str:
    """The first sentence."""
    paragraph = " ".join(text.split("\n\n", maxsplit=1)[0].split())
    sentence, dot, _ = paragraph.partition(". ")
    return sentence if dot else paragraph.removesuffix(".")
