"""Where a node's configuration came from, to read it there again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from dspex.configuration.loading import hand_down, load_settings, take_up
from dspex.configuration.settings import Settings


class Source(Struct, frozen=True):
    """`file` as it was named on the command line, and what else was said there. Paths in it start at `directory`.

    `path` is the file that was read, also when none was named; None without any.
    """

    file: Path | None
    overrides: Mapping[str, Any]
    directory: Path
    path: Path | None = None

    def load(self) -> Settings:
        """Raises Invalid for a configuration with mistakes in it."""
        settings, _ = load_settings(self.file, **self.overrides)
        return settings


def opened(file: Path | None, overrides: Mapping[str, Any]) -> tuple[Settings, Source]:
    settings, path = load_settings(file, **overrides)
    return settings, Source(file, overrides, path.parent if path else Path(), path)


def to_text(settings: Settings, source: Source) -> str:
    """Both as text, for another process of this node."""
    return json.dumps(
        {
            "settings": hand_down(settings),
            "file": None if source.file is None else str(source.file),
            "overrides": source.overrides,
            "directory": str(source.directory),
            "path": None if source.path is None else str(source.path),
        },
        default=str,
    )


def from_text(text: str) -> tuple[Settings, Source]:
    given = json.loads(text)
    file, path = (None if given[name] is None else Path(given[name]) for name in ("file", "path"))
    return take_up(given["settings"]), Source(file, given["overrides"], Path(given["directory"]), path)
