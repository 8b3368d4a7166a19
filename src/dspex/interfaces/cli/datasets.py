"""`dspex datasets`: load sets of examples and look at them; `dataset_contents` has what is made of them."""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from dspex.access.records import DEFAULT_PROJECT
from dspex.datasets.columns import columns_of
from dspex.datasets.records import DatasetKind, FileFormat, NewDataset
from dspex.datasets.rules import check_name, format_of
from dspex.interfaces.cli import dataset_contents
from dspex.interfaces.cli.dataset_contents import (
    COLUMNS,
    ROW_COLUMNS,
    NameArgument,
    VersionOption,
    path_of,
    short,
)
from dspex.interfaces.cli.dataset_output import deleted, deleted_row, export, loading, save_lines
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
from dspex.interfaces.cli.remote import JSON_LINES, NodeOption, Remote, named_node, query_of, segment
from dspex.interfaces.cli.session import Operation, here_or_there, read_here_or_there
from dspex.interfaces.shared import dataset_presenters as presenters
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid
from dspex.kit.records import asdict
from dspex.kit.wording import counted

MOST_VERSIONS = 50
CREATED = HTTPStatus.CREATED
MEDIA_TYPES: Mapping[FileFormat, str] = {
    "jsonl": JSON_LINES,
    "json": "application/json",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}


