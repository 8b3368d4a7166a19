"""The worker as a gRPC server on a Unix socket of its own."""

import asyncio
import hashlib
import hmac
import json
import os
import traceback
from collections.abc import AsyncIterator, Mapping
from typing import Any

import dspy
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dspex.executions.errors import ProgramFailed
from dspex.kit.json import dumps
from dspex.providers.dspy_worker.containment import resident_bytes
from dspex.providers.dspy_worker.conversation import Conversation
from dspex.providers.dspy_worker.failing import failed_by
from dspex.providers.dspy_worker.inspecting import inspected, read_signature
from dspex.providers.dspy_worker.optimizing.serving import checked, optimized
from dspex.providers.dspy_worker.running import Runner, failure_of
from dspex.providers.dspy_worker.scoring import scored
from dspex.providers.worker_protocol import PROOF_HEADER, PROTOCOL
from dspex.providers.worker_protocol import worker_pb2 as wire
from dspex.providers.worker_protocol import worker_pb2_grpc as wire_grpc

SERVICE = wire.DESCRIPTOR.services_by_name["Worker"].full_name
OPEN = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
LONGEST_MESSAGE = 64 * 1024 * 1024
# The innermost ones of a traceback, where a program's own code is.
FRAMES = 10


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Lets in who knows the token; health and reflection are for everybody."""

    def __init__(self, token: bytes) -> None:
        self._token = token

        async def refuse(_: Any, context: grpc.aio.ServicerContext) -> None:
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED, "The token of this worker is missing or wrong."
            )

        self._refusal = grpc.unary_unary_rpc_method_handler(refuse)

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        if details.method.startswith(OPEN) or any(
            name == PROOF_HEADER and hmac.compare_digest(value, self._token)
            for name, value in details.invocation_metadata
            if isinstance(value, bytes)
        ):
            return await continuation(details)
        return self._refusal


class Servicer(wire_grpc.WorkerServicer):
    def __init__(self, runner: Runner, token: bytes) -> None:
        self._runner = runner
        self._token = token
        self._executions = 0
        self._served = 0

    async def Greet(self, request: wire.GreetRequest, context: Any) -> wire.GreetReply:
        proof = hmac.new(self._token, request.nonce, hashlib.sha256).digest()
        return wire.GreetReply(protocol=PROTOCOL, proof=proof, pid=os.getpid(), dspy_version=dspy.__version__)

    async def Beat(self, request: wire.BeatRequest, context: Any) -> wire.BeatReply:
        return wire.BeatReply(
            executions=self._executions,
            served=self._served,
            stuck=self._runner.threads.stuck,
            memory_bytes=resident_bytes("self"),
        )

    async def Inspect(self, request: wire.InspectRequest, context: Any) -> wire.InspectReply:
        return await inspected(self._runner, request.program)

    async def ReadSignature(self, request: wire.SignatureRequest, context: Any) -> wire.SignatureReply:
        return await read_signature(request.reference)

    async def Execute(self, request_iterator: AsyncIterator[wire.ToWorker], context: Any) -> None:
        start = (await context.read()).start
        conversation = Conversation(context, start.request_id, start.stream)
        listening = asyncio.create_task(conversation.listen())
        self._executions += 1
        try:
            last = await self._run(start, conversation)
        finally:
            self._executions -= 1
            self._served += 1
            listening.cancel()
            await conversation.close()
        await conversation.send(last)

    async def Score(self, request_iterator: AsyncIterator[wire.ToScorer], context: Any) -> None:
        start = (await context.read()).start
        conversation = Conversation(context, start.request_id, stream=False)
        listening = asyncio.create_task(conversation.listen())
        self._executions += 1
        try:
            last = await scored(self._runner, start, conversation)
        finally:
            self._executions -= 1
            self._served += 1
            listening.cancel()
            await conversation.close()
        await conversation.send(last)

    async def Optimize(self, request_iterator: AsyncIterator[wire.ToWorker], context: Any) -> None:
        await optimized(self._runner, context)

    async def CheckOptimizer(
        self, request: wire.CheckOptimizerRequest, context: Any
    ) -> wire.CheckOptimizerReply:
        return await checked(self._runner, request)

    async def _run(self, start: wire.Start, conversation: Conversation) -> wire.FromWorker:
        try:
            ready = await self._runner.ready(
                start.program.digest, start.program.definition_json, conversation
            )
            prediction = await self._runner.run(
                ready, json.loads(start.inputs_json), json.loads(start.parameters_json), conversation
            )
            answer = ready.judged(prediction, start.output_bytes)
        except Exception as error:
            if failure_of(error).code == ProgramFailed.default_code:
                # For whoever wrote it: the caller is told what was raised, the log where.
                conversation.raised("".join(traceback.format_exception(error, limit=-FRAMES)))
            return wire.FromWorker(failed=failed_by(error))
        violations: list[Mapping[str, Any]] = list(answer.violations)
        return wire.FromWorker(
            finished=wire.Finished(outputs_json=dumps(answer.outputs), violations_json=dumps(violations))
        )


async def serve(path: str, token: bytes, concurrency: int, listening: int) -> None:
    """Until the process ends. Writes a byte to the descriptor `listening` once callers are served."""
    server = grpc.aio.server(
        interceptors=[Guard(token)],
        options=[
            ("grpc.max_receive_message_length", LONGEST_MESSAGE),
            ("grpc.max_send_message_length", LONGEST_MESSAGE),
        ],
    )
    servicer = Servicer(Runner(concurrency), token)
    wire_grpc.add_WorkerServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    await checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    os.write(listening, b"1")
    await server.wait_for_termination()
