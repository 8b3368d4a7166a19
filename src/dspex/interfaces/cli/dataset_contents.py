"""`dspex datasets`: what is in a dataset, and what can be made of it."""

from typing import Annotated, Any

import typer

from dspex.access.records import DEFAULT_PROJECT
from dspex.interfaces.cli.dataset_output import print_statistics, print_verdict
from dspex.interfaces.cli.output import ConfigOption, JsonOption, ProjectOption, print_json, print_table
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.remote import LONG_S, NodeOption, Remote, named_node, segment
from dspex.interfaces.cli.session import Operation, here_or_there, read_here_or_there
from dspex.interfaces.shared import dataset_presenters as presenters
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid
from dspex.signatures.document import parse_signature

NameArgument = Annotated[str, typer.Argument(help="The dataset's name.")]
VersionOption = Annotated[
    int | None, typer.Option("--version", "-v", help="A version's number [the latest].")
]
SeedOption = Annotated[int, typer.Option(min=0, help="The same seed, the same rows.")]
COLUMNS = ("name", "version", "kind", "rows", "digest", "created_at")
ROW_COLUMNS = ("position", "inputs", "outputs")


def add_to(group: typer.Typer, application: Application) -> None:
    @group.command()
    def sample(
        name: NameArgument,
        count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="How many rows.")] = 10,
        seed: SeedOption = 0,
        version: VersionOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Some rows: the same seed, the same rows."""

        async def here(services: Services) -> Any:
            dataset = await services.datasets.get(project, name, version)
            return presenters.sample(
                dataset, await services.datasets.sample(dataset, count=count, seed=seed), seed
            )

        def there(node: Remote) -> Any:
            return node.post(f"{path_of(name)}/sample", _given(count=count, seed=seed, version=version))

        found = read_here_or_there(application, config, named_node(url, project), here, there)
        if as_json:
            print_json(found)
            return
        print_table(ROW_COLUMNS, [[one[key] for key in ROW_COLUMNS] for one in found["data"]], "")

    @group.command()
    def split(
        name: NameArgument,
        part: Annotated[list[str], typer.Option("--part", help="A part and its share, as training=0.8.")],
        seed: SeedOption = 0,
        version: VersionOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Make a dataset of each part. The same inputs are never in two of them."""
        ratios = _ratios(part)

        async def here(services: Services) -> list[Any]:
            dataset = await services.datasets.get(project, name, version)
            return [
                presenters.dataset(one)
                for one, _ in await services.datasets.split(dataset, ratios, seed=seed)
            ]

        def there(node: Remote) -> list[Any]:
            body = _given(ratios=ratios, seed=seed, version=version)
            made: list[Any] = node.post(f"{path_of(name)}/split", body, within_s=LONG_S)["data"]
            return made

        operation = Operation("dataset.split", name, project, {"version": version})
        found = here_or_there(application, config, named_node(url, project), here, there, operation)
        if as_json:
            print_json(found)
            return
        print_table(COLUMNS, [[short(one[column]) for column in COLUMNS] for one in found], "")

    @group.command()
    def stats(
        name: NameArgument,
        version: VersionOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Sizes, fields, types, lengths, balance of labels, duplicates."""

        async def here(services: Services) -> Any:
            dataset = await services.datasets.get(project, name, version)
            return presenters.statistics(dataset, await services.datasets.statistics(dataset))

        def there(node: Remote) -> Any:
            return node.get(f"{path_of(name)}/statistics", version=version)

        found = read_here_or_there(application, config, named_node(url, project), here, there)
        if as_json:
            print_json(found)
        else:
            print_statistics(found)

    @group.command()
    def validate(
        name: NameArgument,
        program: Annotated[str | None, typer.Option(help="Against the signature of this program.")] = None,
        signature: Annotated[
            str | None, typer.Option(help='Against this one, as "question -> answer".')
        ] = None,
        limit: Annotated[int, typer.Option(min=1, max=1000, help="How many bad rows to show.")] = 100,
        version: VersionOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Every row that does not fit a signature. Exits with 1 when there is one."""
        if (program is None) == (signature is None):
            raise Invalid("Give --program or --signature.", code="bad_argument")
        given = None if signature is None else parse_signature(signature)

        async def here(services: Services) -> Any:
            dataset = await services.datasets.get(project, name, version)
            against = given or await services.programs.signature(project, program or "")
            return presenters.verdict(await services.datasets.validate(dataset, against, limit=limit))

        def there(node: Remote) -> Any:
            body = _given(program=program, signature=signature, limit=limit, version=version)
            return node.post(f"{path_of(name)}/validate", body, within_s=LONG_S)

        found = read_here_or_there(application, config, named_node(url, project), here, there)
        if as_json:
            print_json(found)
        else:
            print_verdict(found)
        if not found["valid"]:
            raise typer.Exit(1)


def path_of(name: str) -> str:
    return f"/v1/datasets/{segment(name)}"


def short(value: Any) -> Any:
    """A digest's beginning."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else value


def _given(**body: Any) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def _ratios(parts: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in parts:
        name, _, share = one.partition("=")
        try:
            ratio = float(share)
        except ValueError:
            raise Invalid(f"--part {one!r} is no part; write training=0.8.", code="bad_argument") from None
        if name in found:
            raise Invalid(f"The part {name!r} is named twice.", code="bad_argument")
        found[name] = ratio
    return found
