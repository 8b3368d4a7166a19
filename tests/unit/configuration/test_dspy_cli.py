"""dspy-cli projects: their modules found in their files, their file read as ours."""

import os
import shutil
from pathlib import Path

import pytest

from dspex.configuration.dspy_cli.modules import ProjectFiles
from dspex.configuration.loading import load_settings
from dspex.configuration.reloading import reloaded
from dspex.kit.errors import Invalid

EXAMPLE = Path(__file__).parents[3] / "examples" / "dspy-cli"
ODD = Path(__file__).parents[2] / "fixtures" / "dspy_cli_modules"
CONFIG = """\
app_id: shop
models:
  default: main
  registry:
    main: {model: openai/gpt-4o-mini, env: SHOP_KEY, max_tokens: 100, temperature: 0.5, model_type: chat, unknown: 1}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    place = tmp_path / "project"
    shutil.copytree(EXAMPLE, place)
    return place


def made(place: Path, config: str = CONFIG, **files: str) -> Path:
    modules = place / "src" / "shop" / "modules"
    modules.mkdir(parents=True)
    (place / "src" / "shop" / "__init__.py").touch()
    (place / "dspy.config.yaml").write_text(config, encoding="utf-8")
    for name, text in files.items():
        (modules / f"{name}.py").write_text(text, encoding="utf-8")
    return place


def refusal(place: Path) -> Invalid:
    with pytest.raises(Invalid) as caught:
        load_settings(place)
    assert caught.value.code == "bad_configuration"
    return caught.value


ECHO = "import dspy\n\n\nclass Echo(dspy.Module):\n    def forward(self, text: str) -> str:\n        return text\n"


def test_a_project_is_programs_models_and_code_paths(project: Path) -> None:
    settings, path = load_settings(project)
    assert path == project / "dspy.config.yaml"
    assert [(one.name, one.module, one.model) for one in settings.programs] == [
        ("Labels", "newsroom.modules.labels:Labels", "fast"),
        ("ShortenPredict", "newsroom.modules.shorten:ShortenPredict", "fast"),
        ("ShortenCoT", "newsroom.modules.shorten:ShortenCoT", "careful"),
        ("TitlesPredict", "newsroom.modules.titles:TitlesPredict", "fast"),
    ]
    assert all(one.config == {"conventions": "dspy_cli"} for one in settings.programs)
    assert settings.models.default == "fast"
    careful = settings.models.registry["careful"]
    assert (careful.model, careful.env, careful.max_tokens, careful.temperature) == (
        "openai/gpt-4o",
        "OPENAI_API_KEY",
        2000,
        1.0,
    )
    assert settings.code_paths == (project / "src", project / "src" / "newsroom", project / ".")
    assert settings.dspy_cli is not None
    assert (settings.dspy_cli.app_id, settings.dspy_cli.notes) == ("newsroom", ())
    assert settings.dspy_cli.programs == ("Labels", "ShortenPredict", "ShortenCoT", "TitlesPredict")


def test_the_working_directory_may_be_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert load_settings()[1] == Path("dspy.config.yaml")
    assert len(load_settings(Path("dspy.config.yaml"))[0].programs) == 4


def test_ours_wins_and_may_have_the_project_served_as_well(project: Path) -> None:
    ours = project / "dspex.yaml"
    ours.write_text("programs: [{name: qa, signature: 'question -> answer'}]")
    settings, path = load_settings(project)
    assert path == ours
    assert [one.name for one in settings.programs] == ["qa"]
    assert settings.dspy_cli is None
    ours.write_text(
        ours.read_text() + "\ndspy_cli: true\npools: {general: {workers: 1}}\nlimits: {timeout_s: 5}\n"
    )
    settings, _ = load_settings(project)
    assert [one.name for one in settings.programs][-2:] == ["TitlesPredict", "qa"]
    assert (settings.limits.timeout_s, settings.pools["general"].workers) == (5, 1)
    assert set(settings.models.registry) == {"fast", "careful"}
    assert settings.dspy_cli is not None
    ours.write_text("dspy_cli: {programs: [X]}")
    assert [one.pointer for one in refusal(project).problems] == ["/dspy_cli"]


def test_variables_add_what_the_file_can_not_say(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_POOLS", '{"general": {"pass_environment": ["GITHUB_TOKEN"]}}')
    monkeypatch.setenv("DSPEX_SERVER__HOST", "192.0.2.1")
    settings, _ = load_settings(project)
    assert settings.pools["general"].pass_environment == ("GITHUB_TOKEN",)
    assert (settings.server.host, settings.asks_for_keys, len(settings.programs)) == ("192.0.2.1", True, 4)


def test_a_module_is_found_by_what_its_bases_lead_to(tmp_path: Path) -> None:
    source = """\
from __future__ import annotations
import dspy as d
import shop.base
import shop.base as common
from dspy import Module, Signature
from dspy.predict import ReAct
from pydantic import BaseModel
from typing import Generic, TypeVar
from .. import base
from ..base import Base as Root, NotOne
from ..base import *
T = TypeVar("T")
try:
    class Tried(Module): ...
except Exception:
    pass
class Renamed(d.ChainOfThought): ...
class Agent(ReAct): ...
class Chained(Renamed): ...
class Relative(base.Base): ...
class Aliased(Root): ...
class Starred(Star): ...
class Dotted(shop.base.Base): ...
class Common(common.Base): ...
class Typed(Module, Generic[T]): ...
class Bound(Typed[int]): ...
class Contract(Signature): ...
class Contract2(d.Signature): ...
class Shape(BaseModel): ...
class Not(NotOne): ...
class Circle(Circle): ...
class Elsewhere(requests.Session): ...
class Called(make()): ...
class _Private(Module): ...
def f():
    class Inner(Module): ...
