"""What lives as long as the process: the database, the state of the gateway's steps, the facts, the signals.

Services are put together on top of it, and anew when the configuration is reloaded.
"""

import importlib.util
import os
import platform
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from functools import partial

from msgspec import Struct

from dspex.access.audit import Audit
from dspex.access.authentication import Authenticator
from dspex.access.service import Keys
from dspex.application import seldom
from dspex.application.gateway_parts import GatewayParts, open_gateway_parts
from dspex.application.job_counts import EVERY_S as COUNT_JOBS_S
from dspex.application.job_counts import JobCounts
from dspex.application.jobs_check import JobsCheck
from dspex.application.lazy_pools import LazyPools
from dspex.application.maintenance import DEAD_AFTER, Chore, Maintenance
from dspex.application.observing import observing, unobserved
from dspex.application.optimization_watch import EVERY_S as WATCH_OPTIMIZATIONS_S
from dspex.application.optimization_watch import OptimizationWatch
from dspex.application.pools_everywhere import PoolsEverywhere
from dspex.configuration.settings import Settings
from dspex.executions.catalog import Catalog
from dspex.executions.elsewhere import Elsewhere
from dspex.executions.idempotency import Idempotency
from dspex.executions.streams import FOLLOWED, Streams
from dspex.interfaces.shared.services import Check
from dspex.jobs.ports import Changes
from dspex.jobs.rules import queue_limits
from dspex.jobs.service import Jobs
from dspex.kit.clock import Clock, SystemClock
from dspex.kit.facts import Facts
from dspex.kit.later import later
from dspex.observability.metrics import Gauges, Pool
from dspex.observability.observed import Observed
from dspex.programs.adhoc import AdhocCompiling
from dspex.programs.choosing import ChoosingCompiler
from dspex.programs.python_signatures import PythonSignatures
from dspex.programs.service import ProgramService
from dspex.providers.compiler import SubprocessCompiler
from dspex.providers.python_code import code_digest
from dspex.providers.reply_reader.processes import ReadingProcesses
from dspex.signatures.service import SignatureService
from dspex.storage.opening import Database, open_database
from dspex.storage.signals import DatabaseSignals


class Foundation(Struct, frozen=True):
    """`in_flight` has a count for each of the services on it: while one retires there are two."""

    clock: Clock
    started_at: datetime
    facts: Facts
    node: str
    database: Database
    signals: DatabaseSignals
    keys: Keys
    authenticator: Authenticator
    audit: Audit
    catalog: Catalog
    programs: ProgramService
    python_signatures: PythonSignatures
    adhoc: AdhocCompiling
    idempotency: Idempotency
    signatures: SignatureService
    gateway: GatewayParts
    reading: ReadingProcesses
    pools: LazyPools
    pools_everywhere: PoolsEverywhere
    checks: tuple[Check, ...]
    observed: Observed
    jobs: Jobs
    job_changes: Mapping[str, Changes]
    streams: Streams
    elsewhere: Elsewhere
    in_flight: list[Callable[[], int]]


@asynccontextmanager
async def open_foundation(
    settings: Settings, *, serving: bool = False, kind: str = ""
) -> AsyncIterator[Foundation]:
    """Closed in reverse order at the end: the recorder drains before the database goes.

    `serving` adds what only a long-lived node does: heartbeats, listening to others, orphans, retention. The
    node's name begins with its `kind`.
    """
    clock, facts = SystemClock(), Facts()
    node = f"{kind}{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        pools = LazyPools(settings.pools, settings.code_roots, clock, share=settings.server.workers)
        stack.push_async_callback(pools.aclose)
        compiler = ChoosingCompiler(SubprocessCompiler(), pools)
        reading = ReadingProcesses()
        stack.push_async_callback(reading.aclose)
        signals = DatabaseSignals(database.signals, node)
        pools_everywhere = PoolsEverywhere(pools, signals, database.nodes, clock, node)
        authenticator = Authenticator(database.keys, signals, clock)
        audit = Audit(database.audit, clock)
        stack.push_async_callback(audit.close)
        checks = [Check("database", database.ping), Check("pools", pools.check)]
        programs = ProgramService(
            database.programs, compiler, clock, facts, partial(code_digest, roots=settings.code_roots)
        )
        in_flight: list[Callable[[], int]] = []
        streams = Streams(clock)
        signals.on(FOLLOWED, streams.followed)
        if serving:
            job_counts = JobCounts(database.jobs)
            gauges = Gauges(
                in_flight=lambda: sum(count() for count in in_flight),
                writer_queue=lambda: database.recorder.waiting,
                # The gateway comes later: what its parts announce as they open has to be heard.
                queues=lambda: gateway.lanes.waiting(),  # noqa: PLW0108
                jobs=job_counts,
                worker_pools=pools.view,
                streams=lambda: streams.readers,
                optimizations=lambda: watch.figures(),  # noqa: PLW0108
                pool=lambda: None if (found := database.connections()) is None else Pool(*found),
            )
            watch = OptimizationWatch(job_counts, database.jobs, database.optimizations, programs, clock)
            observed = await stack.enter_async_context(
                observing(settings, facts, clock, node, gauges, database.alerts, watch.running)
            )
            await stack.enter_async_context(pools_everywhere.answering())
            await stack.enter_async_context(signals.listening())
            maintenance = Maintenance(
                database.executions,
                database.nodes,
                database.budgets,
                signals,
                settings.retention,
                clock,
                node,
                audit=database.audit,
                datasets=database.datasets,
                feedback=database.feedback,
                chores=(
                    Chore(authenticator.note_used, 60.0),
                    Chore(audit.flush, 5.0),
                    Chore(job_counts.look, COUNT_JOBS_S),
                    Chore(observed.alerts.prune, 3600.0),
                    Chore(watch.look, WATCH_OPTIMIZATIONS_S),
                ),
            )
            checks.append(Check("heartbeat", maintenance.check))
            checks.append(Check("jobs", JobsCheck(database.jobs, database.nodes, clock).probe))
            await stack.enter_async_context(maintenance.running())
        else:
            observed = unobserved(settings, facts, clock, node)
        changes = later(lambda: seldom.job_changes(database))
        jobs = Jobs(
            database.jobs,
            signals,
            clock,
            changes,
            queue_limits(settings.jobs.queues.items()),
            engine=not settings.jobs.workers or importlib.util.find_spec("dbos") is not None,
        )
        gateway = await stack.enter_async_context(
            open_gateway_parts(settings, database, signals, node, clock, facts, serving=serving)
        )
        yield Foundation(
            clock=clock,
            started_at=clock.now(),
            facts=facts,
            node=node,
            database=database,
            signals=signals,
            keys=Keys(database.keys, signals, clock),
            authenticator=authenticator,
            audit=audit,
            catalog=Catalog(database.programs, clock, facts),
            programs=programs,
            python_signatures=PythonSignatures(database.programs, pools, clock),
            adhoc=AdhocCompiling(database.programs, compiler, clock),
            idempotency=Idempotency(
                database.executions,
                database.nodes,
                clock,
                node,
                dead_after=DEAD_AFTER,
                in_background=jobs.is_open,
            ),
            signatures=SignatureService(database.signatures, clock),
            gateway=gateway,
            reading=reading,
            pools=pools,
            pools_everywhere=pools_everywhere,
            checks=tuple(checks),
            observed=observed,
            jobs=jobs,
            job_changes=changes,
            streams=streams,
            elsewhere=Elsewhere(database.executions, signals),
            in_flight=in_flight,
        )
