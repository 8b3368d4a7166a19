"""Settings: what wins, and what is said about mistakes."""

from pathlib import Path

import pytest

from dspex.configuration.loading import hand_down, load_settings, take_up
from dspex.configuration.settings import Settings
from dspex.kit.errors import Invalid


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refusal(file: Path | None = None) -> Invalid:
    with pytest.raises(Invalid) as caught:
        load_settings(file)
    assert caught.value.code == "bad_configuration"
    return caught.value


def test_nothing_has_to_be_configured() -> None:
    settings, path = load_settings()
    assert path is None
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8000)
    assert settings.database == "sqlite:///.dspex/dspex.db"
    assert settings.simulated


def test_command_line_over_environment_over_dotenv_over_file(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place / "dspex.yaml", "server: {host: from-file, port: 1, workers: 2, drain_s: 3}")
    write(place / ".env", "DSPEX_SERVER__PORT=10\nDSPEX_SERVER__WORKERS=20\nDSPEX_SERVER__DRAIN_S=30\n")
    monkeypatch.setenv("DSPEX_SERVER__WORKERS", "21")
    monkeypatch.setenv("DSPEX_SERVER__DRAIN_S", "31")
    settings, path = load_settings(server={"drain_s": 32})
    assert path == Path("dspex.yaml")
    server = settings.server
    assert (server.host, server.port, server.workers, server.drain_s) == ("from-file", 10, 21, 32)


def test_a_whole_section_may_come_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_RETENTION", '{"days": null, "rows": 5}')
    monkeypatch.setenv("DSPEX_SERVER__ALLOWED_HOSTS", '["dspex.example.com"]')
    settings, _ = load_settings()
    assert (settings.retention.days, settings.retention.rows) == (None, 5)
    assert settings.server.allowed_hosts == ("dspex.example.com",)


def test_a_model_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_MODELS__DEFAULT", "main")
    monkeypatch.setenv("DSPEX_MODELS__REGISTRY__MAIN__MODEL", "openai/gpt-4o-mini")
    settings, _ = load_settings()
    assert list(settings.models.registry) == ["main"]
    assert not settings.simulated


@pytest.mark.parametrize("variable", ["DATABASE_URL", "DSPEX_DATABASE_URL"])
def test_the_database_of_the_environment_wins_over_the_file(
    variable: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place / "dspex.yaml", "database_url: sqlite:///file.db")
    assert load_settings()[0].database == "sqlite:///file.db"
    monkeypatch.setenv(variable, "postgresql://dspex@db/dspex")
    assert load_settings()[0].database == "postgresql://dspex@db/dspex"


def test_sqlite_is_kept_in_the_data_directory() -> None:
    settings, _ = load_settings(data_dir=Path("/var/lib/dspex"))
    assert settings.database == "sqlite:////var/lib/dspex/dspex.db"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://dspex:s3cret@db:5432/dspex", "postgresql://dspex:***@db:5432/dspex"),
        ("postgresql://dspex:p@ss:word@db/dspex", "postgresql://dspex:***@db/dspex"),
        ("postgresql://dspex:p@s/s:wo#rd@db/dspex", "postgresql://dspex:***@db/dspex"),
        ("postgresql://dspex@db/dspex", "postgresql://dspex@db/dspex"),
        ("postgresql://db/dspex?user=u&password=secret", "postgresql://db/dspex?***"),
        ("postgresql://db/dspex?user=u&password=se@cret", "postgresql://***"),
        ("postgresql://dspex:s3?cret@db/dspex", "postgresql://***"),
        ("postgresql://dspex:s3cret@[::1/dspex", "postgresql://dspex:***@[::1/dspex"),
        ("postgresql://dspex:s3cret@db:99999/dspex", "postgresql://dspex:***@db:99999/dspex"),
        ("host=db password=s3cret", "***"),
        ("sqlite:////var/a@b/dspex.db", "sqlite:////var/a@b/dspex.db"),
        ("sqlite:////var/lib/dspex.db", "sqlite:////var/lib/dspex.db"),
    ],
)
def test_a_database_is_shown_without_its_password(url: str, shown: str) -> None:
    assert Settings(database_url=url).database_without_secrets == shown


