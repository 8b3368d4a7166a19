"""`dspex signatures`: check signatures, and look at registered ones."""

from typing import Annotated, Any

import typer

from dspex.access.records import DEFAULT_PROJECT
from dspex.interfaces.cli.listing import Commands
from dspex.interfaces.cli.output import ConfigOption, JsonOption, ProjectOption, print_json, print_table
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.remote import NodeOption, Remote, named_node, segment
from dspex.interfaces.cli.session import read_here_or_there
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.signatures.document import parse_signature, signature_to_document
from dspex.signatures.json_schema import input_schema, output_schema

MOST = 200


def add_to(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(cls=Commands, help="Check signatures and look at registered ones.")
    app.add_typer(group, name="signatures", no_args_is_help=True)

    @group.command()
    def check(
        signature: Annotated[str, typer.Argument(help='"question, k: int = 3 -> answer"')],
        as_json: JsonOption = False,
    ) -> None:
        """Read a signature; print its fields, or where it is wrong."""
        parsed = parse_signature(signature)
        document = signature_to_document(parsed)
        if as_json:
            schemas = {"input_schema": input_schema(parsed), "output_schema": output_schema(parsed)}
            print_json({"signature": document, **schemas})
            return
        rows = [
            (side[:-1], field["name"], field.get("type", "str"), field.get("default"))
            for side in ("inputs", "outputs")
            for field in document[side]
        ]
        print_table(("side", "name", "type", "default"), rows, "No fields.")

    @group.command("list")
    def list_signatures(
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Registered signatures."""

        async def here(services: Services) -> list[Any]:
            page = await services.signatures.list(project, limit=MOST, cursor=None)
            return [presenters.registered_signature(one) for one in page.data]

        def there(node: Remote) -> list[Any]:
            return node.listed("/v1/signatures", MOST)

        found = read_here_or_there(application, config, named_node(url, project), here, there)
        if as_json:
            print_json(found)
            return
        columns = ("name", "version", "status", "created_at")
        print_table(
            columns, [[one[key] for key in columns] for one in found], "No signatures are registered."
        )

    @group.command()
    def show(
        name: Annotated[str, typer.Argument(help="A registered signature's name.")],
        version: Annotated[int | None, typer.Option("--version", "-v", help="A version's number.")] = None,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
    ) -> None:
        """One registered signature with its JSON Schemas, as JSON."""

        async def here(services: Services) -> Any:
            return presenters.registered_signature(await services.signatures.get(project, name, version))

        def there(node: Remote) -> Any:
            return node.get(f"/v1/signatures/{segment(name)}", version=version)

        print_json(read_here_or_there(application, config, named_node(url, project), here, there))
