"""What is said of a batch at its end."""

from dspex.interfaces.cli.batch_output import Summary

DONE = {"status": "completed", "error": None}


def failed(code: str, message: str) -> dict[str, object]:
    return {"status": "failed", "error": {"code": code, "message": message}}


def test_one_reason_for_all_failures_is_told_as_the_first_said_it() -> None:
    summary = Summary(2)
    assert summary.reason() is None
    summary.count(failed("lm_auth", "The key is wrong."))
    summary.count(failed("lm_auth", "The key is wrong too."))
    assert summary.reason() == "lm_auth: The key is wrong."
    assert summary.to_json() == {"items": 2, "completed": 0, "failed": 2}


def test_several_reasons_or_a_success_are_no_reason_for_all() -> None:
    for other in (failed("lm_timeout", "Too slow."), DONE):
        summary = Summary(2)
        summary.count(failed("lm_auth", "The key is wrong."))
        summary.count(other)
        assert summary.reason() is None
