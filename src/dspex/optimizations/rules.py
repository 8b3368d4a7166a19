"""Pure decisions about optimizations."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from msgspec.structs import replace

from dspex.datasets.choosing import Parts, rank
from dspex.datasets.records import Row
from dspex.executions.background.rules import PASSES
from dspex.kit import json
from dspex.kit.errors import DspexError, Exhausted, Invalid, Problem, TimedOut, Unavailable
from dspex.kit.records import asdict
from dspex.optimizations.errors import bad_order, known_already, nothing_fresh, overlap
from dspex.optimizations.records import Counters, Order, Plan, Standing

KIND = "optimization"
QUEUE = "optimization"
DEFAULT_SHARE = 0.3
DEFAULT_THREADS = 8
MOST_THREADS = 64
# Rows of both sets, and bytes of their JSON: all of them go to the worker, and DSPy holds them in memory.
MOST_ROWS = 20_000
MOST_BYTES = 128 * 1024 * 1024
LEAST_ROWS = 2
NAMED = 5
MOST_POINTS = 500
# Whoever runs the provider's account has to do something: waiting in place helps nobody.
_OPERATORS = frozenset({"lm_auth", "lm_billing", "lm_not_configured", "lm_unsupported_model"})
# How often one call is tried while others are answered.
TRIES = 5

Treatment = Literal["tell", "wait", "pass", "end", "spent"]


def treatment(error: DspexError, tries: int, *, others_answered: bool) -> Treatment:
    """What to do about a call that failed for the `tries`-th time.

    `tell`: it is the optimizer's to see. `wait`: try again. `pass`: the same, and nobody's fault. `end`: this attempt
    is over. `spent`: nothing may be spent any more.
    """
    if error.code == "budget_exhausted":
        return "pass" if error.retry_after is not None and error.retry_after <= 1.0 else "spent"
    if error.code == "budget_needs_price" or error.code in _OPERATORS:
        return "end"
    if error.code in PASSES or isinstance(error, Exhausted):
        return "pass"
    if isinstance(error, Unavailable | TimedOut) or error.kind in ("unavailable", "timeout"):
        return "tell" if tries >= TRIES and others_answered else "wait"
    if error.kind in ("unauthenticated", "forbidden", "internal"):
        return "end"
    return "tell"


def identity_of(plan: Plan) -> str:
    """sha256 over all that decides what an optimization does: where it runs and at how many threads is left out.

    So are the models, most of which it will not ask. What votes in an ensemble is in its configuration.
    """
    content = asdict(replace(plan, pool="", threads=0, predictors=(), models={}))
    del content["ensemble_of"]
    return hashlib.sha256(json.dumps(content, sort_keys=True)).hexdigest()


def check_order(order: Order) -> None:
    """What can be seen without looking anything up. Raises Invalid with every problem."""
    problems: list[Problem] = []

    def wrong(pointer: str, message: str) -> None:
        problems.append(Problem(pointer, "out_of_range", message))

    if order.budget_usd is not None and not 0 < order.budget_usd <= 10**9:
        wrong("/budget_usd", "must be more than 0 US dollars")
    if order.threads is not None and not 1 <= order.threads <= MOST_THREADS:
        wrong("/threads", f"must be 1 to {MOST_THREADS}")
    if order.validation_share is not None:
        if order.validation is not None:
            wrong("/validation_share", "goes without a validation set only")
        elif not 0.05 <= order.validation_share <= 0.9:
            wrong("/validation_share", "must be 0.05 to 0.9")
    if not 0 <= order.seed < 2**31:
        wrong("/seed", "must be 0 to 2147483647")
    if problems:
        told = "; ".join(f"{one.pointer} {one.message}" for one in problems)
        raise Invalid(
            f"The optimization can't be done so: {told}.", code="bad_optimization", problems=problems
        )


def dataset_named(text: str, pointer: str) -> tuple[str, int | None]:
    """The name and version in "name" or "name@2". Raises Invalid (code bad_dataset_name)."""
    name, at, number = text.partition("@")
    if not at:
        return name, None
    if not (number.isascii() and number.isdigit() and 0 < int(number[:12]) < 2**31):
        raise bad_order(
            f"{text[:140]!r} names no version; write it as name@2.", pointer, code="bad_dataset_name"
        )
    return name, int(number)


def withheld(
    digests: Sequence[str], share: float, seed: int, learned: frozenset[str] = frozenset()
) -> frozenset[str]:
    """Which of these `inputs_digest` of rows are held out: as many rows as a split of `datasets.choosing` has in its

    last part, of the highest ranks of those that nobody `learned` from; fewer where there are fewer.
    """
    wanted = _last(digests, share, seed)
    fresh = sorted((rank(seed, one), one) for one in digests if one not in learned)
    lowest = fresh[-wanted - 1][0] if wanted < len(fresh) else -1
    return frozenset(digest for one, digest in fresh if one > lowest)


def _last(digests: Sequence[str], share: float, seed: int) -> int:
    ranks = [rank(seed, one) for one in digests]
    parts = Parts(ranks, [1 - share, share])
    return sum(parts.part_of(one) for one in ranks)


def held_out(
    rows: Sequence[Row], share: float, seed: int, learned: frozenset[str] = frozenset()
) -> tuple[list[Row], list[Row]]:
    """The training rows and the validation rows: the same seed, the same rows, as `withheld` has them.

    Rows with the same inputs are never in both. Raises Invalid: too_few_rows; validation_overlaps where `learned`
    leaves less than half of what the share asks for.
    """
    digests = [row.inputs_digest for row in rows]
    held = withheld(digests, share, seed, learned)
    train = [row for row in rows if row.inputs_digest not in held]
    validation = [row for row in rows if row.inputs_digest in held]
    wanted = _last(digests, share, seed)
    if 2 * len(validation) < wanted and not learned.isdisjoint(digests):
        raise nothing_fresh(len(rows), len(validation), wanted)
    if not train or not validation:
        raise bad_order(
            f"{len(rows)} rows are too few, with too few different inputs, to hold {share:.0%} of them out; give more "
            "rows, or a validation set.",
            "/dataset",
            code="too_few_rows",
        )
    return train, validation


def check_apart(train: Iterable[Row], validation: Iterable[Row]) -> None:
    """Raises Invalid (code validation_overlaps)."""
    learned = {row.inputs_digest for row in train}
    both = [row.id for row in validation if row.inputs_digest in learned]
    if both:
        raise overlap(len(both), both[:NAMED])


def check_fresh(validation: Iterable[Row], learned: frozenset[str]) -> None:
    """Raises Invalid (code validation_overlaps) for rows that the version has learned from already."""
    known = [row.id for row in validation if row.inputs_digest in learned]
    if known:
        raise known_already(len(known), known[:NAMED])


def check_rows(rows: Sequence[Row], name: str, pointer: str) -> None:
    """Raises Invalid: unlabelled_rows, too_few_rows."""
    unlabelled = [row for row in rows if not row.outputs]
    if unlabelled:
        first = ", ".join(row.id for row in unlabelled[:NAMED])
        raise bad_order(
            f"{len(unlabelled)} of {len(rows)} rows of {name!r} have no outputs to learn from; label them or leave "
            f"them out. The first: {first}.",
            pointer,
            f"{len(unlabelled)} rows have no outputs",
            code="unlabelled_rows",
        )
    if len(rows) < LEAST_ROWS:
        raise bad_order(
            f"{name!r} has {len(rows)} row; an optimization needs {LEAST_ROWS} at least.",
            pointer,
            code="too_few_rows",
        )


def check_size(rows: int, size: int) -> None:
    """Raises Invalid (code dataset_too_large)."""
    if rows > MOST_ROWS or size > MOST_BYTES:
        raise bad_order(
            f"The rows are more than {MOST_ROWS}, or {MOST_BYTES} bytes of JSON; take a sample "
            "(`dspex datasets sample`, POST /v1/datasets/{name}/sample).",
            "/dataset",
            code="dataset_too_large",
        )


def as_example(row: Row) -> dict[str, Any]:
    return {"id": row.id, "inputs": row.inputs, "outputs": row.outputs}


def progress_of(standing: Standing) -> dict[str, Any]:
    """What the job tells."""
    counters = standing.counters
    return {
        "phase": standing.phase,
        "candidates": standing.candidates,
        "of": standing.of,
        "baseline_score": standing.baseline_score,
        "best_score": None if standing.best is None else standing.best.score,
        "spent_usd": counters.spent_usd,
        "lm_calls": counters.lm_calls,
        "replayed_calls": counters.replayed_calls,
    }


def most(one: Counters, other: Counters) -> Counters:
    """The higher of each: counters of one optimization never go back."""
    higher = {name: max(value, getattr(other, name)) for name, value in asdict(one).items()}
    return Counters(**higher)


def without_state(standing: Standing) -> Standing:
    """As lists and watchers are given it: the best one's score and number, and none of its program."""
    return standing if standing.best is None else replace(standing, best=replace(standing.best, state={}))