def test_unknown_settings_are_mistakes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place / "dspex.yaml", "modells: {}\nserver: {hostname: x}")
    assert {one.pointer for one in refusal().problems} == {"/modells", "/server/hostname"}
    write(place / "dspex.yaml", "")
    monkeypatch.setenv("DSPEX_SERVER__HOSTNAME", "x")
    assert [one.pointer for one in refusal().problems] == ["/server/hostname"]


def test_every_mistake_is_reported_at_once(place: Path) -> None:
    file = write(
        place / "bad.yaml",
        """
        server: {port: 80000}
        models: {default: main, registry: {main: {model: openai/gpt-4o-mini, temprature: 0.0}}}
        programs:
          - {name: "q a", signature: "question -> answer"}
          - {name: qa}
          - {name: x, signature: "a -> b", module: "re act"}
        """,
    )
    refused = refusal(file)
    places = {
        "/server/port",
        "/models/registry/main/temprature",
        "/programs/0/name",
        "/programs/1/signature",
        "/programs/2/module",
    }
    assert {one.pointer for one in refused.problems} == places
    assert str(file) in refused.message
    assert all(one in refused.message for one in places)


def test_what_sections_say_of_each_other_is_reported_at_once(place: Path) -> None:
    file = write(
        place / "bad.yaml",
        """
        models: {default: other, registry: {main: {model: openai/gpt-4o-mini}}}
        programs:
          - {name: qa, signature: "question -> answer", model: big}
          - {name: qa, signature: "question -> answer"}
        """,
    )
    assert [(one.pointer, one.code) for one in refusal(file).problems] == [
        ("/models/default", "unknown_model"),
        ("/programs/0/model", "unknown_model"),
        ("/programs/1/name", "duplicate"),
    ]


@pytest.mark.parametrize(
    "address",
    [
        "ftp://hush.example",
        "llm.example/v1",
        "https://",
        "https://hush.example:99999",
        "https://hush.example:port",
        "https://[::1",
        "https://user:hush@llm.example/v1",
        "https://hush@llm.example/v1",
        "https://llm.example/v1?key=hush",
        "https://llm.example/v1#hush",
        "https://llm.example/v 1",
    ],
)
def test_an_address_of_a_model_that_can_not_be_used_is_a_mistake(address: str, place: Path) -> None:
    text = f'models: {{default: a, registry: {{a: {{model: openai/x, api_base: "{address}"}}}}}}'
    refused = refusal(write(place / "bad.yaml", text))
    assert [one.pointer for one in refused.problems] == ["/models/registry/a/api_base"]
    assert "hush" not in refused.message


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9000/v1", "http://[::1]:9000", "https://llm.example/v1/"]
)
def test_an_address_of_a_model_is_taken_as_written(address: str, place: Path) -> None:
    text = f'models: {{default: a, registry: {{a: {{model: openai/x, api_base: "{address}"}}}}}}'
    settings, _ = load_settings(write(place / "good.yaml", text))
    assert settings.models.registry["a"].api_base == address


def test_a_key_among_the_options_of_a_model_is_a_mistake(place: Path) -> None:
    text = "models: {default: a, registry: {a: {model: openai/x, options: {api_key: hush, top_p: 0.5}}}}"
    refused = refusal(write(place / "bad.yaml", text))
    assert [(one.pointer, one.code) for one in refused.problems] == [
        ("/models/registry/a/options/api_key", "unsupported_option")
    ]
    assert "`env`" in refused.message
    assert "hush" not in refused.message


