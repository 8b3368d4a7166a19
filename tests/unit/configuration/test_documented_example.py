"""docs/configuration.md: its file loads, and it knows every setting."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from dspex.configuration.loading import load_settings
from dspex.configuration.models import ModelSettings, Pricing
from dspex.configuration.settings import ProgramEntry, Settings
from dspex.executions.mock import Mock
from dspex.programs.definitions import choose_model, define

DOCUMENT = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")


def example(place: Path) -> Path:
    (block,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    path = place / "example.yaml"
    path.write_text(block, encoding="utf-8")
    return path


def test_the_documented_file_loads(place: Path) -> None:
    settings, path = load_settings(example(place))
    assert path == place / "example.yaml"
    assert settings.server.workers == 2
    assert settings.models.registry["local"].pricing is not None
    assert [one.name for one in settings.programs] == ["qa", "triage", "triage-for-tests"]


def test_its_programs_are_well_formed(place: Path) -> None:
    settings, _ = load_settings(example(place))
    for entry in settings.programs:
        model = choose_model(settings.models, entry.model, temperature=entry.temperature)
        define(entry.signature, entry.module, entry.adapter, model)
        if entry.executor == "mock":
            Mock(entry.mock or {})
    assert choose_model(settings.models, "local", temperature=0.3).options == {"temperature": 0.3}


def variables(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """The variable of each setting; sections are entered, lists and mappings are one setting."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from variables(annotation, f"{prefix}{name}__")
        else:
            yield f"{prefix}{name}".upper()


@pytest.mark.parametrize("variable", list(variables(Settings, "dspex_")))
def test_every_setting_is_documented_with_its_variable(variable: str) -> None:
    assert re.search(rf"\b{variable}(\b|__)", DOCUMENT), f"docs/configuration.md does not name {variable}"


@pytest.mark.parametrize("section", [ModelSettings, Pricing, ProgramEntry])
def test_every_member_of_models_and_programs_is_documented(section: type[BaseModel]) -> None:
    missing = [name for name in section.model_fields if f"`{name}`" not in DOCUMENT]
    assert not missing
