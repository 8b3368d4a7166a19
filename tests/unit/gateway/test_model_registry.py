"""From models.registry to clients: keys, addresses, and what happens without them."""

import sys
from pathlib import Path
from typing import Any

import pytest

from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.gateway.errors import LMConfigurationError
from dspex.gateway.ports import LanguageModelClient
from dspex.gateway.records import Dialect, LanguageModelReply, LanguageModelRequest, Message, Options, Usage
from dspex.providers.language_models.http_client import OpenAIChatClient
from dspex.providers.language_models.registry import build_clients
from dspex.providers.secrets import secret
from tests.contracts.scripted_server import ScriptedServer, scripted_server

DONE = {"model": "m", "choices": [{"message": {"content": "ok"}}]}


class Simulated:
    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        return LanguageModelReply("made up", "simulator/default", Usage(), simulated=True)

    async def aclose(self) -> None: ...


def request(dialect: Dialect | None = None) -> LanguageModelRequest:
    dialect = dialect or Dialect(provider="openai-chat", model="m")
    return LanguageModelRequest("main", (Message("user", "Where?"),), Options(max_tokens=9), dialect)


def client(**settings: Any) -> LanguageModelClient:
    registry = ModelRegistry(default="main", registry={"main": ModelSettings(**settings)})
    return build_clients(registry, lambda _: Simulated())["main"]


async def authorization(server: ScriptedServer, **settings: Any) -> str | None:
    server.answers(DONE)
    made = client(api_base=server.url, **settings)
    assert (await made.complete(request())).text == "ok"
    await made.aclose()
    return server.received[-1].headers.get("authorization")


async def test_the_simulator_comes_from_the_factory() -> None:
    assert (await client(model="simulator/default").complete(request())).simulated


async def test_the_key_comes_from_the_variable_that_env_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", " sk-1\n")
    async with scripted_server() as server:
        assert await authorization(server, model="openai/m", env="MY_KEY") == "Bearer sk-1"


async def test_the_key_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-2\n")
    monkeypatch.setenv("MY_KEY_FILE", str(tmp_path / "key"))
    async with scripted_server() as server:
        assert await authorization(server, model="groq/m", env="MY_KEY") == "Bearer sk-2"


async def test_a_providers_usual_key_is_not_sent_to_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-3")
    async with scripted_server() as server:
        assert await authorization(server, model="openai/m") is None


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        ({"model": "openai/m", "env": "NO_SUCH_KEY"}, "NO_SUCH_KEY"),
        ({"model": "openai/m"}, "OPENAI_API_KEY"),
        ({"model": "moonshot/m"}, "MOONSHOT_API_KEY"),
        ({"model": "anthropic/claude"}, "ANTHROPIC_API_KEY"),
        ({"model": "anthropic/claude", "api_base": "http://127.0.0.1:9"}, "ANTHROPIC_API_KEY"),
    ],
)
async def test_a_missing_key_fails_the_call_and_names_the_variable(
    settings: dict[str, str], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "api_base" not in settings:
        monkeypatch.delenv(variable, raising=False)
    else:
        monkeypatch.setenv(variable, "sk-for-another-address")
    dialect = Dialect("anthropic", "anthropic", "claude") if "claude" in settings["model"] else None
    made = client(**settings)
    with pytest.raises(LMConfigurationError, match=variable) as raised:
        await made.complete(request(dialect))
    assert raised.value.code == "lm_key_missing"
    assert "start the service" not in str(raised.value)
    await made.aclose()


async def test_a_key_set_later_is_found_at_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    async with scripted_server() as server:
        server.answers(DONE)
        made = client(model="openai/m", env="MY_KEY", api_base=server.url)
        with pytest.raises(LMConfigurationError):
            await made.complete(request())
        monkeypatch.setenv("MY_KEY", "sk-4")
        assert (await made.complete(request())).text == "ok"
        await made.aclose()


@pytest.mark.parametrize("value", ["sk-\r\nx-evil: 1", "sk-é"])
def test_a_malformed_key_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(LMConfigurationError, match="MY_KEY") as raised:
        secret("MY_KEY", {"MY_KEY": value})
    assert "sk-" not in str(raised.value)


def test_an_unreadable_key_file_is_named_by_its_variable(tmp_path: Path) -> None:
    with pytest.raises(LMConfigurationError, match="MY_KEY_FILE"):
        secret("MY_KEY", {"MY_KEY_FILE": str(tmp_path / "absent")})


@pytest.mark.parametrize(
    "address", ["ftp://example.org", "127.0.0.1:9300/v1", "/v1", "ftp://user:hush@example.org", "https://"]
)
def test_an_address_that_is_none_is_refused_without_its_secrets(address: str) -> None:
    with pytest.raises(LMConfigurationError, match="api_base") as refused:
        OpenAIChatClient(address, None, ModelSettings(model="openai/m"))
    assert "hush" not in refused.value.message


async def test_a_program_compiled_for_another_wire_is_refused() -> None:
    made = client(model="openai/m", api_base="http://127.0.0.1:9")
    with pytest.raises(LMConfigurationError, match="make a new version"):
        await made.complete(request(Dialect("anthropic", "anthropic", "claude")))


def test_building_clients_loads_neither_lm15_nor_prices() -> None:
    import subprocess

    program = (
        "import sys\n"
        "from dspex.configuration.models import ModelRegistry, ModelSettings\n"
        "from dspex.providers.language_models.registry import build_clients\n"
        "from dspex.providers.prices import GenaiPrices\n"
        "from dspex.gateway.service import LanguageModelGateway\n"
        "models = {'a': ModelSettings(model='openai/x'), 'b': ModelSettings(model='anthropic/y')}\n"
        "registry = ModelRegistry(default='a', registry=models)\n"
        "build_clients(registry, None)\n"
        "GenaiPrices(models)\n"
        "loaded = {'lm15', 'genai_prices', 'dspy', 'litellm'} & set(sys.modules)\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
