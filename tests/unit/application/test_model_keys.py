"""A node says when it starts which of its models can't be called."""

import pytest
from structlog.testing import capture_logs

from dspex.application.model_keys import warn_of_missing_keys
from dspex.configuration.settings import Settings

MODELS = {
    "default": "absent",
    "registry": {
        "absent": {"model": "openai/gpt-4o-mini", "env": "SHOP_KEY"},
        "there": {"model": "openai/gpt-4o-mini", "env": "OTHER_KEY"},
        "own": {"model": "openai/llama", "api_base": "http://127.0.0.1:8100/v1"},
        "usual": {"model": "openai/gpt-4o-mini"},
        "simulated": {"model": "simulator/any"},
    },
}


def test_a_missing_key_is_a_line_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHOP_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    monkeypatch.setenv("OTHER_KEY", "sk-secret")
    with capture_logs() as lines:
        warn_of_missing_keys(Settings(models=MODELS))
    assert [(one["event"], one["model"], one["variable"], one["log_level"]) for one in lines] == [
        ("model_key_missing", "absent", "SHOP_KEY", "warning"),
        ("model_key_missing", "usual", "OPENAI_API_KEY", "warning"),
    ]
    assert "Export SHOP_KEY, or put it into .env" in lines[0]["advice"]
    assert "sk-secret" not in str(lines)
