"""A progress bar on the terminal; nothing where there is none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dspex.interfaces.cli.batch_output import Summary

Tell = Callable[[], None]


@contextmanager
def showing(summary: Summary) -> Iterator[Tell]:
    """To standard error, so that standard output is the answer alone. Call it when the summary has changed."""
    # Not above: whoever serves has no need of it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        done = summary.completed + summary.failed
        task = progress.add_task("items", total=summary.items, completed=done, failed=summary.failed)

        def tell() -> None:
            progress.update(task, completed=summary.completed + summary.failed, failed=summary.failed)

        yield tell
