"""What comes from a worker is checked: users' code may have written it."""

import pytest

from dspex.executions.errors import OutputTooLarge, ProgramFailed
from dspex.providers.pool.conversation import read_answer
from dspex.providers.worker_protocol import worker_pb2 as wire


def test_outputs_are_held_to_the_limit_once_more() -> None:
    finished = wire.Finished(outputs_json=b'{"a": "' + b"x" * 100 + b'"}', violations_json=b"[]")
    assert read_answer(finished, 1000).outputs == {"a": "x" * 100}
    with pytest.raises(OutputTooLarge):
        read_answer(finished, 50)


@pytest.mark.parametrize("outputs", [b"", b"[]", b"3", b"{", b"[" * 100_000])
def test_what_is_no_object_is_no_answer(outputs: bytes) -> None:
    with pytest.raises(ProgramFailed):
        read_answer(wire.Finished(outputs_json=outputs, violations_json=b"[]"), 10**6)
