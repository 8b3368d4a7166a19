"""Fine-tuning as DSPy asks for it, done by the node: it has the keys, and it pays."""

from collections.abc import Mapping, Sequence
from typing import Any

from dspy.clients.provider import Provider, TrainingJob

from dspex.providers.dspy_worker.engines import GatewayLM
from dspex.providers.dspy_worker.optimizing.conversation import OptimizingConversation
from dspex.providers.worker_protocol import worker_pb2 as wire


class NodeProvider(Provider):  # type: ignore[misc]
    """Of one language model. DSPy calls it in a thread of its own, without the settings of the optimization."""

    def __init__(self, conversation: OptimizingConversation, alias: str | None) -> None:
        super().__init__()
        self.finetunable = True
        self._conversation = conversation
        self._alias = alias

    def __deepcopy__(self, memo: Any) -> "NodeProvider":
        return self

    def finetune(
        self,
        job: TrainingJob,
        model: str,
        train_data: Sequence[Mapping[str, Any]],
        train_data_format: Any,
        train_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The tuned model as DSPy spells it."""
        asked = {
            "alias": self._alias,
            "model": model,
            "examples": list(train_data),
            "options": dict(train_kwargs or {}),
        }
        reply = self._conversation.ask_from_thread(asked, wire.ModelCall.FINE_TUNING)
        provider, _, _ = model.partition("/")
        return f"{provider}/{reply['model']}"


def tunable(lm: GatewayLM, conversation: OptimizingConversation) -> GatewayLM:
    """The same model, which the node can tune."""
    made: GatewayLM = lm.copy()
    made.provider = NodeProvider(conversation, lm.engine.alias)
    return made
