"""The `dspex` command: one file for each group of commands."""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from dspex.interfaces.cli import serve
from dspex.interfaces.cli.listing import AllCommands
from dspex.interfaces.cli.ports import Application
from dspex.kit.errors import DspexError
from dspex.kit.version import VERSION

# What a person at a terminal can do about it.
MORE = {
    "program_missing": "`dspex programs list` shows those that there are.",
    "dataset_missing": "`dspex datasets list` shows those that there are.",
    "unauthenticated": "Commands send the key that is in DSPEX_API_KEY.",
}
NO_FILE = "There is no dspex.yaml in this directory: go where it is, or name it with --config."


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dspex {VERSION}")
        raise typer.Exit


def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


def build(application: Application, arguments: Sequence[str]) -> Callable[[], Any]:
    """The command line as a callable that exits with 0, or 1 and a message that says what to do.

    `arguments` are those that it will be called with.
    """
    app = typer.Typer(
        name="dspex",
        cls=AllCommands,
        help="Serve DSPy programs in production.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    serve.add_to(app, application)
    if arguments[:1] == ["serve"]:
        # The others would be a twentieth of its start. Without a callback Typer takes a lone command for the whole.
        app.callback()(lambda: None)
    else:
        from dspex.interfaces.cli.groups import add_groups

        app.callback()(_main)
        add_groups(app, application)

    def call() -> None:
        try:
            app()
        except DspexError as error:
            told = f"{error} {MORE[error.code]}" if error.code in MORE else str(error)
            if error.kind == "missing" and error.code in MORE and application.without_file():
                told = f"{told} {NO_FILE}"
            print(f"dspex: {told}", file=sys.stderr)  # noqa: T201
            sys.exit(1)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            print(f"dspex: {where}{error.strerror or error}", file=sys.stderr)  # noqa: T201
            sys.exit(1)

    return call
