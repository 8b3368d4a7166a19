"""What is said about settings that do not exist, and about sections of another form."""

from pathlib import Path

import pytest

from dspex.configuration.loading import load_settings
from dspex.kit.errors import Invalid


@pytest.mark.parametrize(
    ("text", "pointer", "said"),
    [
        ("modells: {}", "/modells", "there is no such setting here; did you mean 'models'?"),
        ("nonsense: 1", "/nonsense", "there is no such setting here; leave it out"),
        ("server: {hosts: x}", "/server/hosts", "there is no such setting here; did you mean 'host'?"),
        (
            "models: {default: m, registry: {m: {model: openai/x, temprature: 1}}}",
            "/models/registry/m/temprature",
            "there is no such setting here; did you mean 'temperature'?",
        ),
        (
            "models: {default: m, registry: {m: {model: openai/x, pricing: {input_per_milion: 1}}}}",
            "/models/registry/m/pricing/input_per_milion",
            "there is no such setting here; did you mean 'input_per_million'?",
        ),
        (
            "models: {default: m, registry: {m: {model: openai/x, api_key: sk-1}}}",
            "/models/registry/m/api_key",
            "keys are no settings: write `env: NAME` and put the key into that variable",
        ),
        (
            "programs: [{name: qa, signature: a -> b, modle: x}]",
            "/programs/0/modle",
            "there is no such setting here; did you mean 'module'?",
        ),
        ("programs: {qa: {signature: a -> b}}", "/programs", "must be a list, an entry `- {name: ...}` each"),
        ("datasets: {qa: x}", "/datasets", "must be a list, an entry `- {name: ...}` each"),
        ("code_paths: src", "/code_paths", "must be a list"),
        ("programs: [{signature: a -> b}]", "/programs/0/name", "is needed"),
    ],
)
def test_a_mistake_is_answered_with_what_is_meant(place: Path, text: str, pointer: str, said: str) -> None:
    (place / "dspex.yaml").write_text(text)
    with pytest.raises(Invalid) as refused:
        load_settings()
    assert {one.pointer: one.message for one in refused.value.problems}[pointer] == said
    assert "sk-1" not in str(refused.value)
