"""`dspex keys`: who may call this service."""

import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, get_args

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
from dspex.interfaces.cli.remote import NodeOption, Remote, named_node, segment
from dspex.interfaces.cli.session import here_or_there, read_here_or_there
from dspex.interfaces.shared import operation_presenters
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid
from dspex.kit.records import asdict

MOST_KEYS = 200
ROLES = get_args(Role)
_DURATION = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
KeyArgument = Annotated[str, typer.Argument(help="A key's id: what stands between `dx_` and the next `_`.")]

OwnerOption = Annotated[str | None, typer.Option("--project", help="Only this project's.")]


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
        url: NodeOption = None,
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

        async def here(services: Services) -> Any:
            author = Author(project, CLI)
            async with services.audit.operation(author, "key.create", name, role=role, scopes=scope) as told:
                made = await services.keys.create(wanted, operator, CLI)
                told["id"] = made[0].id
                return operation_presenters.made_key(*made, services.clock.now())

        def there(node: Remote) -> Any:
            given = {name: value for name, value in asdict(wanted).items() if value is not None}
            return node.post("/v1/keys", given)

        _print_made(here_or_there(application, config, named_node(url, project), here, there), as_json)

    @group.command("list")
    def list_keys(
        project: OwnerOption = None,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """The newest keys: of all projects unless one is named, at a node of that of your key."""

        async def here(services: Services) -> list[Any]:
            page = await services.keys.list(project, limit=MOST_KEYS, cursor=None)
            return [operation_presenters.key(one, services.clock.now()) for one in page.data]

        def there(node: Remote) -> list[Any]:
            return node.listed("/v1/keys", MOST_KEYS)

        found = read_here_or_there(application, config, named_node(url, project), here, there)
        if as_json:
            print_json(found)
            return
        columns = ("id", "project", "name", "role", "status", "created_at", "expires_at", "last_used_at")
        rows = [[one[column] for column in columns] for one in found]
        print_table(columns, rows, "No keys. `dspex keys create NAME` makes one.")

    @group.command()
    def show(
        key_id: KeyArgument,
        project: OwnerOption = None,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """One key: what it may do, until when, when it was last used."""

        async def here(services: Services) -> Any:
            return operation_presenters.key(await services.keys.get(project, key_id), services.clock.now())

        def there(node: Remote) -> Any:
            return node.get(_path(key_id))

        _print(read_here_or_there(application, config, named_node(url, project), here, there), as_json)

    @group.command()
    def rotate(
        key_id: KeyArgument,
        overlap: Annotated[
            str, typer.Option(help="How long the secret before stays good: 24h, 30m, 0s.")
        ] = "24h",
        project: OwnerOption = None,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Give a key a new secret. It is shown this once; the one before stays good for the overlap."""
        for_ = _duration("--overlap", overlap)

        told = {"overlap_s": for_.total_seconds()}

        async def here(services: Services) -> Any:
            key = await services.keys.get(project, key_id)
            async with _changing(services, "key.rotate", key, told):
                made = await services.keys.rotate(key, LOCAL_OPERATOR, overlap=for_)
            return operation_presenters.made_key(*made, services.clock.now())

        def there(node: Remote) -> Any:
            return node.post(f"{_path(key_id)}/rotate", told)

        _print_made(here_or_there(application, config, named_node(url, project), here, there), as_json)

    @group.command()
    def revoke(
        key_id: KeyArgument,
        previous: Annotated[
            bool, typer.Option("--previous", help="Only the secret from before the last rotation.")
        ] = False,
        project: OwnerOption = None,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """End a key, on every node at once."""

        async def here(services: Services) -> Any:
            key = await services.keys.get(project, key_id)
            async with _changing(services, "key.revoke", key, {"previous": previous}):
                after = await (services.keys.end_overlap(key) if previous else services.keys.revoke(key))
            return operation_presenters.key(after, services.clock.now())

        def there(node: Remote) -> Any:
            return node.post(f"{_path(key_id)}/revoke", {"previous": previous})

        _print(here_or_there(application, config, named_node(url, project), here, there), as_json)


def _changing(
    services: Services, action: str, key: Key, details: Mapping[str, Any]
) -> AbstractAsyncContextManager[Any]:
    """The key's project is where the audit log has it."""
    return services.audit.operation(Author(key.project, CLI), action, key.id, **details)


def _path(key_id: str) -> str:
    return f"/v1/keys/{segment(key_id)}"


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


def _print(key: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(key)
    else:
        print_fields(key, tuple(name for name in key if name != "narrowed"))


def _print_made(made: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    typer.echo(made["key"])
    typer.secho(
        f"({made['role']} of {made['project']}; shown this once: DSPex keeps only its hash)",
        err=True,
        dim=True,
    )
