"""Whether a program, a dataset and a metric fit each other, as far as it is known before anything is run."""

from collections.abc import Collection

from dspex.datasets.records import Dataset
from dspex.evaluations import errors
from dspex.evaluations.metrics.records import MetricSpec
from dspex.executions.catalog import Runnable
from dspex.kit.errors import Invalid, Problem


def check_fit(runnable: Runnable, dataset: Dataset, metric: MetricSpec) -> None:
    """Raises Invalid: dataset_not_fitting, or bad_metric for fields that nobody has. Single rows may fail later."""
    inputs, labels = dataset.fields.get("inputs", {}), dataset.fields.get("outputs", {})
    taken = {field.name: field for field in runnable.signature.inputs}
    what = f"version {dataset.version} of the dataset {dataset.name!r}"
    problems = [
        Problem("/dataset", "missing", f"has no input {name!r}, which {runnable.name!r} needs")
        for name, field in taken.items()
        if name not in inputs and not field.has_default
    ]
    problems += [
        Problem("/dataset", "unexpected", f"has an input {name!r}, which {runnable.name!r} does not take")
        for name in inputs
        if name not in taken
    ]
    if not labels and metric.name != "python":
        problems.append(Problem("/dataset", "not_labelled", "has no row with outputs to score by"))
    if problems:
        raise errors.not_fitting(
            f"The {what} does not fit: it {'; it '.join(one.message for one in problems)}.", problems
        )
    if metric.name != "python":
        _check_fields(metric, labels, [one.name for one in runnable.outputs.outputs], runnable.name)


def _check_fields(metric: MetricSpec, labels: Collection[str], outputs: list[str], program: str) -> None:
    """A program that says nothing of its outputs may give any."""
    problems = []
    for name in metric.fields:
        if name not in labels:
            problems.append(Problem("/metric/fields", "unknown_field", f"the dataset has no label {name!r}"))
        elif outputs and name not in outputs:
            problems.append(Problem("/metric/fields", "unknown_field", f"{program!r} has no output {name!r}"))
    more = [name for name in labels if outputs and name not in outputs]
    if not metric.fields and more:
        message = (
            f"the dataset has labels that {program!r} has no outputs for ({', '.join(sorted(more))}); name the "
            "fields to score"
        )
        problems.append(Problem("/metric", "unknown_field", message))
    if problems:
        told = "; ".join(one.message for one in problems)
        raise Invalid(f"The metric does not fit: {told}.", code="bad_metric", problems=problems)
