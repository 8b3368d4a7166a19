"""The `dspex` command: one file for each group of commands."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from dspex.interfaces.cli import serve
from dspex.interfaces.cli.ports import Application
from dspex.kit.errors import DspexError


def build(application: Application, arguments: Sequence[str]) -> Callable[[], Any]:
    """The command line as a callable that exits with 0, or 1 and a message that says what to do.

    `arguments` are those that it will be called with.
    """
    app = typer.Typer(
        name="dspex",
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

        add_groups(app, application)

    def call() -> None:
        try:
            app()
        except DspexError as error:
            print(f"dspex: {error}", file=sys.stderr)  # noqa: T201
            sys.exit(1)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            print(f"dspex: {where}{error.strerror or error}", file=sys.stderr)  # noqa: T201
            sys.exit(1)

    return call
