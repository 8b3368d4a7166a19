"""Every group of commands but `serve`."""

import typer

from dspex.interfaces.cli import (
    audit,
    batch,
    breakers,
    caches,
    costs,
    datasets,
    deploying,
    evaluations,
    executions,
    init,
    jobs,
    keys,
    operating,
    optimizations,
    pools,
    programs,
    reload,
    run,
    signatures,
    simulator,
    work,
)
from dspex.interfaces.cli.ports import Application


def add_groups(app: typer.Typer, application: Application) -> None:
    for group in (
        work,
        run,
        programs,
        deploying,
        signatures,
        executions,
        datasets,
        evaluations,
        batch,
        optimizations,
        jobs,
        costs,
        keys,
        audit,
        caches,
        breakers,
        pools,
        simulator,
        operating,
        reload,
    ):
        group.add_to(app, application)
    init.add_to(app)
