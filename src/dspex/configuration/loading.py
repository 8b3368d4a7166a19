"""Reading the configuration: one call at start, every mistake reported at once."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from dotenv import load_dotenv
from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsError

from dspex.configuration.models import option_advice, unsupported_options
from dspex.configuration.settings import Settings
from dspex.kit.errors import Invalid, Problem

DEFAULT_FILE = "dspex.yaml"


def load_settings(file: Path | None = None, **overrides: Any) -> tuple[Settings, Path | None]:
    """The settings and the file they came from (None: no file, defaults apply).

    `file` must exist when given; without it `dspex.yaml` in the working directory is read if it is there.
    `.env` in the working directory is loaded into the environment first, without replacing what is set.
    Raises Invalid (code bad_configuration) that lists every mistake with its place.
    """
    load_dotenv(Path(".env"), override=False)
    path = file or (Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None)
    document = _read(path) if path else {}

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(
                InitSettingsSource(settings_cls, init_kwargs=source) if isinstance(source, dict) else source
                for source in (init_settings, env_settings, _usual_names(), dict(document))
            )

    try:
        settings = Loaded(**overrides)
    except ValidationError as error:
        raise _explained(error, path) from None
    except SettingsError as error:
        # A list or a section given as one variable has to be JSON.
        raise Invalid(
            f"The environment can't be read: {error}. Lists and sections are written as JSON there, "
            """such as DSPEX_SERVER__CORS_ORIGINS='["https://example.com"]'.""",
            code="bad_configuration",
        ) from None
    _check(settings, path)
    return settings, path


def _usual_names() -> dict[str, Any]:
    """Settings from variables that everybody knows under another name; our own names win over them."""
    url = os.environ.get("DATABASE_URL")
    return {"database_url": url} if url else {}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Invalid(
            f"There is no configuration file {path}; `dspex init` writes one.", code="no_configuration_file"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Invalid(f"{path} can't be read: {error}", code="bad_configuration") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise Invalid(f"{path} must hold a mapping (models:, programs:, ...).", code="bad_configuration")
    return document


def _explained(error: ValidationError, path: Path | None) -> Invalid:
    problems = [
        Problem("/" + "/".join(str(part) for part in one["loc"]), one["type"], one["msg"])
        for one in error.errors()
    ]
    lines = "\n".join(f"  {problem.pointer}: {problem.message}" for problem in problems)
    return Invalid(
        f"The configuration ({path or 'environment'}) has {len(problems)} mistake(s):\n{lines}",
        code="bad_configuration",
        problems=problems,
    )


def _check(settings: Settings, path: Path | None) -> None:
    """What no single section can see."""
    known = set(settings.models.registry)
    problems = []
    if settings.models.default not in known:
        problems.append(
            Problem(
                "/models/default", "unknown_model", f"{settings.models.default!r} is not in models.registry"
            )
        )
    problems += [
        Problem(f"/models/registry/{alias}/options/{name}", "unsupported_option", option_advice(name))
        for alias, model in settings.models.registry.items()
        for name in unsupported_options(model.options)
    ]
    seen: set[str] = set()
    for index, program in enumerate(settings.programs):
        if program.model is not None and program.model not in known:
            problems.append(
                Problem(
                    f"/programs/{index}/model",
                    "unknown_model",
                    f"{program.model!r} is not in models.registry; it has {', '.join(sorted(known))}",
                )
            )
        if program.name in seen:
            problems.append(
                Problem(f"/programs/{index}/name", "duplicate", f"{program.name!r} is declared twice")
            )
        seen.add(program.name)
    if problems:
        lines = "\n".join(f"  {problem.pointer}: {problem.message}" for problem in problems)
        raise Invalid(
            f"The configuration ({path or 'environment'}) has {len(problems)} mistake(s):\n{lines}",
            code="bad_configuration",
            problems=problems,
        )


def hand_down(settings: Settings) -> str:
    """The settings as text, for another process of this node; see `take_up`."""
    return settings.model_dump_json()


def take_up(text: str) -> Settings:
    """The very settings that were handed down: neither the file nor the environment is read again."""

    class HandedDown(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings,)

    return HandedDown(**json.loads(text))
