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

from dspex.configuration.dspy_cli import project as dspy_cli
from dspex.configuration.models import option_advice, unsupported_options
from dspex.configuration.settings import Settings
from dspex.kit.errors import Invalid, Problem
from dspex.kit.mistakes import mistakes
from dspex.kit.wording import counted

DEFAULT_FILE = "dspex.yaml"


def load_settings(file: Path | None = None, **overrides: Any) -> tuple[Settings, Path | None]:
    """The settings and the file they came from (None: no file, defaults apply).

    `file` must exist when given; without it `dspex.yaml` in the working directory is read if it is there, else the
    `dspy.config.yaml` of a dspy-cli project. A directory stands for the file in it. `.env` in the working directory
    and beside the file is loaded into the environment first, without replacing what is set.
    Raises Invalid (code bad_configuration) that lists every mistake with its place.
    """
    load_dotenv(Path(".env"), override=False)
    path = (
        _found(Path()) if file is None else (_found(file) or file / DEFAULT_FILE) if file.is_dir() else file
    )
    document = _document(path) if path else {}

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
    # Relative to the file, as everything that it names.
    directory = path.parent if path else Path()
    below = tuple(directory / one for one in settings.code_paths)
    return settings.model_copy(update={"code_paths": below}), path


def _usual_names() -> dict[str, Any]:
    """Settings from variables that everybody knows under another name; our own names win over them."""
    names = {"database_url": "DATABASE_URL", "redis_url": "REDIS_URL"}
    return {setting: value for setting, name in names.items() if (value := os.environ.get(name))}


def _found(directory: Path) -> Path | None:
    """The configuration file in a directory: ours before that of a dspy-cli project."""
    names = (DEFAULT_FILE, dspy_cli.FILE)
    return next((directory / name for name in names if (directory / name).is_file()), None)


def _document(path: Path) -> Mapping[str, Any]:
    """What the file says; with `dspy_cli: true` in it, on top of what the dspy-cli project beside it says."""
    document = dict(_read(path))
    if path.name == dspy_cli.FILE:
        load_dotenv(path.with_name(".env"), override=False)
        return dspy_cli.translated(path, document)
    wanted = document.pop("dspy_cli", False)
    if not isinstance(wanted, bool):
        raise Invalid(
            f"{path}: `dspy_cli` is true, to serve the dspy-cli project beside this file as well, or false.",
            code="bad_configuration",
            problems=[Problem("/dspy_cli", "wrong_type", "write true or false")],
        )
    if not wanted:
        return document
    load_dotenv(path.with_name(".env"), override=False)
    project = path.with_name(dspy_cli.FILE)
    theirs = dspy_cli.translated(project, _read(project))
    return {**theirs, **document, "programs": [*theirs["programs"], *(document.get("programs") or ())]}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Invalid(
            f"There is no configuration file {path}; `dspex init` writes one.", code="no_configuration_file"
        ) from None
    except RecursionError:
        raise Invalid(f"{path} can't be read: it is nested too deeply.", code="bad_configuration") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        # ValueError: of text that is no UTF-8, and of dates that no calendar has.
        raise Invalid(f"{path} can't be read: {error}", code="bad_configuration") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise Invalid(f"{path} must hold a mapping (models:, programs:, ...).", code="bad_configuration")
    if strange := [name for name in document if not isinstance(name, str)]:
        raise Invalid(
            f"{path} has sections whose names are no text: {', '.join(map(repr, strange))}.",
            code="bad_configuration",
        )
    return document


def _explained(error: ValidationError, path: Path | None) -> Invalid:
    errors = error.errors()
    problems = [
        Problem("/" + "/".join(str(part) for part in one["loc"]), one["type"], _advice(one) or said)
        for one, said in zip(errors, mistakes(errors, "setting", Settings.model_json_schema), strict=True)
    ]
    lines = "\n".join(f"  {problem.pointer}: {problem.message}" for problem in problems)
    return Invalid(
        f"The configuration ({path or 'environment'}) has {counted(len(problems), 'mistake')}:\n{lines}",
        code="bad_configuration",
        problems=problems,
    )


def _advice(error: Mapping[str, Any]) -> str | None:
    """Where more can be said than what is wrong."""
    match error["type"], error["loc"]:
        case "extra_forbidden", ("models", "registry", _, "api_key" | "apikey" | "key" | "token"):
            return "keys are no settings: write `env: NAME` and put the key into that variable"
        case "tuple_type", ("programs" | "datasets",):
            return "must be a list, an entry `- {name: ...}` each"
    return None


_NO_CHAT = "{!r} is an embedding model, which writes nothing; name a chat model"


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
    elif settings.models.registry[settings.models.default].model_type != "chat":
        problems.append(
            Problem("/models/default", "wrong_model_type", _NO_CHAT.format(settings.models.default))
        )
    problems += [
        Problem(f"/models/registry/{alias}/fallbacks", "wrong_model_type", _NO_CHAT.format(other))
        for alias, model in settings.models.registry.items()
        for other in model.fallbacks
        if other in known and settings.models.registry[other].model_type != "chat"
    ]
    problems += [
        Problem(f"/models/registry/{alias}/options/{name}", "unsupported_option", option_advice(name))
        for alias, model in settings.models.registry.items()
        for name in unsupported_options(model.options)
    ]
    problems += [
        Problem(
            f"/models/registry/{alias}/fallbacks",
            "unknown_model",
            f"{other!r} is not another model of models.registry; it has {', '.join(sorted(known))}",
        )
        for alias, model in settings.models.registry.items()
        for other in model.fallbacks
        if other not in known or other == alias
    ]
    if settings.metrics.port is not None and settings.metrics.port == settings.server.port:
        problems.append(Problem("/metrics/port", "same_port", "choose another port than server.port"))
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
        elif program.model is not None and settings.models.registry[program.model].model_type != "chat":
            problems.append(
                Problem(f"/programs/{index}/model", "wrong_model_type", _NO_CHAT.format(program.model))
            )
        if program.name in seen:
            problems.append(
                Problem(f"/programs/{index}/name", "duplicate", f"{program.name!r} is declared twice")
            )
        seen.add(program.name)
    names = [dataset.name for dataset in settings.datasets]
    problems += [
        Problem(f"/datasets/{index}/name", "duplicate", f"{name!r} is declared twice")
        for index, name in enumerate(names)
        if name in names[:index]
    ]
    if problems:
        lines = "\n".join(f"  {problem.pointer}: {problem.message}" for problem in problems)
        raise Invalid(
            f"The configuration ({path or 'environment'}) has {counted(len(problems), 'mistake')}:\n{lines}",
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
