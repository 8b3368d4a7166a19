"""Programs, versions, deployments and compiled documents as rows and back."""

from collections.abc import Mapping
from typing import Any

from msgspec import convert

from dspex.kit.records import asdict
from dspex.programs.records import (
    CompiledDocument,
    Definition,
    Deployment,
    LanguageModelChoice,
    Program,
    ProgramSettings,
    Version,
)


def program_row(program: Program) -> dict[str, Any]:
    return asdict(program)


def program_of(row: Mapping[Any, Any]) -> Program:
    return Program(**{**row, "settings": convert(row["settings"], ProgramSettings)})


def version_row(version: Version) -> dict[str, Any]:
    return asdict(version)


def demo_rows(version: Version) -> list[dict[str, Any]]:
    """A row for each demo that came from a dataset."""
    return [
        {
            "project": version.project,
            "version_id": version.id,
            "position": position,
            "program_id": version.program_id,
            "predictor": str(demo.get("predictor")),
            "row_id": str(demo["row"]),
            "dataset": demo.get("dataset", version.lineage["dataset"]["name"]),
            "dataset_version": demo.get("dataset_version", version.lineage["dataset"]["version"]),
        }
        for position, demo in enumerate((version.lineage or {}).get("demos", ()))
        if demo.get("row") is not None and version.lineage is not None
    ]


def version_of(row: Mapping[Any, Any]) -> Version:
    definition = row["definition"]
    lm = LanguageModelChoice(**definition["lm"])
    return Version(**{**row, "definition": Definition(**{**definition, "lm": lm})})


def deployed_of(row: Mapping[Any, Any]) -> tuple[str, Version]:
    """Of a version's row with its program's name."""
    version = dict(row)
    return version.pop("name"), version_of(version)


def deployment_of(row: Mapping[Any, Any]) -> Deployment:
    return Deployment(**row)


def compiled_of(row: Mapping[Any, Any]) -> CompiledDocument:
    return CompiledDocument(**row)
