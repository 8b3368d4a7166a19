"""What every interface is given: the services of one running node."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from dspex.access.audit import Audit
from dspex.access.authentication import Authenticator
from dspex.access.service import Keys
from dspex.configuration.settings import Settings
from dspex.executions.catalog import Catalog
from dspex.executions.elsewhere import Elsewhere
from dspex.executions.embedding import Embeddings
from dspex.executions.idempotency import Idempotency
from dspex.executions.ports import ExecutionAnalytics, ExecutionReader, Nodes, PoolsView
from dspex.executions.predictions import Predictions
from dspex.executions.streams import Streams
from dspex.gateway.answers import Caches
from dspex.gateway.breakers import Breakers
from dspex.gateway.ports import BudgetLedger
from dspex.gateway.steps.lanes import Lanes
from dspex.jobs.ports import Handler
from dspex.jobs.service import Jobs
from dspex.kit.clock import Clock
from dspex.kit.signals import Signals
from dspex.observability.observed import Observed
from dspex.programs.definitions import CodeDigest
from dspex.programs.ports import Inspector, ProgramReader
from dspex.programs.python_signatures import PythonSignatures
from dspex.programs.service import ProgramService
from dspex.signatures.service import SignatureService

if TYPE_CHECKING:
    # Made later, by `kit.later`.
    from dspex.datasets.service import Datasets
    from dspex.evaluations.service import Evaluations
    from dspex.executions.background.service import Background
    from dspex.executions.batches.service import Batches
    from dspex.executions.feedback.service import Feedbacks
    from dspex.optimizations.service import Optimizations


class Check(Struct, frozen=True):
    """Something the node can't serve without; `probe` raises a DspexError while it is away."""

    name: str
    probe: Callable[[], Awaitable[object]]


class Services(Struct, frozen=True):
    """One running node. A reload makes new ones on the same foundation."""

    settings: Settings
    clock: Clock
    started_at: datetime
    catalog: Catalog
    predictions: Predictions
    background: "Background"
    batches: "Batches"
    datasets: "Datasets"
    feedback: "Feedbacks"
    evaluations: "Evaluations"
    optimizations: "Optimizations"
    optimizing: Handler
    jobs: Jobs
    embeddings: Embeddings
    idempotency: Idempotency
    executions: ExecutionReader
    budgets: BudgetLedger
    compiled: ProgramReader
    programs: ProgramService
    signatures: SignatureService
    signals: Signals
    nodes: Nodes
    caches: Caches
    keys: Keys
    authenticator: Authenticator
    audit: Audit
    checks: tuple[Check, ...]
    breakers: Breakers
    lanes: Lanes
    analytics: ExecutionAnalytics
    observed: Observed
    code: CodeDigest
    pools: PoolsView
    inspector: Inspector
    python_signatures: PythonSignatures
    streams: Streams
    elsewhere: Elsewhere
