"""DBOS behind `jobs.ports.JobEngine`: it hands each job to one worker, and remembers to whom.

One for each process. Nothing but this package imports dbos.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import dbos
import structlog
from dbos import DBOS

from dspex.jobs.ports import Known
from dspex.jobs.records import QUEUES, Job

log = structlog.get_logger(__name__)
Take = Callable[[str, str, int], Awaitable[None]]
WORKFLOW = "dspex.job"
# What a workflow is given. Workers of another one leave its jobs alone: change it when that changes.
PROTOCOL = "1"
SCHEMA = "dspex_jobs"
POOL_SIZE = 8
PRUNE_BATCH = 500
# How often each queue is looked at. Every look costs 1.5 ms of CPU, so only those that people wait for are in a hurry.
LOOK_S = {
    "llm_calls": 0.1,
    "priority": 0.2,
    "default": 0.2,
    "optimization": 0.3,
    "embeddings": 0.3,
    "cleanup": 1.0,
}
OPEN = ("PENDING", "ENQUEUED", "DELAYED")


class DbosEngine:
    """`address` is a SQLite file of its own, or the PostgreSQL database, where it has a schema of its own.

    `node` is this worker's name among all; `take` is called on the loop that `running` was entered on.
    """

    def __init__(
        self, address: str, node: str, queues: Sequence[str], limits: Mapping[str, int] = QUEUES
    ) -> None:
        self._address = address
        self._node = node
        self._queues = tuple(queues)
        self._limits = limits

    @asynccontextmanager
    async def running(self, take: Take) -> AsyncIterator[None]:
        """Hands out jobs until it is left."""
        loop = asyncio.get_running_loop()

        async def do(project: str, job_id: str, turn: int) -> None:
            # DBOS has a loop of its own, so that it can close down without ours.
            await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(_taken(take, project, job_id, turn), loop)
            )

        await asyncio.to_thread(self._launch, do)
        try:
            yield
        finally:
            await asyncio.to_thread(DBOS.destroy, destroy_registry=True)

    def _launch(self, do: Callable[[str, str, int], Any]) -> None:
        config = dbos.DBOSConfig(
            name="dspex",
            system_database_url=self._address,
            dbos_system_schema=SCHEMA,
            executor_id=self._node,
            application_version=PROTOCOL,
            serializer=dbos.DBOSPortableJSONSerializer(),
            sys_db_pool_size=POOL_SIZE,
            use_listen_notify=False,
            log_level="ERROR",
        )
        if self._address.startswith("sqlite:"):
            path = self._address.removeprefix("sqlite:///")
            prepare_file(path)
            config["db_engine_kwargs"] = {"connect_args": {"factory": Relaxed}}
        DBOS(config=config)
        DBOS.workflow(name=WORKFLOW, max_recovery_attempts=1000)(do)
        # Before the launch: afterwards every queue would be served.
        DBOS.listen_queues(self._queues)
        DBOS.launch()
        for name, limit in self._limits.items():
            DBOS.register_queue(
                name, worker_concurrency=limit, polling_interval_sec=LOOK_S[name], on_conflict="always_update"
            )

    async def enqueue(self, job: Job) -> None:
        options: dbos.EnqueueOptions = {
            "workflow_name": WORKFLOW,
            "queue_name": job.queue,
            "workflow_id": _id_of(job),
            "priority": job.priority,
            "app_version": PROTOCOL,
        }
        await asyncio.to_thread(DBOS.enqueue_workflow_with_options, options, job.project, job.id, job.turn)

    async def known(self, job: Job) -> Known:
        found = await _listed(workflow_ids=[_id_of(job)])
        if not found:
            return "unknown"
        return "open" if found[0].status in OPEN else "ended"

    async def owners(self) -> Sequence[str]:
        pending = await _listed(status="PENDING")
        return sorted({one.executor_id for one in pending if one.executor_id is not None})

    async def take_from(self, nodes: Sequence[str]) -> None:
        # Private, and the only way that keeps a job's place and number of recoveries: see docs/decisions/0012.
        await asyncio.to_thread(DBOS._recover_pending_workflows, list(nodes))

    async def prune(self, *, completed_before: datetime) -> int:
        pruned = 0
        while True:
            found = await _listed(
                completed_before=completed_before.isoformat(),
                status=["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"],
                limit=PRUNE_BATCH,
            )
            if not found:
                return pruned
            await asyncio.to_thread(DBOS.delete_workflows, [one.workflow_id for one in found])
            pruned += len(found)


async def _listed(**which: Any) -> list[dbos.WorkflowStatus]:
    """In a thread: the asynchronous calls would put an executor of DBOS's own into our loop, and close it."""

    def listed() -> list[dbos.WorkflowStatus]:
        return DBOS.list_workflows(load_input=False, load_output=False, **which)

    return await asyncio.to_thread(listed)


async def _taken(take: Take, project: str, job_id: str, turn: int) -> None:
    try:
        await take(project, job_id, turn)
    except Exception:
        # Its row says that it runs here, and the next look after such rows finds it.
        log.exception("job_not_taken", job=job_id)


def _id_of(job: Job) -> str:
    return f"{job.project}:{job.id}:{job.turn}"


class Relaxed(sqlite3.Connection):
    """Loses nothing when a process is killed. After a power loss the sweeper hands in again what is missing."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.execute("PRAGMA synchronous = NORMAL")


def prepare_file(path: str) -> None:
    """Write-ahead logging, so that who reads waits for nobody. It stays with the file."""
    connection = sqlite3.connect(path, timeout=30)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
