"""Programs, versions, deployments and compiled documents as rows and back."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import RowMapping

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


def program_of(row: RowMapping) -> Program:
    return Program(**{**row, "settings": ProgramSettings(**row["settings"])})


def version_row(version: Version) -> dict[str, Any]:
    return asdict(version)


def version_of(row: RowMapping) -> Version:
    definition = row["definition"]
    lm = LanguageModelChoice(**definition["lm"])
    return Version(**{**row, "definition": Definition(**{**definition, "lm": lm})})


def deployment_of(row: RowMapping) -> Deployment:
    return Deployment(**row)


def compiled_of(row: RowMapping) -> CompiledDocument:
    return CompiledDocument(**row)
