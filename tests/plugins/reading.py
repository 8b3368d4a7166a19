"""Reading replies apart, without a process: the same questions and answers as bytes."""

from dspex.executions.native.answers import answer


class ReadsHere:
    """Stands for the process; `asked` counts its questions."""

    def __init__(self) -> None:
        self.asked = 0

    async def ask(self, question: bytes, *, timeout_s: float) -> bytes:
        self.asked += 1
        return answer(question)
