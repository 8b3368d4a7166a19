"""/v1/programs/{name}/...: its versions, what differs between them, moving them, and how they did."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import LARGEST, PROJECT, Label, Number, Paged, Period, SignatureForm, Strict
from dspex.interfaces.rest.forms import Query as QueryForm
from dspex.interfaces.rest.programs import (
    MaxTokens,
    Temperature,
    bring_up,
    checked_mock,
)
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.programs.definitions import check_options, choose_model, define
from dspex.programs.records import Definition, LanguageModelChoice, Version


class NewVersion(Strict):
    """What is left out stays as in version `base` (the deployed one, or the newest).

    A new signature or module starts without the base's instructions and demos, unless `state` has them.
    """

    base: Number | None = None
    signature: SignatureForm = None
    module: Literal["predict", "chain_of_thought"] | None = None
    adapter: Literal["chat", "json"] | None = None
    model: Label | None = None
    temperature: Temperature | None = None
    max_tokens: MaxTokens | None = None
    options: dict[str, Any] | None = None
    executor: Literal["auto", "native", "mock"] | None = None
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

    @router.get("/versions", response_model=shown.Listed[shown.Version])
    async def list_versions(name: str, query: Annotated[Paged, Query()]) -> Document:
        """Newest first."""
        program = await programs.get(PROJECT, name)
        page = await programs.versions(program, limit=query.limit, cursor=query.cursor)
        data = [presenters.program_version(one) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    @router.get("/versions/{number}", response_model=shown.Version)
    async def get_version(name: str, number: VersionNumber) -> Document:
        return Document(presenters.program_version(await version_of(services, name, number)))

    @router.post(
        "/versions",
        status_code=201,
        response_model=shown.Version,
        responses={200: {"model": shown.Version, "description": "This version was there already"}},
    )
    async def create_version(name: str, body: NewVersion) -> Document:
        """A new version from what changes against another one. The same content is the same version."""
        base = await version_of(services, name, body.base)
        version, status, headers = await add_version(
            services, name, _changed(base.definition, body, services)
        )
        program = await programs.get(PROJECT, name)
        await bring_up(services, program, version, initialize=body.initialize, deploy=body.deploy)
        return Document(
            presenters.program_version(await programs.version_numbered(program, version.number)),
            status,
            headers,
        )

    @router.get("/diff", response_model=shown.Difference)
    async def compare_versions(name: str, query: Annotated[Between, Query()]) -> Document:
        """Instructions and demos of each predictor, fields of the signature, settings."""
        before, after = (
            await version_of(services, name, query.before),
            await version_of(services, name, query.after),
        )
        comparison = await programs.compare(before, after)
        return Document(presenters.difference(name, before.number, after.number, comparison))

    @router.get("/stats", response_model=shown.Statistics)
    async def program_statistics(name: str, query: Annotated[StatisticsQuery, Query()]) -> Document:
        """Executions, success, durations, tokens and costs, of all versions or of one."""
        await version_of(services, name, query.version)
        found = await services.executions.statistics(
            PROJECT, name, version=query.version, since=query.since, until=query.until
        )
        return Document(presenters.statistics(name, query.version, found))

    return router


async def version_of(services: Services, name: str, number: int | None) -> Version:
    """The version of this number, or the one that answers. Raises Missing."""
    program = await services.programs.get(PROJECT, name)
    if number is None:
        return await services.programs.current(program)
    return await services.programs.version_numbered(program, number)


async def add_version(
    services: Services, name: str, definition: Definition
) -> tuple[Version, int, dict[str, str]]:
    """The version, and how to say so: 201, or 200 when the program has exactly this one already."""
    program = await services.programs.get(PROJECT, name)
    newest = await services.programs.newest(program)
    version = await services.programs.add_version(program, definition)
    location = {"location": f"/v1/programs/{name}/versions/{version.number}"}
    return version, 201 if version.number > newest.number else 200, location


def _changed(base: Definition, body: NewVersion, services: Services) -> Definition:
    executor = body.executor or ("mock" if base.mock is not None else "auto")
    script = body.mock if body.mock is not None or executor != "mock" else dict(base.mock or {})
    signature = base.signature if body.signature is None else body.signature
    module = body.module or base.module
    changed = define(
        signature,
        module,
        body.adapter or base.adapter,
        _language_model(base.lm, body, services),
        body.state,
        checked_mock(executor, script),
    )
    if body.state is None and (changed.signature, changed.module) == (base.signature, base.module):
        return replace(changed, state=base.state)
    return changed


def _language_model(base: LanguageModelChoice, body: NewVersion, services: Services) -> LanguageModelChoice:
    """The base's model with its options changed; with `model` given, what that alias means today."""
    own = {"temperature": body.temperature, "max_tokens": body.max_tokens, **(body.options or {})}
    given = {name: value for name, value in own.items() if value is not None}
    if body.model is None:
        check_options(given)
        return replace(base, options={**base.options, **given})
    return choose_model(services.settings.models, body.model, options=given)