def improves(score: float | None, baseline: float | None) -> bool | None:
    """None without scores: nobody can say."""
    return None if score is None or baseline is None else score > baseline


def cost_per_point(spent_usd: float, score: float | None, baseline: float | None) -> float | None:
    """US dollars for each hundredth of the score that was won; None when none was."""
    if score is None or baseline is None or score <= baseline:
        return None
    return round(spent_usd / ((score - baseline) * 100), 9)


def money_of(counters: Counters, budget_usd: float | None) -> dict[str, Any]:
    """What was spent and what is left; a cost is null where a price was not known."""
    unknown = counters.unpriced > 0 and budget_usd is None
    spent = counters.spent_usd
    return {
        "cost_usd": None if unknown else spent,
        "budget_usd": budget_usd,
        "remaining_usd": None if budget_usd is None else round(max(budget_usd - spent, 0.0), 12),
        "saved_usd": counters.saved_usd,
        "lm_calls": counters.lm_calls,
        "failed_calls": counters.failed_calls,
        "replayed_calls": counters.replayed_calls,
        "repeated_calls": counters.repeated_calls,
        "unpriced": counters.unpriced,
    }


def lineage_of(
    plan: Plan, optimization_id: str, money: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
    """How a version came to be; `found` are scores, demos and what else is known of the result."""
    validation = plan.validation
    return {
        "optimization": optimization_id,
        "parent": {"version": plan.version, "digest": plan.digest},
        "ensemble_of": list(plan.ensemble_of),
        "dataset": plan.dataset.to_json(),
        "validation": (
            {"share": plan.validation_share, "seed": plan.seed}
            if validation is None
            else validation.to_json()
        ),
        "train_rows": plan.train_rows,
        "validation_rows": plan.validation_rows,
        "metric": plan.metric,
        "optimizer": plan.optimizer,
        "config": plan.config,
        "seed": plan.seed,
        "cost_usd": money["cost_usd"],
        "lm_calls": money["lm_calls"],
        **found,
    }
