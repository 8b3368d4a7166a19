"""/v1/programs: register and look at programs."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from dspex.access.records import Principal
from dspex.access.rules import may
from dspex.configuration.alerting import AlertThresholds
from dspex.configuration.gates import Gates
from dspex.configuration.pipelines import PipelineEntry, kind_complaint
from dspex.configuration.settings import PROGRAM_NAME
from dspex.configuration.spending import Budget, RateLimit
from dspex.executions.mock import Mock
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import (
    CachePolicyForm,
    Label,
    ModuleName,
    Paged,
    SignatureForm,
    Strict,
    policy_of,
)
from dspex.interfaces.rest.lifecycle import bring_up, shown_program
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid, Problem
from dspex.programs.definitions import CodeDigest, choose_model, define
from dspex.programs.pipelines.reading import define_pipeline
from dspex.programs.records import Adapter, Definition, ProgramSettings, WantedExecutor

Temperature = Annotated[float, Field(ge=0, le=2)]
MaxTokens = Annotated[int, Field(ge=1, le=10_000_000)]
NO_NUL = r"^[^\x00]*$"
Timeout = Annotated[float, Field(gt=0, le=3600)]


class NewProgram(Strict):
    """A `signature` with its `module`, or a `pipeline`.

    `executor`: auto compiles the program, or runs it with real DSPy in a pool where it can't be compiled exactly;

    native and pool insist; mock answers from the script in `mock`. `config` are the options of the module. A module
    "package.module:Class" and Python functions in `config` need an admin's key. `state` is JSON that DSPy saved.
    `deploy` initializes as well.
    """

    name: Annotated[str, Field(pattern=PROGRAM_NAME)]
    signature: SignatureForm = None
    pipeline: PipelineEntry | None = None
    module: ModuleName = "predict"
    config: dict[str, Any] = Field(default_factory=dict)
    description: Annotated[str, Field(max_length=2000, pattern=NO_NUL)] | None = None
    model: Label | None = None
    adapter: Adapter = "chat"
    temperature: Temperature | None = None
    max_tokens: MaxTokens | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    executor: Literal["auto", "native", "pool", "mock"] = "auto"
    mock: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    timeout_s: Timeout | None = None
    on_violation: Literal["report", "fail"] = "report"
    cache: CachePolicyForm | None = None
    rate_limit: RateLimit | None = None
    budget: Budget | None = None
    alerts: AlertThresholds | None = None
    gates: Gates | None = None
    initialize: bool = False
    deploy: bool = False


class ProgramList(Paged):
    include_archived: bool = False


def programs_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/programs", tags=["programs"])
    programs = services.programs

    @router.post(
        "",
        status_code=201,
        response_model=shown.Program,
        dependencies=[needs("programs:write", audit="program.create")],
    )
    async def create_program(caller: Caller, body: NewProgram) -> Document:
        """Register a program with its first version: a draft, unless `initialize` or `deploy` is true.

        A version that can't be initialized is registered all the same, with status `error` and the reason.
        """
        definition = await new_definition(body, services, caller)
        settings = ProgramSettings(
            body.timeout_s,
            body.on_violation,
            cache=None if body.cache is None else policy_of(body.cache),
            rate_limit=body.rate_limit,
            budget=body.budget,
            alerts=body.alerts,
            gates=body.gates,
        )
        program, version = await programs.create(
            caller.project,
            body.name,
            definition,
            settings=settings,
            source="api",
            description=body.description,
        )
        await bring_up(services, program, version, initialize=body.initialize, deploy=body.deploy)
        program = await programs.get(caller.project, program.name)
        return Document(
            await shown_program(services, program), 201, {"location": f"/v1/programs/{program.name}"}
        )

    @router.get("", response_model=shown.Listed[shown.Program], dependencies=[needs("programs:read")])
    async def list_programs(caller: Caller, query: Annotated[ProgramList, Query()]) -> Document:
        """Programs by name."""
        page = await programs.list(
            caller.project, include_archived=query.include_archived, limit=query.limit, cursor=query.cursor
        )
        statuses = await programs.statuses(caller.project, page.data)
        data = [presenters.program(one, statuses[one.id], await programs.current(one)) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    @router.get("/{name}", response_model=shown.Program, dependencies=[needs("programs:read")])
    async def get_program(caller: Caller, name: str) -> Document:
        """A program with the version that answers, or the newest while none is deployed."""
        return Document(await shown_program(services, await programs.get(caller.project, name)))

    return router


async def new_definition(body: NewProgram, services: Services, caller: Principal) -> Definition:
    """Raises Invalid, with pointers into the body."""
    lm = choose_model(
        services.settings.models,
        body.model,
        temperature=body.temperature,
        max_tokens=body.max_tokens,
        options=body.options,
    )
    code = code_of(services, caller)
    mock = checked_mock(body.executor, body.mock)
    executor: WantedExecutor = "auto" if body.executor == "mock" else body.executor
    if complaint := kind_complaint(body.signature, body.pipeline, body.module):
        raise bad_kind(complaint, body.pipeline)
    if body.pipeline is not None:
        return define_pipeline(
            await services.python_signatures.pipeline(caller.project, body.pipeline, code),
            services.settings.models,
            body.adapter,
            lm,
            body.state,
            mock,
            config=body.config,
            executor=executor,
            code=code,
        )
    return define(
        await services.python_signatures.resolved(caller.project, body.signature, code),
        body.module,
        body.adapter,
        lm,
        body.state,
        mock,
        config=body.config,
        executor=executor,
        code=code,
    )


def code_of(services: Services, caller: Principal) -> CodeDigest | None:
    """How Python code is found, for callers who may name any."""
    return services.code if may(caller, "programs:code") else None


def bad_kind(complaint: str, pipeline: PipelineEntry | None) -> Invalid:
    pointer = "/signature" if pipeline is None else "/pipeline"
    return Invalid(
        f"What the program is can't be told: {complaint}.",
        code="bad_request",
        problems=[Problem(pointer, "program_kind", complaint)],
    )


def checked_mock(executor: str, mock: dict[str, Any] | None) -> dict[str, Any] | None:
    """The script of a mock program. Raises Invalid for a bad one, and for one that nobody would follow."""
    if executor != "mock":
        if mock is not None:
            raise Invalid(
                "A mock script goes with `executor: mock` only.",
                code="bad_request",
                problems=[Problem("/mock", "not_with_executor", "goes with executor mock only")],
            )
        return None
    Mock(mock or {})
    return mock or {}