def add_to(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(
        cls=Commands, help="Load sets of examples; look at them, sample, split, validate and export them."
    )
    app.add_typer(group, name="datasets", no_args_is_help=True)
    dataset_contents.add_to(group, application)

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
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Make the next version of a dataset. A bad row refuses the whole file; the same rows are the same version."""
        one_of("--kind", kind, get_args(DatasetKind))
        called = check_name(name or file.stem)
        form = format_of(file.name)
        columns = columns_of(inputs, outputs)
        wanted: Any = kind
        new = NewDataset(called, wanted, description, origin={"source": "command", "file": file.name})

        with file.open("rb") as opened:

            async def here(services: Services) -> Any:
                with loading(file) as tell:
                    dataset, is_new = await services.datasets.load(
                        project, new, opened, form, columns, tell=tell
                    )
                return {**presenters.dataset(dataset), "new": is_new}

            def there(node: Remote) -> Any:
                about = {"description": description, "inputs": inputs, "outputs": outputs}
                query = query_of({"name": called, "kind": kind, **about})
                status, dataset = node.upload(f"/v1/datasets{query}", opened, MEDIA_TYPES[form])
                return {**dataset, "new": status == CREATED}

            operation = Operation("dataset.create", called, project, {"kind": kind})
            try:
                dataset = here_or_there(application, config, named_node(url, project), here, there, operation)
            except Invalid as refused:
                if refused.code != "bad_columns" or inputs is not None:
                    raise
                raise Invalid(
                    f'{file.name} is a table: name its columns that are inputs, as with --inputs "message".',
                    code=refused.code,
                ) from None
        if as_json:
            print_json(dataset)
            return
        which = "" if dataset["new"] else ", which was there before"
        typer.echo(
            f"{dataset['name']} version {dataset['version']} has {counted(dataset['rows'], 'row')}{which}"
        )

    @group.command("list")
    def list_datasets(
        kind: Annotated[str | None, typer.Option(help="Of this kind alone.")] = None,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """The latest version of each dataset."""
        one_of("--kind", kind, get_args(DatasetKind))
        wanted: Any = kind

        async def here(services: Services) -> list[Any]:
            found: list[Any] = []
            cursor: str | None = None
            while True:
                page = await services.datasets.list(project, kind=wanted, limit=200, cursor=cursor)
                found += [presenters.dataset(one) for one in page.data]
                cursor = page.next_cursor
                if cursor is None:
                    return found

        def there(node: Remote) -> list[Any]:
            return node.listed("/v1/datasets", kind=kind)

        found = read_here_or_there(application, config, named_node(url, project), here, there)
        if as_json:
            print_json(found)
            return
        rows = [[short(one[column]) for column in COLUMNS] for one in found]
        print_table(COLUMNS, rows, "No datasets. `dspex datasets load FILE` makes one.")

    @group.command()
    def show(
        name: NameArgument,
        version: VersionOption = None,
        rows: Annotated[int, typer.Option(min=0, max=200, help="How many rows to show.")] = 5,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """One version, its first rows, and which versions there are."""

        async def here(services: Services) -> tuple[Any, list[Any], list[Any]]:
            dataset = await services.datasets.get(project, name, version)
            first = await services.datasets.rows(dataset, limit=max(rows, 1), cursor=None)
            versions = await services.datasets.versions(project, name, limit=MOST_VERSIONS, cursor=None)
            return (
                presenters.dataset(dataset),
                [presenters.row(one) for one in first.data[:rows]],
                [presenters.dataset(one) for one in versions.data],
            )

        def there(node: Remote) -> tuple[Any, list[Any], list[Any]]:
            dataset = node.get(path_of(name), version=version)
            # What was there when it was looked at, should it get another version meanwhile.
            which = {"version": dataset["version"]}
            first = node.listed(f"{path_of(name)}/rows", rows, **which) if rows else []
            return dataset, first, node.listed(f"{path_of(name)}/versions", MOST_VERSIONS)

        node = named_node(url, project)
        dataset, first, versions = read_here_or_there(application, config, node, here, there)
        if as_json:
            print_json({**dataset, "first_rows": first, "versions": versions})
            return
        print_fields(dataset, (*COLUMNS, "description", "fields", "metadata", "origin"))
        typer.echo("")
        print_table(ROW_COLUMNS, [[one[key] for key in ROW_COLUMNS] for one in first], "")
        typer.echo("")
        print_table(COLUMNS[1:], [[short(one[key]) for key in COLUMNS[1:]] for one in versions], "")

    @group.command()
    def delete(
        name: NameArgument,
        version: Annotated[int | None, typer.Option("--version", "-v", help="This version [all].")] = None,
        row: Annotated[str | None, typer.Option(help="Make a version without the row of this id.")] = None,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
    ) -> None:
        """Delete all versions, one, or a row: then the versions that have it still are named."""

        async def here(services: Services) -> str:
            if row is None:
                gone = await services.datasets.delete(project, name, version)
                numbers = sorted(one.version for one in gone)
                used = await services.programs.showing_rows_of(project, name, numbers)
                return deleted(name, numbers, map(asdict, used))
            dataset = await services.datasets.get(project, name, version)
            without, _ = await services.datasets.delete_row(dataset, row)
            still = [asdict(one) for one in await services.datasets.holding(project, row)]
            used = await services.programs.showing_row(project, row)
            return deleted_row(name, without.version, still, map(asdict, used))

        def there(node: Remote) -> str:
            if row is None:
                gone = node.delete(path_of(name), version=version)
                return deleted(name, gone["versions"], gone["used_by"])
            gone = node.delete(f"{path_of(name)}/rows/{segment(row)}", version=version)
            return deleted_row(name, gone["dataset"]["version"], gone["still_in"], gone["used_by"])

        action = "dataset.delete" if row is None else "dataset.delete_row"
        operation = Operation(action, name, project, {"version": version, "row_id": row})
        typer.echo(here_or_there(application, config, named_node(url, project), here, there, operation))

    @group.command("export")
    def export_dataset(
        name: NameArgument,
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="A file; else standard output.")
        ] = None,
        version: VersionOption = None,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
    ) -> None:
        """Write the rows as JSON lines, which can be loaded again."""

        async def here(services: Services) -> int:
            dataset = await services.datasets.get(project, name, version)
            return await export(services.datasets.all_rows(dataset), output)

        def there(node: Remote) -> int:
            query = query_of({"version": version})
            return save_lines(node.download(f"{path_of(name)}/export{query}"), output)

        rows = read_here_or_there(application, config, named_node(url, project), here, there)
        if output is not None:
            typer.echo(f"wrote {counted(rows, 'row')} to {output}")
