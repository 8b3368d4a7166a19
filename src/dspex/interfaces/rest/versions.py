"""/v1/programs/{name}/...: its versions, what differs between them, moving them, and how they did."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from msgspec.structs import replace
from pydantic import Field

from dspex.access.records import Principal
from dspex.configuration.pipelines import PipelineEntry, kind_complaint
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import (
    LARGEST,
    Label,
    ModuleName,
    Number,
    Paged,
    Period,
    SignatureForm,
    Strict,
)
from dspex.interfaces.rest.forms import Query as QueryForm
from dspex.interfaces.rest.lifecycle import bring_up
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.rest.programs import MaxTokens, Temperature, bad_kind, checked_mock, code_of
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid, Problem
from dspex.programs.definitions import check_options, choose_model, define
from dspex.programs.pipelines.reading import define_pipeline, with_state
from dspex.programs.records import Adapter, Definition, LanguageModelChoice, Version, WantedExecutor


class NewVersion(Strict):
    """What is left out stays as in version `base` (the deployed one, or the newest).

    A new signature or module starts without the base's instructions and demos, unless `state` has them; so does a
    pipeline's step. A `pipeline` is given whole, and goes with changes of adapter, model and options.
    """

    base: Number | None = None
    signature: SignatureForm = None
    pipeline: PipelineEntry | None = None
    module: ModuleName | None = None
    config: dict[str, Any] | None = None
    adapter: Adapter | None = None
    model: Label | None = None
    temperature: Temperature | None = None
    max_tokens: MaxTokens | None = None
    options: dict[str, Any] | None = None
    executor: Literal["auto", "native", "pool", "mock"] | None = None
    mock: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    initialize: bool = False
    deploy: bool = False


class Between(QueryForm):
    before: Number = Field(alias="from", description="A version number.")
    after: Number = Field(alias="to", description="A version number.")


class StatisticsQuery(Period):
    version: Number | None = None


VersionNumber = Annotated[int, Field(ge=1, le=LARGEST)]


def versions_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/programs/{name}", tags=["versions"])
    programs = services.programs

    @router.get(
        "/versions", response_model=shown.Listed[shown.Version], dependencies=[needs("programs:read")]
    )
    async def list_versions(caller: Caller, name: str, query: Annotated[Paged, Query()]) -> Document:
        """Newest first."""
        program = await programs.get(caller.project, name)
        page = await programs.versions(program, limit=query.limit, cursor=query.cursor)
        data = [presenters.program_version(one) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    @router.get("/versions/{number}", response_model=shown.Version, dependencies=[needs("programs:read")])
    async def get_version(caller: Caller, name: str, number: VersionNumber) -> Document:
        return Document(presenters.program_version(await version_of(services, caller.project, name, number)))

    @router.post(
        "/versions",
        status_code=201,
        response_model=shown.Version,
        responses={200: {"model": shown.Version, "description": "This version was there already"}},
        dependencies=[needs("programs:write", audit="program.create_version")],
    )
    async def create_version(caller: Caller, name: str, body: NewVersion) -> Document:
        """A new version from what changes against another one. The same content is the same version."""
        base = await version_of(services, caller.project, name, body.base)
        version, status, headers = await add_version(
            services, caller.project, name, await _changed(base.definition, body, services, caller)
        )
        program = await programs.get(caller.project, name)
        await bring_up(services, program, version, initialize=body.initialize, deploy=body.deploy)
        return Document(
            presenters.program_version(await programs.version_numbered(program, version.number)),
            status,
            headers,
        )

    @router.get("/diff", response_model=shown.Difference, dependencies=[needs("programs:read")])
    async def compare_versions(caller: Caller, name: str, query: Annotated[Between, Query()]) -> Document:
        """Instructions and demos of each predictor, fields of the signature, settings."""
        before, after = (
            await version_of(services, caller.project, name, query.before),
            await version_of(services, caller.project, name, query.after),
        )
        comparison = await programs.compare(before, after)
        return Document(presenters.difference(name, before.number, after.number, comparison))

    @router.get("/stats", response_model=shown.Statistics, dependencies=[needs("costs:read")])
    async def program_statistics(
        caller: Caller, name: str, query: Annotated[StatisticsQuery, Query()]
    ) -> Document:
        """Executions, success, durations, tokens and costs, of all versions or of one."""
        await version_of(services, caller.project, name, query.version)
        found = await services.executions.statistics(
            caller.project, name, version=query.version, since=query.since, until=query.until
        )
        return Document(presenters.statistics(name, query.version, found))

    return router


async def version_of(services: Services, project: str, name: str, number: int | None) -> Version:
    """The version of this number, or the one that answers. Raises Missing."""
    program = await services.programs.get(project, name)
    if number is None:
        return await services.programs.current(program)
    return await services.programs.version_numbered(program, number)


async def add_version(
    services: Services, project: str, name: str, definition: Definition
) -> tuple[Version, int, dict[str, str]]:
    """The version, and how to say so: 201, or 200 when the program has exactly this one already."""
    program = await services.programs.get(project, name)
    newest = await services.programs.newest(program)
    version = await services.programs.add_version(program, definition)
    location = {"location": f"/v1/programs/{name}/versions/{version.number}"}
    return version, 201 if version.number > newest.number else 200, location


async def _changed(base: Definition, body: NewVersion, services: Services, caller: Principal) -> Definition:
    executor = body.executor or ("mock" if base.mock is not None else base.executor)
    script = body.mock if body.mock is not None or executor != "mock" else dict(base.mock or {})
    if body.pipeline is not None or (base.module == "pipeline" and body.signature is None):
        return await _changed_pipeline(base, body, services, caller, checked_mock(executor, script))
    module = body.module or ("predict" if base.module == "pipeline" else base.module)
    same_module = body.module is None and base.module != "pipeline"
    code = code_of(services, caller)
    # An empty one is a module's own.
    signature = body.signature if body.signature is not None else base.signature or None
    changed = define(
        await services.python_signatures.resolved(caller.project, signature, code),
        module,
        body.adapter or base.adapter,
        _language_model(base.lm, body, services),
        body.state,
        checked_mock(executor, script),
        config=body.config if body.config is not None else base.config if same_module else {},
        executor="auto" if executor == "mock" else executor,
        code=code,
    )
    kept = (changed.signature, changed.module, changed.config) == (base.signature, base.module, base.config)
    return replace(changed, state=base.state) if body.state is None and kept else changed


async def _changed_pipeline(
    base: Definition,
    body: NewVersion,
    services: Services,
    caller: Principal,
    mock: dict[str, Any] | None,
) -> Definition:
    executor: WantedExecutor = base.executor
    if body.executor is not None and body.executor != "mock":
        executor = body.executor
    if body.pipeline is None:
        given = [
            name
            for name in ("module", "config", "adapter", "model", "temperature", "max_tokens", "options")
            if getattr(body, name) is not None
        ]
        if given:
            raise Invalid(
                f"This version is a pipeline, and each of its steps has {', '.join(given)} for itself: give the "
                "whole `pipeline` with them.",
                code="bad_request",
                problems=[
                    Problem(f"/{name}", "only_with_pipeline", "goes with `pipeline`") for name in given
                ],
            )
        changed = replace(base, mock=mock, executor=executor)
        return changed if body.state is None else with_state(changed, body.state)
    if complaint := kind_complaint(body.signature, body.pipeline, body.module or "predict"):
        raise bad_kind(complaint, body.pipeline)
    code = code_of(services, caller)
    return define_pipeline(
        await services.python_signatures.pipeline(caller.project, body.pipeline, code),
        services.settings.models,
        body.adapter or base.adapter,
        _language_model(base.lm, body, services),
        body.state,
        mock,
        config=body.config or {},
        executor=executor,
        code=code,
        base=base,
    )


def _language_model(base: LanguageModelChoice, body: NewVersion, services: Services) -> LanguageModelChoice:
    """The base's model with its options changed; with `model` given, what that alias means today."""
    own = {"temperature": body.temperature, "max_tokens": body.max_tokens, **(body.options or {})}
    given = {name: value for name, value in own.items() if value is not None}
    if body.model is None:
        check_options(given)
        return replace(base, options={**base.options, **given})
    return choose_model(services.settings.models, body.model, options=given)
