"""What the executions room announces."""

from dataclasses import dataclass

from dspex.executions.records import Execution


@dataclass(frozen=True, slots=True)
class ExecutionFinished:
    """An execution reached its final state and is recorded."""

    execution: Execution
