"""DSPex inside another program."""

from pathlib import Path

import pytest

import dspex
from dspex.observability.facts import AlertRaised, AlertResolved

DECLARED = """\
alerts: {slow_execution_s: 60, window_s: 10}
programs:
  - name: qa
    signature: "question -> answer"
    executor: mock
    mock: {rules: [{when: {question: break}, fault: {kind: unavailable}}]}
"""


def test_a_handler_of_ones_own_hears_of_alerts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dspex.yaml").write_text(DECLARED, encoding="utf-8")
    heard: list[AlertRaised | AlertResolved] = []
    with dspex.open("dspex.yaml") as node:
        node.subscribe(AlertRaised, heard.append)
        node.subscribe(AlertResolved, heard.append)
        for _ in range(10):
            assert node.predict("qa", {"question": "break"})["status"] == "failed"
        (raised,) = heard
        assert raised.alert.message == "100.0% of qa's executions failed; the limit is 10.0%."
        for _ in range(91):
            node.predict("qa", {"question": "answer"})
    assert [type(fact) for fact in heard] == [AlertRaised, AlertResolved]
    assert heard[1].alert.id == raised.alert.id
