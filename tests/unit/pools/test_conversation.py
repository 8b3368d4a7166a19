"""What a worker says of a failure, and how much of it is believed."""

from typing import Any

import pytest

from dspex.executions.errors import OutputTooLarge, ProgramFailed
from dspex.gateway.errors import LMServerError
from dspex.kit import json
from dspex.kit.errors import DspexError
from dspex.providers.pool.conversation import Conversation, read_answer
from dspex.providers.worker_protocol import worker_pb2 as wire
from tests.plugins.pools import ScriptedHost


@pytest.mark.parametrize("kind", ["invalid", "conflict", "unavailable", "timeout", "internal"])
def test_a_worker_says_what_became_of_the_program(kind: str) -> None:
    failure = Conversation(ScriptedHost()).error_of(wire.Failed(kind=kind, code="mine", message="so it is"))
    assert (failure.kind, failure.code, failure.message) == (kind, "mine", "so it is")


@pytest.mark.parametrize("kind", ["unauthenticated", "forbidden", "exhausted", "missing", "unheard_of", ""])
def test_a_worker_can_say_nothing_about_keys_rights_and_limits(kind: str) -> None:
    failure = Conversation(ScriptedHost()).error_of(wire.Failed(kind=kind, code="mine", message="pay up"))
    assert failure.kind == "internal"


async def test_a_failed_model_call_is_the_nodes_own_error_whatever_the_worker_says_of_it() -> None:
    def fails(_: Any) -> str:
        raise LMServerError("overloaded", retry_after=7)

    conversation = Conversation(ScriptedHost(fails))
    answer = await conversation.reply(wire.ModelCall(id=4, request_json=json.dumps({"model": "m"})))
    assert json.loads(answer.error_json)["kind"] == "unavailable"
    failure = conversation.error_of(wire.Failed(kind="invalid", message="no", call=4))
    assert isinstance(failure, LMServerError)
    assert failure.retry_after == 7
    assert conversation.error_of(wire.Failed(kind="invalid", message="no", call=5)).kind == "invalid"


@pytest.mark.parametrize(
    ("outputs", "violations", "error"),
    [
        (b"[]", b"[]", ProgramFailed),
        (b"{", b"[]", ProgramFailed),
        (b"{}", b"{}", ProgramFailed),
        (b'{"a": "' + b"x" * 100 + b'"}', b"[]", OutputTooLarge),
    ],
)
def test_an_answer_that_can_not_be_read_is_none(
    outputs: bytes, violations: bytes, error: type[DspexError]
) -> None:
    with pytest.raises(error):
        read_answer(wire.Finished(outputs_json=outputs, violations_json=violations), 100)
