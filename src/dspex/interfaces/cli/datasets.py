"""`dspex datasets`: load sets of examples and look at them."""

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from dspex.access.records import DEFAULT_PROJECT
from dspex.datasets.columns import columns_of
from dspex.datasets.records import Dataset, DatasetKind, NewDataset
from dspex.datasets.rules import check_name, format_of
from dspex.interfaces.cli.dataset_output import export, loading, print_statistics, print_verdict, shown_by
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
from dspex.interfaces.cli.reading import one_of
from dspex.interfaces.cli.session import Operation, with_services
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


def add_to(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(
        cls=Commands, help="Load sets of examples; look at them, sample, split, validate and export them."
    )
    app.add_typer(group, name="datasets", no_args_is_help=True)

    @group.command()
    def load(
        file: Annotated[
            Path, typer.Argument(help="A .jsonl, .json, .csv or .parquet file.", exists=True, dir_okay=False)
        ],
        name: Annotated[str | None, typer.Option(help="Its name [that of the file].")] = None,
        kind: Annotated[str, typer.Option(help="training, validation, test or custom.")] = "custom",
        description: Annotated[str | None, typer.Option(help="What it is.")] = None,
        inputs: Annotated[
            str | None, typer.Option(help='Columns that are inputs, as "question, k:int=top_k".')
        ] = None,
        outputs: Annotated[str | None, typer.Option(help="Columns that are outputs [all others].")] = None,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Make the next version of a dataset. A bad row refuses the whole file; the same rows are the same version."""
        one_of("--kind", kind, get_args(DatasetKind))
        called = check_name(name or file.stem)
        form, columns = format_of(file.name), columns_of(inputs, outputs)
        wanted: Any = kind
        new = NewDataset(called, wanted, description, origin={"source": "command", "file": file.name})

        with file.open("rb") as opened, loading(file) as tell:

            async def use(services: Services) -> tuple[Dataset, bool]:
                return await services.datasets.load(project, new, opened, form, columns, tell=tell)

            operation = Operation("dataset.create", called, project, {"kind": kind})
            dataset, is_new = with_services(application, config, use, operation)
        if as_json:
            print_json({**presenters.dataset(dataset), "new": is_new})
            return
        which = "" if is_new else ", which was there before"
        typer.echo(f"{dataset.name} version {dataset.version} has {dataset.rows} rows{which}")

    @group.command("list")
    def list_datasets(
        kind: Annotated[str | None, typer.Option(help="Of this kind alone.")] = None,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """The latest version of each dataset."""
        one_of("--kind", kind, get_args(DatasetKind))
        wanted: Any = kind

        async def use(services: Services) -> list[Any]:
            found: list[Any] = []
            cursor: str | None = None
            while True:
                page = await services.datasets.list(project, kind=wanted, limit=200, cursor=cursor)
                found += [presenters.dataset(one) for one in page.data]
                cursor = page.next_cursor
                if cursor is None:
                    return found

        found = with_services(application, config, use)
        if as_json:
            print_json(found)
            return
        rows = [[_short(one[column]) for column in COLUMNS] for one in found]
        print_table(COLUMNS, rows, "No datasets. `dspex datasets load FILE` makes one.")

    @group.command()
    def show(
        name: NameArgument,
        version: VersionOption = None,
        rows: Annotated[int, typer.Option(min=0, max=200, help="How many rows to show.")] = 5,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """One version, its first rows, and which versions there are."""

        async def use(services: Services) -> tuple[Any, list[Any], list[Any]]:
            dataset = await services.datasets.get(project, name, version)
            first = await services.datasets.rows(dataset, limit=max(rows, 1), cursor=None)
            versions = await services.datasets.versions(project, name, limit=50, cursor=None)
            return (
                presenters.dataset(dataset),
                [presenters.row(one) for one in first.data[:rows]],
                [presenters.dataset(one) for one in versions.data],
            )

        dataset, first, versions = with_services(application, config, use)
        if as_json:
            print_json({**dataset, "first_rows": first, "versions": versions})
            return
        print_fields(dataset, (*COLUMNS, "description", "fields", "metadata", "origin"))
        typer.echo("")
        print_table(ROW_COLUMNS, [[one[key] for key in ROW_COLUMNS] for one in first], "")
        typer.echo("")
        print_table(COLUMNS[1:], [[_short(one[key]) for key in COLUMNS[1:]] for one in versions], "")

    @group.command()
    def sample(
        name: NameArgument,
        count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="How many rows.")] = 10,
        seed: SeedOption = 0,
        version: VersionOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Some rows: the same seed, the same rows."""

        async def use(services: Services) -> Any:
            dataset = await services.datasets.get(project, name, version)
            return presenters.sample(
                dataset, await services.datasets.sample(dataset, count=count, seed=seed), seed
            )

        found = with_services(application, config, use)
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
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Make a dataset of each part. The same inputs are never in two of them."""
        ratios = _ratios(part)

        async def use(services: Services) -> list[Any]:
            dataset = await services.datasets.get(project, name, version)
            return [
                presenters.dataset(one)
                for one, _ in await services.datasets.split(dataset, ratios, seed=seed)
            ]

        operation = Operation("dataset.split", name, project, {"version": version})
        found = with_services(application, config, use, operation)
        if as_json:
            print_json(found)
            return
        print_table(COLUMNS, [[_short(one[column]) for column in COLUMNS] for one in found], "")

    @group.command()
    def stats(
        name: NameArgument,
        version: VersionOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Sizes, fields, types, lengths, balance of labels, duplicates."""

        async def use(services: Services) -> Any:
            dataset = await services.datasets.get(project, name, version)
            return presenters.statistics(dataset, await services.datasets.statistics(dataset))

        found = with_services(application, config, use)
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
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Every row that does not fit a signature. Exits with 1 when there is one."""
        if (program is None) == (signature is None):
            raise Invalid("Give --program or --signature.", code="bad_argument")
        given = None if signature is None else parse_signature(signature)

        async def use(services: Services) -> Any:
            dataset = await services.datasets.get(project, name, version)
            against = given or await services.programs.signature(project, program or "")
            return presenters.verdict(await services.datasets.validate(dataset, against, limit=limit))

        found = with_services(application, config, use)
        if as_json:
            print_json(found)
        else:
            print_verdict(found)
        if not found["valid"]:
            raise typer.Exit(1)

    @group.command()
    def delete(
        name: NameArgument,
        version: Annotated[int | None, typer.Option("--version", "-v", help="This version [all].")] = None,
        row: Annotated[str | None, typer.Option(help="Make a version without the row of this id.")] = None,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
    ) -> None:
        """Delete all versions, one, or a row: then the versions that have it still are named."""

        async def use(services: Services) -> str:
            if row is None:
                gone = await services.datasets.delete(project, name, version)
                numbers = sorted(one.version for one in gone)
                used = await services.programs.showing_rows_of(project, name, numbers)
                return f"deleted {name} version {', '.join(map(str, numbers))}{shown_by(used)}"
            dataset = await services.datasets.get(project, name, version)
            without, _ = await services.datasets.delete_row(dataset, row)
            still = [
                f"{one.name} version {one.version}" for one in await services.datasets.holding(project, row)
            ]
            used = await services.programs.showing_row(project, row)
            return f"{name} version {without.version} is without it; it is still in {', '.join(still)}{shown_by(used)}"

        action = "dataset.delete" if row is None else "dataset.delete_row"
        operation = Operation(action, name, project, {"version": version, "row_id": row})
        typer.echo(with_services(application, config, use, operation))

    @group.command("export")
    def export_dataset(
        name: NameArgument,
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="A file; else standard output.")
        ] = None,
        version: VersionOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        config: ConfigOption = None,
    ) -> None:
        """Write the rows as JSON lines, which can be loaded again."""

        async def use(services: Services) -> int:
            dataset = await services.datasets.get(project, name, version)
            return await export(services.datasets.all_rows(dataset), output)

        rows = with_services(application, config, use)
        if output is not None:
            typer.echo(f"wrote {rows} rows to {output}")


def _short(value: Any) -> Any:
    return value[:12] if isinstance(value, str) and len(value) == 64 else value


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
