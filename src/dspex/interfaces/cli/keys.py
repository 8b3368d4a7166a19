"""`dspex keys`: who may call this service."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer
from msgspec.structs import replace
from pydantic import TypeAdapter, ValidationError

from dspex.access.records import CLI, DEFAULT_PROJECT, LOCAL_OPERATOR, Author, Key, Role
from dspex.access.rules import check_project
from dspex.access.service import NewKey
from dspex.configuration.spending import Budget, RateLimit
from dspex.interfaces.cli.listing import Commands
from dspex.interfaces.cli.output import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    print_fields,
    print_json,
    print_table,
)
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.reading import instant
from dspex.interfaces.cli.session import with_services
from dspex.interfaces.shared import operation_presenters
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid
from dspex.kit.paging import Page

T = TypeVar("T")
ROLES = get_args(Role)
_DURATION = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
KeyArgument = Annotated[str, typer.Argument(help="A key's id: what stands between `dx_` and the next `_`.")]


def add_to(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(cls=Commands, help="Make, look at, rotate and revoke keys.")
    app.add_typer(group, name="keys", no_args_is_help=True)

    @group.command()
    def create(
        name: Annotated[str, typer.Argument(help="Whom or what it is for.")],
        role: Annotated[str, typer.Option(help=", ".join(ROLES))] = "caller",
        scope: Annotated[list[str] | None, typer.Option(help="Only this of the role's; repeat it.")] = None,
        expires_in: Annotated[str | None, typer.Option(help="How long it is good: 90d, 12h.")] = None,
        expires_at: Annotated[str | None, typer.Option(help="Or until when, an ISO time.")] = None,
        requests_per_minute: Annotated[int | None, typer.Option(help="Model calls a minute.")] = None,
        tokens_per_minute: Annotated[int | None, typer.Option(help="Tokens a minute.")] = None,
        budget_usd: Annotated[float | None, typer.Option(help="US dollars it may spend.")] = None,
        budget_per: Annotated[str, typer.Option(help="day, month or total")] = "month",
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Make a key. It is shown this once."""
        if role not in ROLES:
            raise Invalid(f"--role is one of {', '.join(ROLES)}, not {role!r}.", code="bad_argument")
        if expires_in is not None and expires_at is not None:
            raise Invalid("Give --expires-in or --expires-at, not both.", code="bad_argument")
        until = instant("--expires-at", expires_at)
        if expires_in is not None:
            until = datetime.now(UTC) + _duration("--expires-in", expires_in)
        limit = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        wanted = NewKey(
            name,
            role,  # type: ignore[arg-type]
            scope,
            until,
            _checked(RateLimit, limit) if any(one is not None for one in limit.values()) else None,
            None if budget_usd is None else _checked(Budget, {"usd": budget_usd, "per": budget_per}),
        )

        operator = replace(LOCAL_OPERATOR, project=check_project(project))

        async def use(services: Services) -> tuple[Key, str]:
            author = Author(project, CLI)
            async with services.audit.operation(author, "key.create", name, role=role, scopes=scope) as told:
                made = await services.keys.create(wanted, operator, CLI)
                told["id"] = made[0].id
                return made

        made, text = with_services(application, config, use)
        _print_made(made, text, as_json)

    @group.command("list")
    def list_keys(
        project: Annotated[str | None, typer.Option("--project", help="Only this project's.")] = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """The newest keys, of all projects unless one is named."""

        async def use(services: Services) -> Page[Key]:
            return await services.keys.list(project, limit=200, cursor=None)

        found = [_shown(one) for one in with_services(application, config, use).data]
        if as_json:
            print_json(found)
            return
        columns = ("id", "project", "name", "role", "status", "created_at", "expires_at", "last_used_at")
        rows = [[one[column] for column in columns] for one in found]
        print_table(columns, rows, "No keys. `dspex keys create NAME` makes one.")

    @group.command()
    def show(key_id: KeyArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """One key: what it may do, until when, when it was last used."""

        async def use(services: Services) -> Key:
            return await services.keys.get(None, key_id)

        _print(with_services(application, config, use), as_json)

    @group.command()
    def rotate(
        key_id: KeyArgument,
        overlap: Annotated[
            str, typer.Option(help="How long the secret before stays good: 24h, 30m, 0s.")
        ] = "24h",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Give a key a new secret. It is shown this once; the one before stays good for the overlap."""
        for_ = _duration("--overlap", overlap)

        async def change(services: Services, key: Key) -> tuple[Key, str]:
            return await services.keys.rotate(key, LOCAL_OPERATOR, overlap=for_)

        made, text = _change(
            application, config, key_id, ("key.rotate", {"overlap_s": for_.total_seconds()}), change
        )
        _print_made(made, text, as_json)

    @group.command()
    def revoke(
        key_id: KeyArgument,
        previous: Annotated[
            bool, typer.Option("--previous", help="Only the secret from before the last rotation.")
        ] = False,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """End a key, on every node at once."""

        async def change(services: Services, key: Key) -> Key:
            return await (services.keys.end_overlap(key) if previous else services.keys.revoke(key))

        after = _change(application, config, key_id, ("key.revoke", {"previous": previous}), change)
        _print(after, as_json)


def _change(
    application: Application,
    config: Path | None,
    key_id: str,
    operation: tuple[str, dict[str, Any]],
    change: Callable[[Services, Key], Awaitable[T]],
) -> T:
    """Changes a key of whatever project; that is where the audit log has it."""
    action, details = operation

    async def use(services: Services) -> T:
        key = await services.keys.get(None, key_id)
        async with services.audit.operation(Author(key.project, CLI), action, key.id, **details):
            return await change(services, key)

    return with_services(application, config, use)


def _duration(option: str, text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise Invalid(
            f"{option} is a number and s, m, h or d, such as 24h; not {text!r}.", code="bad_argument"
        )
    try:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        raise Invalid(f"{option} {text!r} is too long.", code="bad_argument") from None


def _checked(form: Any, given: dict[str, Any]) -> Any:
    try:
        return TypeAdapter(form).validate_python(given)
    except ValidationError as error:
        wrong = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
        raise Invalid(f"That is no limit: {wrong}.", code="bad_argument") from None


def _shown(key: Key) -> dict[str, Any]:
    return {**operation_presenters.key(key, datetime.now(UTC))}


def _print(key: Key, as_json: bool) -> None:
    document = _shown(key)
    if as_json:
        print_json(document)
    else:
        print_fields(document, tuple(name for name in document if name != "narrowed"))


def _print_made(key: Key, text: str, as_json: bool) -> None:
    if as_json:
        print_json({**_shown(key), "key": text})
        return
    typer.echo(text)
    typer.secho(
        f"({key.role} of {key.project}; shown this once: DSPex keeps only its hash)", err=True, dim=True
    )
