"""What every interface is given: the services of one running node."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from dspex.configuration.settings import Settings
from dspex.executions.catalog import Catalog
from dspex.executions.idempotency import Idempotency
from dspex.executions.ports import ExecutionReader
from dspex.executions.predictions import Predictions
from dspex.kit.clock import Clock
from dspex.programs.ports import ProgramReader
from dspex.programs.service import ProgramService
from dspex.signatures.service import SignatureService


@dataclass(frozen=True, slots=True)
class Check:
    """Something the node can't serve without; `probe` raises a DspexError while it is away."""

    name: str
    probe: Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    clock: Clock
    started_at: datetime
    catalog: Catalog
    predictions: Predictions
    idempotency: Idempotency
    executions: ExecutionReader
    compiled: ProgramReader
    programs: ProgramService
    signatures: SignatureService
    checks: tuple[Check, ...]
