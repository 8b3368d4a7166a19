"""`dspex optimize`: better versions of programs."""

from difflib import get_close_matches
from typing import Annotated, Any, ClassVar

import typer

from dspex.access.records import DEFAULT_PROJECT
from dspex.interfaces.cli import optimization_runs
from dspex.interfaces.cli.doing_here import report
from dspex.interfaces.cli.evaluation_runs import read_metric_option
from dspex.interfaces.cli.listing import Commands, Sections
from dspex.interfaces.cli.optimization_doors import Change, door
from dspex.interfaces.cli.optimization_output import print_estimate, print_optimization, scores_text
from dspex.interfaces.cli.output import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    print_json,
    print_table,
)
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.cli.reading import one_of
from dspex.interfaces.cli.remote import NodeOption, RunOption
from dspex.jobs.records import STATES

IdArgument = Annotated[str, typer.Argument(help="An optimization's id.")]
ProgramArgument = Annotated[str, typer.Argument(help="A program's name.")]
DatasetArgument = Annotated[str, typer.Argument(help="What it learns from: name or name@version.")]
OptimizerOption = Annotated[str, typer.Option(help="One of DSPy's, such as MIPROv2 or GEPA.")]
MetricOption = Annotated[
    str,
    typer.Option(help='A name, "package.module:function", or JSON as {"name": "f1", "field": "answer"}.'),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="A parameter of the optimizer, as name=value; again for each."),
]
ValidationOption = Annotated[
    str | None, typer.Option(help="The dataset that it is measured by [a share of the first, held out].")
]
ShareOption = Annotated[
    float | None, typer.Option("--share", help="How much of the dataset is held out [0.3].")
]
VersionOption = Annotated[
    int | None, typer.Option("--program-version", min=1, help="A version [the deployed one].")
]


class _RunsByDefault(Commands):
    """What is no command is a program's name: `dspex optimize qa questions` is `dspex optimize run qa questions`.

    So are options before it.
    """

    sections: ClassVar[Sections] = {
        "Optimizing": ("run", "estimate", "resume", "pause", "cancel"),
        "Looking": ("list", "show", "keep"),
    }

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0].startswith("-") and args[0] != "--help":
            named = [one for one in args if one in self.commands]
            if named:
                ctx.fail(f"Options go behind the command: dspex optimize {named[0]} {args[0]} …")
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            if len(args) == 1:
                near = get_close_matches(args[0], self.commands, 1)
                meant = f" Did you mean `dspex optimize {near[0]}`?" if near else ""
                ctx.fail(
                    f"{args[0]!r} is none of the commands here.{meant} If it is a program, name a dataset as well: "
                    f"dspex optimize {args[0]} DATASET."
                )
            args = ["run", *args]
        return super().resolve_command(ctx, args)


