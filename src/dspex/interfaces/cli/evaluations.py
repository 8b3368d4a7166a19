"""`dspex eval`: how good a program is."""

from difflib import get_close_matches
from typing import Annotated, Any, ClassVar

import typer

from dspex.access.records import DEFAULT_PROJECT
from dspex.evaluations.records import STATUSES
from dspex.interfaces.cli import evaluation_runs
from dspex.interfaces.cli.doing_here import report
from dspex.interfaces.cli.evaluation_doors import door
from dspex.interfaces.cli.evaluation_output import (
    metric_text,
    print_comparison,
    print_evaluation,
    print_results,
)
from dspex.interfaces.cli.listing import Commands, Sections
from dspex.interfaces.cli.output import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    print_json,
    print_table,
    score_text,
)
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.reading import one_of
from dspex.interfaces.cli.remote import NodeOption, RunOption

IdArgument = Annotated[str, typer.Argument(help="An evaluation's id.")]
WatchOption = Annotated[bool, typer.Option("--watch/--no-watch", help="Wait until it is over.")]


class _Commands(Commands):
    sections: ClassVar[Sections] = {
        "Evaluating": ("run", "resume", "cancel"),
        "Looking": ("list", "show", "results", "compare"),
    }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            near = get_close_matches(args[0], self.commands, 1)
            meant = f" Did you mean `dspex eval {near[0]}`?" if near else ""
            dataset = args[1] if len(args) > 1 and not args[1].startswith("-") else "DATASET"
            ctx.fail(
                f"{args[0]!r} is none of the commands here.{meant} If it is a program: dspex eval run {args[0]} "
                f"{dataset}."
            )
        return super().resolve_command(ctx, args)


def add_to(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(
        cls=_Commands, help="Evaluate programs over datasets; look at evaluations and compare them."
    )
    app.add_typer(group, name="eval", no_args_is_help=True)

    @group.command()
    def run(
        program: Annotated[str, typer.Argument(help="A program's name.")],
        dataset: Annotated[str, typer.Argument(help="A dataset, as name or name@version.")],
        metric: Annotated[
            str,
            typer.Option(
                help='A name, "package.module:function", or JSON as {"name": "f1", "field": "answer"}.'
            ),
        ] = "exact_match",
        program_version: Annotated[
            int | None, typer.Option(min=1, help="A version [the deployed one].")
        ] = None,
        budget: Annotated[
            float | None, typer.Option(help="Begin no example that could pass so many dollars.")
        ] = None,
        limit: Annotated[int | None, typer.Option(min=1, help="The first rows alone.")] = None,
        concurrency: Annotated[int | None, typer.Option(min=1, max=1000, help="Examples at once.")] = None,
        cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Take answers that are kept.")] = True,
        watch: WatchOption = True,
        project: ProjectOption = DEFAULT_PROJECT,
        url: RunOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Score a program on a dataset: here, or on a running node (--url or DSPEX_URL).

        Without a worker on the database this very command does it. Exits with 1 when the evaluation failed, was
        cancelled or is paused.
        """
        wanted = {
            "program": program,
            "dataset": dataset,
            "metric": evaluation_runs.read_metric_option(metric),
            "version": program_version,
            "budget_usd": budget,
            "limit": limit,
            "concurrency": concurrency,
            "use_cache": cache,
        }
        report(
            "eval",
            lambda: evaluation_runs.run(application, config, url, project, wanted, watch=watch),
            print_evaluation,
            as_json=as_json,
        )

    @group.command()
    def resume(
        evaluation_id: IdArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Go on with one that was left, and wait until it is over; on a node only wait."""
        report(
            "eval",
            lambda: evaluation_runs.resume(application, config, url, project, evaluation_id),
            print_evaluation,
            as_json=as_json,
        )

    @group.command("list")
    def list_evaluations(
        program: Annotated[str | None, typer.Option(help="Of this program alone.")] = None,
        status: Annotated[str | None, typer.Option(help=", ".join(STATUSES))] = None,
        limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """The newest evaluations."""
        one_of("--status", status, STATUSES)
        wanted: Any = status
        found = door(application, config, url, project).newest(program, wanted, limit)
        if as_json:
            print_json(found)
            return
        columns = ("id", "created_at", "program", "version", "dataset", "metric", "status", "scored", "mean")
        print_table(columns, [_line(one) for one in found], "No evaluations.")

    @group.command()
    def show(
        evaluation_id: IdArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Where an evaluation stands, and what came of it."""
        _print(door(application, config, url, project).get(evaluation_id), as_json)

    @group.command()
    def results(
        evaluation_id: IdArgument,
        failed: Annotated[bool, typer.Option("--failed", help="Those that have no score.")] = False,
        lowest: Annotated[
            int | None, typer.Option(min=1, max=10_000, help="So many with the lowest scores.")
        ] = None,
        limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """What came of each example, in the order of the rows."""
        found = door(application, config, url, project).results(
            evaluation_id,
            "failed" if failed else None,
            "position" if lowest is None or failed else "score",
            lowest or limit,
        )
        if as_json:
            print_json(found)
        else:
            print_results(found)

    @group.command()
    def compare(
        a: Annotated[str, typer.Argument(help="An evaluation's id.")],
        b: Annotated[str, typer.Argument(help="The id of one over the same rows with the same metric.")],
        examples: Annotated[int, typer.Option(min=0, max=200, help="How many differences to show.")] = 10,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Whether the second is better than the first, and how sure that is."""
        opened = door(application, config, url, project)
        found = opened.compare(a, b)
        different = opened.differences(a, b, examples) if examples else []
        if as_json:
            print_json({**found, "examples": different})
        else:
            print_comparison(found, different)

    @group.command()
    def cancel(
        evaluation_id: IdArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """End an evaluation; what is scored stays."""
        _print(door(application, config, url, project).cancel(evaluation_id), as_json)


def _line(one: dict[str, Any]) -> tuple[Any, ...]:
    progress = one["progress"] or {}
    return (
        one["id"],
        one["created_at"],
        one["program"],
        one["version"],
        f"{one['dataset']}@{one['dataset_version']}",
        metric_text(one["metric"]),
        one["status"],
        progress.get("scored"),
        score_text(progress.get("mean")),
    )


def _print(evaluation: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(evaluation)
    else:
        print_evaluation(evaluation)
