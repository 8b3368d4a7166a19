"""The stream of an optimization: as that of an execution, until the node says that nothing more may be spent."""

from collections.abc import Mapping
from typing import Any

from dspex.providers.dspy_worker.conversation import CallFailed, Conversation
from dspex.providers.worker_protocol import worker_pb2 as wire

BUDGET = "optimization_budget"
# Characters that an optimization may print into the log.
MOST_PRINTED = 256_000


class BudgetSpent(BaseException):
    """Ends an optimizer. Not an Exception: DSPy takes those for bad candidates and goes on."""

    def __init__(self, failed: CallFailed) -> None:
        super().__init__(str(failed))
        self.failed = failed


class OptimizingConversation(Conversation):
    most_printed = MOST_PRINTED

    def __init__(self, context: Any, optimization_id: str) -> None:
        super().__init__(context, optimization_id, stream=False)
        self.spent: BudgetSpent | None = None
        # The last call that failed, since DSPy may not say what made it give up.
        self.failed: CallFailed | None = None

    def ask_from_thread(
        self, request: Mapping[str, Any], kind: int = wire.ModelCall.COMPLETION
    ) -> dict[str, Any]:
        """As it is for executions. Raises BudgetSpent, from then on without asking."""
        if self.spent is not None:
            raise BudgetSpent(self.spent.failed)
        try:
            return super().ask_from_thread(request, kind)
        except CallFailed as failed:
            raise self._judged(failed) from None

    async def ask_from_loop(
        self, request: Mapping[str, Any], kind: int = wire.ModelCall.COMPLETION
    ) -> dict[str, Any]:
        if self.spent is not None:
            raise BudgetSpent(self.spent.failed)
        try:
            return await super().ask_from_loop(request, kind)
        except CallFailed as failed:
            raise self._judged(failed) from None

    def _judged(self, failed: CallFailed) -> BaseException:
        self.failed = failed
        if failed.error.get("code") != BUDGET:
            return failed
        self.spent = BudgetSpent(failed)
        return self.spent

    def printed(self, stream: str, text: str) -> None:
        # A progress bar draws itself anew over and over.
        if not text.startswith("\r"):
            super().printed(stream, text)