"""
    base = "import dspy\nclass Base(dspy.Module): ...\nclass NotOne: ...\nclass Star(Base): ...\n"
    place = made(tmp_path, found=source, _hidden=ECHO)
    (place / "src" / "shop" / "base.py").write_text(base)
    files = ProjectFiles([place / "src"])
    found = files.modules_of("shop.modules", place / "src" / "shop" / "modules")
    assert [one.name for one in found] == [
        "Tried",
        "Renamed",
        "Agent",
        "Chained",
        "Relative",
        "Aliased",
        "Starred",
        "Dotted",
        "Common",
        "Typed",
        "Bound",
    ]
    assert not files.unreadable


def test_what_can_not_be_served_as_it_is_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = """\
models:
  default: main
  registry:
    main: {model: openai/gpt-5-mini, model_type: responses, cache: false}
    local: {model: ollama/llama3, api_base: "http://localhost:11434", api_key: placeholder}
program_models: {Gone: main, Other: local}
server: {cors_origins: ["https://app.example.com"]}
"""
    gateways = ECHO.replace("):\n    def", "):\n    gateway = [hooks.Webhook, IdentityGateway]\n\n    def")
    place = made(
        tmp_path,
        config,
        echo=gateways,
        broken="class (",
        taken=ECHO.replace("Echo", "metrics"),
        other=ECHO.replace("Echo", "Other"),
    )
    settings, _ = load_settings(place)
    assert settings.dspy_cli is not None
    notes = "\n".join(settings.dspy_cli.notes)
    assert settings.dspy_cli.programs == ("Echo", "Other")
    assert [one.name for one in settings.programs] == ["Echo", "Other", "metrics"]
    for part in (
        "model main: asked over the chat interface",
        "model local: the api_key in the file is not read",
        "/metrics is an address of DSPex",
        "the gateway Webhook of Echo is not run",
        "broken.py can't be read",
        "program_models names Gone",
    ):
        assert part in notes
    assert "placeholder" not in settings.model_dump_json()
    assert settings.models.registry["local"].api_base == "http://localhost:11434/v1"
    modes = {one.name: one.cache and one.cache.mode for one in settings.programs}
    assert modes == {"Echo": "off", "Other": None, "metrics": "off"}
    assert settings.server.cors_origins == ("https://app.example.com",)
    monkeypatch.setenv("DSPY_CORS_ORIGINS", "https://a.example, https://b.example")
    assert load_settings(place)[0].server.cors_origins == ("https://a.example", "https://b.example")


def test_keys_come_from_the_variables_of_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_KEY", raising=False)
    place = made(tmp_path, echo=ECHO)
    (place / ".env").write_text("SHOP_KEY=sk-from-dotenv\n")
    settings, _ = load_settings(place)
    assert os.environ.pop("SHOP_KEY") == "sk-from-dotenv"
    assert "sk-from-dotenv" not in settings.model_dump_json()


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ("app_id: x", "`models` has to be a mapping with `default` with `registry`"),
        ("models: {default: a}", "`models` has to be a mapping"),
        ("models: {default: a, registry: [b]}", "`registry` has to be a mapping"),
        ("models: {default: a, registry: {a: b}}", "models.registry.a has to be a mapping"),
        ("models: {default: a, registry: {b: {model: openai/x}}}", "'a' is not in models.registry"),
        (
            "models: {default: a, registry: {a: {model: openai/x, temperature: hot}}}",
            "/models/registry/a/temperature",
        ),
        ("models: {default: a, registry: {a: {model: openai/x, model_type: text}}}", "model_type 'text'"),
        ("models: {default: a, registry: {a: {}}}", "/models/registry/a/model"),
        ("models: {default: a, registry: {a: {model: openai/x}}}\nprogram_models: [x]", "`program_models`"),
        (
            "models: {default: a, registry: {a: {model: openai/x}}}\nprogram_models: {Echo: c}",
            "'c' is not in",
        ),
        ("models: {default: a, registry: {a: {model: openai/x}}}\nserver: 5", "`server`"),
        ("[1]", "must hold a mapping"),
        ("{", "can't be read"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, config: str, what: str) -> None:
    assert what in refusal(made(tmp_path, config, echo=ECHO)).message


def test_mistakes_in_the_directory_are_named(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "dspy.config.yaml").write_text(CONFIG)
    assert "src/ has to hold one package" in refusal(bare).message
    (bare / "src" / "one").mkdir(parents=True)
    (bare / "src" / "one" / "__init__.py").touch()
    assert "no directory src/one/modules" in refusal(bare).message
    (bare / "src" / "two").mkdir()
    (bare / "src" / "two" / "__init__.py").touch()
    assert "it has one, two" in refusal(bare).message
    twice = made(tmp_path / "twice", a=ECHO, b=ECHO)
    assert (
        "two modules are called Echo: shop.modules.a:Echo and shop.modules.b:Echo" in refusal(twice).message
    )


def test_a_new_module_is_there_after_a_reload(tmp_path: Path) -> None:
    place = made(tmp_path, echo=ECHO)
    before, _ = load_settings(place)
    (place / "src" / "shop" / "modules" / "more.py").write_text(ECHO.replace("Echo", "More"))
    after, waiting = reloaded(before, load_settings(place)[0])
    assert after.dspy_cli is not None
    assert (after.dspy_cli.programs, waiting) == (("Echo", "More"), [])
