"""Logs: whose request a line is, and that no secret is in any."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from dspex.application.observing import hide_secrets
from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.configuration.settings import Settings
from dspex.observability import masking
from dspex.observability.logs import Format, configure_logs, entered, left
from dspex.observability.masking import keep_secret, mask
from dspex.observability.request_log import JsonLines, request_log

OWN_KEY = "dx_01a1fddd4bb7_Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Logs and what they mask are one for the process."""
    root, pattern, known = logging.getLogger(), masking._pattern, masking._known
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], masking._pattern, masking._known = handlers, pattern, known
    root.setLevel(level)
    structlog.reset_defaults()


def logged(form: Format = "json") -> io.StringIO:
    """Where everything that is logged from now on goes."""
    configure_logs("info", form)
    stream = io.StringIO()
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_every_line_of_a_request_has_its_id() -> None:
    stream = logged()
    log = structlog.get_logger("test")

    async def request(request_id: str, trace_id: str | None) -> None:
        token = entered(request_id, trace_id)
        await asyncio.sleep(0)
        log.info("ours")
        logging.getLogger("library").warning("theirs")
        await asyncio.create_task(inner())
        await asyncio.to_thread(log.info, "in a thread")
        left(token)

    async def inner() -> None:
        log.info("within")

    await asyncio.gather(request("r1", "t1"), request("r2", None))
    log.info("outside")
    found = lines(stream)
    assert len(found) == 9
    assert {one["event"] for one in found if one.get("request_id") == "r1"} == {
        "ours",
        "theirs",
        "within",
        "in a thread",
    }
    assert {one.get("trace_id") for one in found if one.get("request_id") == "r2"} == {None}
    assert {one.get("trace_id") for one in found if one.get("request_id") == "r1"} == {"t1"}
    assert "request_id" not in found[-1]


async def test_an_id_that_a_line_names_itself_stays() -> None:
    stream = logged()
    token = entered("r1", None)
    structlog.get_logger("test").info("x", request_id="another")
    left(token)
    assert lines(stream)[0]["request_id"] == "another"


@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_are_masked_wherever_they_are_in_a_line(form: Format) -> None:
    secrets = ["sk-live-0123456789abcdef", 'quo"ted\\zebra', "пароль-длинный", "whsec_55aa55aa"]
    keep_secret(secrets)
    stream = logged(form)
    log = structlog.get_logger("test")
    for secret in [*secrets, OWN_KEY]:
        log.info(f"event {secret}", member=secret, nested={"deep": [secret]}, raw=secret.encode())
        logging.getLogger("library").error("theirs %s %r", secret, secret)
        try:
            raise ValueError(f"could not use {secret!r}, that is {secret}")
        except ValueError:
            log.exception("failed")
            logging.getLogger("library").exception("theirs failed")
    text = stream.getvalue()
    assert text.count("***") >= 5 * len(secrets)
    for part in ("0123456789abcdef", 'quo"ted', "zebra", "парол", "\\u043f", "55aa55aa", "Zm9v"):
        assert part not in text, part


def test_a_traceback_of_a_worker_stands_below_its_line_on_a_terminal_and_in_it_for_machines() -> None:
    keep_secret(["sk-live-0123456789abcdef"])
    told = "Traceback (most recent call last):\n  in forward\nValueError: sk-live-0123456789abcdef\n"
    stream = logged("console")
    structlog.get_logger("test").error("program_raised", traceback=told)
    assert "\nTraceback (most recent call last):\n  in forward\nValueError: ***" in stream.getvalue()
    stream = logged("json")
    structlog.get_logger("test").error("program_raised", traceback=told)
    (line,) = lines(stream)
    assert line["traceback"].endswith("  in forward\nValueError: ***\n")


def test_a_secret_that_begins_another_leaves_nothing_of_it() -> None:
    keep_secret(["abcdef", "abcdefghijkl"])
    assert mask("abcdefghijkl abcdef") == "*** ***"


def test_short_values_are_no_secrets() -> None:
    keep_secret(["test", ""])
    assert mask("a test") == "a test"


def test_request_lines_mask_what_a_caller_put_into_its_id() -> None:
    stream = io.BytesIO()
    JsonLines(stream)("GET", "/", 200, 1.0, f"mine-{OWN_KEY}", None, "t1")
    line = json.loads(stream.getvalue())
    assert (line["request_id"], line["trace_id"]) == ("mine-***", "t1")


def test_a_request_without_an_execution_names_none() -> None:
    stream = logged("console")
    write = request_log("info", "console")
    assert write is not None
    write("GET", "/", 200, 1.0, "r1", None)
    write("POST", "/v1/predict", 200, 1.0, "r2", "e1")
    first, second = stream.getvalue().splitlines()
    assert "r1" in first and "execution_id" not in first
    assert "execution_id" in second


def test_the_node_hides_every_secret_that_it_was_given(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("secret") / "key"
    file.write_text("key-from-a-file\n")
    models = ModelRegistry(
        default="a",
        registry={
            "a": ModelSettings(model="openai/x", env="MY_VARIABLE"),
            "b": ModelSettings(model="anthropic/y", env="IN_FILE"),
        },
    )
    settings = Settings(
        database_url="postgresql://dspex:p%40ssw0rd-db@db:5432/dspex",
        redis_url="redis://:redis-pass-word@cache:6379/0",
        models=models,
        alerts={"webhooks": [{"url": "https://example.com/hook", "secret_env": "HOOK"}]},  # type: ignore[arg-type]
    )
    environ = {
        "MY_VARIABLE": "key-that-is-named",
        "IN_FILE_FILE": str(file),
        "ANTHROPIC_API_KEY": "usual-key-of-a-provider",
        "GITHUB_TOKEN": "some-other-token",
        "HOOK": "signing-secret",
        "SENTRY_DSN": "https://sentrypublickey@sentry.example/1",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20otlp-token,x-other=header-two",
        "HOME": "/home/somebody",
    }
    hide_secrets(settings, environ)
    for value in (
        "key-that-is-named",
        "key-from-a-file",
        "usual-key-of-a-provider",
        "some-other-token",
        "signing-secret",
        "sentrypublickey",
        "p%40ssw0rd-db",
        "p@ssw0rd-db",
        "redis-pass-word",
        "Bearer otlp-token",
        "header-two",
    ):
        assert mask(f"<{value}>") == "<***>", value
    assert mask("/home/somebody") == "/home/somebody"