def test_embedding_models_are_for_embeddings(place: Path) -> None:
    write(
        place / "dspex.yaml",
        """
        models:
          default: main
          registry:
            main: {model: openai/gpt-4o-mini}
            small:
              model: openai/text-embedding-3-small
              model_type: embedding
              embedding: {dimensions: 256, batch_texts: 10}
              pricing: {input_per_million: 0.02}
        """,
    )
    settings = load_settings()[0]
    assert settings.models.registry["small"].embedding.dimensions == 256
    assert take_up(hand_down(settings)).models == settings.models


@pytest.mark.parametrize(
    ("models", "pointer"),
    [
        ("{default: small, registry: {small: EMBEDDING}}", "/models/default"),
        (
            "{default: main, registry: {small: EMBEDDING, main: {model: openai/x, fallbacks: [small]}}}",
            "/models/registry/main/fallbacks",
        ),
        ("{default: main, registry: {main: CHAT, small: {model: openai/x, model_type: embedding, max_tokens: 5}}}",
         "/models/registry/small"),
        ("{default: main, registry: {main: CHAT, small: {model: openai/x, model_type: embedding, fallbacks: [main]}}}",
         "/models/registry/small"),
        ("{default: main, registry: {main: {model: openai/x, embedding: {dimensions: 8}}}}", "/models/registry/main"),
        ("{default: main, registry: {main: {model: openai/x, pricing: {input_per_million: 1}}}}",
         "/models/registry/main"),
    ],
)  # fmt: skip
def test_what_an_embedding_model_can_not_be_is_a_mistake(models: str, pointer: str, place: Path) -> None:
    embedding = "{model: openai/text-embedding-3-small, model_type: embedding}"
    models = models.replace("EMBEDDING", embedding).replace("CHAT", "{model: openai/x}")
    write(place / "dspex.yaml", f"models: {models}")
    assert [one.pointer for one in refusal().problems] == [pointer]


def test_a_program_can_not_run_on_an_embedding_model(place: Path) -> None:
    write(
        place / "dspex.yaml",
        """
        models: {default: main, registry: {main: {model: openai/x}, small: {model: openai/y, model_type: embedding}}}
        programs: [{name: qa, signature: "question -> answer", model: small}]
        """,
    )
    assert [(one.pointer, one.code) for one in refusal().problems] == [
        ("/programs/0/model", "wrong_model_type")
    ]


def test_a_file_that_was_named_must_be_there(place: Path) -> None:
    with pytest.raises(Invalid, match="dspex init") as caught:
        load_settings(place / "none.yaml")
    assert caught.value.code == "no_configuration_file"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n", "must hold a mapping"),
        ("a: [", "can't be read"),
        ("\x00", "can't be read"),
        ("note: 2026-02-30", "can't be read: day is out of range"),
        ("a: " + "[" * 5000, "can't be read"),
        ("7: x", "names are no text: 7"),
    ],
)
def test_a_file_that_is_no_mapping(text: str, says: str, place: Path) -> None:
    assert says in refusal(write(place / "bad.yaml", text)).message


@pytest.mark.parametrize(
    ("written", "mode"),
    [("on", "on"), ("off", "off"), ("true", "on"), ("read_only", "read_only"), ('"off"', "off")],
)
def test_a_cache_policy_may_be_written_as_yaml_has_it(written: str, mode: str, place: Path) -> None:
    policy = f"{{mode: {written}, max_age_s: 60}}"
    program = f"{{name: a, signature: a -> b, cache: {policy}}}"
    write(place / "dspex.yaml", f"cache: {{policy: {policy}}}\nprograms: [{program}]")
    settings, _ = load_settings()
    assert settings.cache.policy.mode == mode and settings.cache.policy.max_age_s == 60
    assert settings.programs[0].cache == settings.cache.policy


def test_an_empty_file_changes_nothing(place: Path) -> None:
    settings, _ = load_settings(write(place / "empty.yaml", "# nothing yet\n"))
    relative = {"code_paths"}
    assert settings.model_dump(exclude=relative) == Settings().model_dump(exclude=relative)
