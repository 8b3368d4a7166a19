"""A dspy-cli project as a document of our configuration: what its file and its directory say, and nothing else."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from dspex.configuration.dspy_cli.modules import FoundModule, ProjectFiles
from dspex.kit.errors import Invalid, Problem

FILE = "dspy.config.yaml"
CONVENTIONS = "dspy_cli"
# What dspy-cli reads of a model; `api_key` is not among it, since no secret gets into settings.
_OF_A_MODEL = ("model", "env", "api_base", "max_tokens", "temperature")
# Addresses of ours that a program's own would hide.
TAKEN = frozenset({"config", "costs", "docs", "health", "metrics", "programs", "ready"})
_IDENTITY = "IdentityGateway"
_CORS = "DSPY_CORS_ORIGINS"


class DspyCli(BaseModel):
    """A project that is served as dspy-cli serves it.

    `programs` have an address of their own, POST /NAME; `notes` tell what is not as with dspy-cli.
    """

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    app_id: str = "DSPy API"
    description: str | None = None
    programs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def translated(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings that say what the project's file at `path` says. Raises Invalid (code bad_configuration)."""
    directory = path.parent
    package = _package(directory)
    notes: list[str] = []
    models, uncached = _models(path, document, notes)
    server = _mapping(path, document, "server")
    found = _modules(directory, package, notes)
    named = _mapping(path, document, "program_models")
    programs = [_entry(one, named, models, uncached) for one in found]
    for name in sorted(set(named) - {one.name for one in found}):
        notes.append(f"program_models names {name}, which the project does not have")
    return {
        "models": models,
        "programs": programs,
        "code_paths": ["src", f"src/{package}", "."],
        "server": {"cors_origins": _origins(server)},
        "dspy_cli": {
            "app_id": _text(document, "app_id") or "DSPy API",
            "description": _text(document, "description"),
            "programs": [one.name for one in found if one.name not in TAKEN],
            "notes": notes,
        },
    }


def _package(directory: Path) -> str:
    source = directory / "src"
    packages = [one.parent.name for one in sorted(source.glob("*/__init__.py"))] if source.is_dir() else []
    if len(packages) != 1:
        held = ", ".join(packages) or "none"
        raise _wrong(directory, f"src/ has to hold one package (a directory with __init__.py); it has {held}")
    if not (source / packages[0] / "modules").is_dir():
        raise _wrong(directory, f"there is no directory src/{packages[0]}/modules with the programs")
    return packages[0]


def _modules(directory: Path, package: str, notes: list[str]) -> list[FoundModule]:
    source = directory / "src"
    files = ProjectFiles([source, source / package, directory])
    found = files.modules_of(f"{package}.modules", source / package / "modules")
    first: dict[str, str] = {}
    for one in found:
        if one.name in first:
            raise _wrong(
                directory,
                f"two modules are called {one.name}: {first[one.name]} and {one.reference}; rename one",
            )
        first[one.name] = one.reference
        if one.name in TAKEN:
            notes.append(
                f"/{one.name} is an address of DSPex; {one.reference} answers at /v1/programs/{one.name}/predict only"
            )
        for gateway in one.gateways:
            if gateway != _IDENTITY:
                notes.append(
                    f"the gateway {gateway} of {one.name} is not run: POST /{one.name} calls the program itself"
                )
    for name, reason in files.unreadable.items():
        notes.append(f"{name} can't be read, so its programs are not served: {reason}")
    if not found:
        notes.append(f"src/{package}/modules has no public class that is a dspy.Module")
    return found


def _models(
    path: Path, document: Mapping[str, Any], notes: list[str]
) -> tuple[dict[str, Any], frozenset[str]]:
    """Our model registry, and the aliases whose answers are not to be cached."""
    models = _mapping(path, document, "models", "default", "registry")
    registry: dict[str, Any] = {}
    uncached = set()
    for alias, entry in _mapping(path, models, "registry").items():
        if not isinstance(entry, Mapping):
            raise _wrong(path, f"models.registry.{alias} has to be a mapping with a `model`")
        made = {name: entry[name] for name in _OF_A_MODEL if entry.get(name) is not None}
        kind = entry.get("model_type", "chat")
        if kind == "responses":
            notes.append(f"model {alias}: asked over the chat interface, not over `responses`")
        elif kind != "chat":
            raise Invalid(
                f"{path}: model {alias} has the model_type {kind!r}; DSPex asks chat models.",
                code="bad_configuration",
                problems=[
                    Problem(f"/models/registry/{alias}/model_type", "unsupported", "chat or responses")
                ],
            )
        if entry.get("api_key") is not None:
            notes.append(
                f"model {alias}: the api_key in the file is not read; if one is needed, put it into a variable and "
                "name that with `env`"
            )
        base = made.get("api_base")
        if isinstance(base, str) and str(made.get("model")).startswith("ollama") and base.count("/") == 2:
            # Said as for Ollama's own interface; it speaks OpenAI's below this.
            made["api_base"] = f"{base}/v1"
        if entry.get("cache") is False:
            uncached.add(str(alias))
        registry[str(alias)] = made
    return {"default": models["default"], "registry": registry}, frozenset(uncached)


def _entry(
    one: FoundModule, named: Mapping[str, Any], models: Mapping[str, Any], uncached: frozenset[str]
) -> dict[str, Any]:
    model = named.get(one.name) or models["default"]
    entry = {
        "name": one.name,
        "module": one.reference,
        "model": model,
        "config": {"conventions": CONVENTIONS},
    }
    return {**entry, "cache": {"mode": "off"}} if model in uncached else entry


def _origins(server: Mapping[str, Any]) -> list[str]:
    given = os.environ.get(_CORS) or server.get("cors_origins") or []
    return list(_listed(given))


def _listed(given: Any) -> Iterator[str]:
    if isinstance(given, str):
        yield from (one.strip() for one in given.split(",") if one.strip())
    elif isinstance(given, list):
        yield from (str(one) for one in given)


def _mapping(path: Path, document: Mapping[str, Any], name: str, *needed: str) -> Mapping[str, Any]:
    value = document.get(name)
    if value is None and not needed:
        return {}
    if not isinstance(value, Mapping) or any(one not in value for one in needed):
        raise _wrong(path, " ".join([f"`{name}` has to be a mapping", *(f"with `{one}`" for one in needed)]))
    return value


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    return None if value is None else str(value)


def _wrong(place: Path, what: str) -> Invalid:
    return Invalid(f"The dspy-cli project {place}: {what}.", code="bad_configuration")