def add_to(app: typer.Typer, application: Application) -> None:
    group = typer.Typer(
        cls=_RunsByDefault,
        help="Find better versions of programs with DSPy's optimizers: dspex optimize PROGRAM DATASET.",
    )
    app.add_typer(group, name="optimize", no_args_is_help=True)

    @group.command()
    def run(
        program: ProgramArgument,
        dataset: DatasetArgument,
        optimizer: OptimizerOption = "BootstrapFewShot",
        metric: MetricOption = "exact_match",
        setting: SetOption = None,
        validation: ValidationOption = None,
        share: ShareOption = None,
        version: VersionOption = None,
        budget: Annotated[float | None, typer.Option(help="US dollars that are never passed.")] = None,
        seed: Annotated[int, typer.Option(help="The same seed, the same rows and draws.")] = 0,
        threads: Annotated[int | None, typer.Option(help="Model calls at once [8].")] = None,
        deploy: Annotated[bool, typer.Option("--deploy", help="Let a better version answer.")] = False,
        unique: Annotated[bool, typer.Option("--unique", help="Not again what was done before.")] = False,
        cache: Annotated[
            bool, typer.Option("--cache/--no-cache", help="Take answers that caches have.")
        ] = True,
        watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Wait until it is over.")] = True,
        project: ProjectOption = DEFAULT_PROJECT,
        url: RunOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Have an optimizer look for a better version: here, or on a running node (--url or DSPEX_URL).

        Without a worker on the database this very command does it. Exits with 1 when the optimization failed, was
        cancelled or is paused.
        """
        wanted = {
            **_order(program, dataset, optimizer, metric, setting, validation, share, version, budget, seed),
            "threads": threads,
            "deploy": deploy,
            "unique": unique,
            "use_cache": cache,
        }
        report(
            "optimize",
            lambda: optimization_runs.run(application, config, url, project, wanted, watch=watch),
            print_optimization,
            as_json=as_json,
        )

    @group.command()
    def estimate(
        program: ProgramArgument,
        dataset: DatasetArgument,
        optimizer: OptimizerOption = "BootstrapFewShot",
        metric: MetricOption = "exact_match",
        setting: SetOption = None,
        validation: ValidationOption = None,
        share: ShareOption = None,
        version: VersionOption = None,
        seed: Annotated[int, typer.Option(help="As for the optimization.")] = 0,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """How many model calls it would take, and what they cost. Nothing is begun."""
        wanted = _order(program, dataset, optimizer, metric, setting, validation, share, version, None, seed)
        found = door(application, config, url, project).estimate(wanted)
        if as_json:
            print_json(found)
        else:
            print_estimate(found)

    @group.command("list")
    def list_optimizations(
        program: Annotated[str | None, typer.Option(help="Of this program alone.")] = None,
        status: Annotated[str | None, typer.Option(help=", ".join(STATES))] = None,
        limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """The newest optimizations."""
        one_of("--status", status, STATES)
        found = door(application, config, url, project).newest(program, status, limit)
        if as_json:
            print_json(found)
            return
        columns = (
            *("id", "created_at", "program", "version", "optimizer", "status"),
            *("score", "result_version", "cost_usd"),
        )
        rows = [[{**one, "score": scores_text(one) or None}[name] for name in columns] for one in found]
        print_table(columns, rows, "No optimizations.")

    @group.command()
    def show(
        optimization_id: IdArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Where an optimization stands, what it has spent, and what came of it."""
        _print(door(application, config, url, project).get(optimization_id), as_json)

    @group.command()
    def resume(
        optimization_id: IdArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Go on with one that was paused or left, and wait until it is over. What was paid for is not paid again."""
        report(
            "optimize",
            lambda: optimization_runs.resume(application, config, url, project, optimization_id),
            print_optimization,
            as_json=as_json,
        )

    @group.command()
    def keep(
        optimization_id: IdArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Make a version of the best that was found, also of one that was cancelled or failed."""
        kept = door(application, config, url, project).keep(optimization_id)
        if as_json:
            print_json(kept)
        else:
            typer.echo(f"{kept['program']} has version {kept['version']} ({kept['status']})")

    _add_changes(group, application)


def _add_changes(group: typer.Typer, application: Application) -> None:
    def changed(
        change: Change, optimization_id: str, project: str, url: str | None, config: Any, as_json: bool
    ) -> None:
        _print(door(application, config, url, project).change(optimization_id, change), as_json)

    @group.command()
    def cancel(
        optimization_id: IdArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """End one within seconds; the best that it found is kept."""
        changed("cancel", optimization_id, project, url, config, as_json)

    @group.command()
    def pause(
        optimization_id: IdArgument,
        project: ProjectOption = DEFAULT_PROJECT,
        url: NodeOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Stop one until it is resumed."""
        changed("pause", optimization_id, project, url, config, as_json)


def _order(
    program: str,
    dataset: str,
    optimizer: str,
    metric: str,
    setting: list[str] | None,
    validation: str | None,
    share: float | None,
    version: int | None,
    budget: float | None,
    seed: int,
) -> dict[str, Any]:
    return {
        "program": program,
        "dataset": dataset,
        "optimizer": optimizer,
        "metric": read_metric_option(metric),
        "config": optimization_runs.read_settings(setting or ()),
        "validation": validation,
        "validation_share": share,
        "version": version,
        "budget_usd": budget,
        "seed": seed,
    }


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        print_optimization(document)
