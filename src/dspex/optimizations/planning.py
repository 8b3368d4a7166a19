"""From what a caller asks for to a plan: everything that can be wrong is found before anything is queued."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from dspex.access.records import Principal
from dspex.access.rules import may
from dspex.configuration.pools import GENERAL
from dspex.datasets.records import Dataset, Row
from dspex.datasets.service import Datasets
from dspex.evaluations.metrics.reading import read_metric
from dspex.evaluations.metrics.records import MetricSpec
from dspex.executions.errors import NotExecutable
from dspex.gateway.ports import Prices
from dspex.gateway.records import Usage
from dspex.gateway.service import LanguageModelGateway
from dspex.kit.errors import Conflict, Invalid, Problem
from dspex.optimizations import rules
from dspex.optimizations.errors import bad_order
from dspex.optimizations.examples import all_rows, examples_of, found
from dspex.optimizations.learned import known_inputs
from dspex.optimizations.ports import Optimizers
from dspex.optimizations.records import Order, Plan
from dspex.programs.definitions import CodeDigest, contract_of
from dspex.programs.records import EXECUTABLE, Version
from dspex.programs.rules import check_live
from dspex.programs.service import ProgramService
from dspex.signatures.records import Signature

POOL = "optimizer"
# Raises Invalid (code bad_metric) for Python that can't be imported, where a worker can look now.
MetricCheck = Callable[[MetricSpec, Principal], Awaitable[None]]


class Planned(Struct, frozen=True):
    """A plan with the version that it is about, and the mean size of a row in bytes of JSON."""

    plan: Plan
    version: Version
    row_bytes: int


class Planner:
    """`pools` are the names of those that the configuration has."""

    def __init__(
        self,
        programs: ProgramService,
        datasets: Datasets,
        optimizers: Optimizers,
        gateway: LanguageModelGateway,
        prices: Prices,
        code: CodeDigest,
        pools: frozenset[str],
        check_metric: MetricCheck,
    ) -> None:
        self._programs = programs
        self._datasets = datasets
        self._optimizers = optimizers
        self._gateway = gateway
        self._prices = prices
        self._code = code
        self._pools = pools
        self._check_metric = check_metric

    async def plan(self, principal: Principal, order: Order) -> Planned:
        """Raises Missing, Invalid with pointers into the order, NotExecutable, Conflict, Unavailable."""
        rules.check_order(order)
        project = principal.project
        metric = self._metric(principal, order.metric)
        version = await self._version(project, order)
        dataset = await found(self._datasets, project, order.dataset, "/dataset")
        rows = await all_rows(self._datasets, dataset)
        rules.check_rows(rows, dataset.name, "/dataset")
        voters = await self._voters(version, order)
        learned = await known_inputs(self._programs, self._datasets, [version, *voters.values()])
        share: float | None = None
        held: Dataset | None = None
        if order.validation is None:
            share = order.validation_share or rules.DEFAULT_SHARE
            train, validation = rules.held_out(rows, share, order.seed, learned)
        else:
            held = await found(self._datasets, project, order.validation, "/validation")
            train, validation = rows, await all_rows(self._datasets, held)
            rules.check_size(len(train) + len(validation), sum(row.size for row in [*train, *validation]))
            rules.check_rows(validation, held.name, "/validation")
            rules.check_apart(train, validation)
            rules.check_fresh(validation, learned)
        _check_fits(contract_of(version), dataset, held, metric)
        self._check_fields(metric, rows)
        await self._check_prices(version, order)
        await self._check_metric(metric, principal)
        pool = self._pool(version)
        config = await self._with_programs(voters, order)
        checked = await self._optimizers.check(pool, project, version.definition, order.optimizer, config)
        plan = Plan(
            program=order.program,
            program_id=version.program_id,
            version_id=version.id,
            version=version.number,
            digest=version.digest,
            pool=pool,
            dataset=examples_of(dataset),
            validation=None if held is None else examples_of(held),
            validation_share=share,
            train_rows=len(train),
            validation_rows=len(validation),
            optimizer=order.optimizer,
            config=dict(checked["config"]),
            predictors=tuple(checked.get("predictors") or ()),
            metric=metric.document(),
            seed=order.seed,
            threads=order.threads or rules.DEFAULT_THREADS,
            budget_usd=order.budget_usd,
            use_cache=order.use_cache,
            deploy=order.deploy,
            models=self._gateway.models,
            ensemble_of=tuple(voters),
        )
        return Planned(plan, version, sum(row.size for row in rows) // len(rows))

    def _metric(self, principal: Principal, written: Any) -> MetricSpec:
        metric = read_metric(written)
        if metric.model is not None:
            self._gateway.settings_of(metric.model)
        if metric.reference is None:
            return metric
        if not may(principal, "programs:code"):
            raise bad_order(
                f"Python code ({metric.reference}) can be named in the configuration file, and by admins.",
                "/metric",
                "names Python code",
                code="code_not_allowed",
            )
        try:
            return replace(metric, code=self._code([metric.reference]))
        except Invalid as error:
            raise bad_order(error.message, "/metric", code=error.code) from None

    async def _version(self, project: str, order: Order) -> Version:
        program = await self._programs.get(project, order.program)
        check_live(program)
        if order.version is not None:
            version = await self._programs.version_numbered(program, order.version)
        else:
            version = await self._programs.current(program)
        if version.status not in EXECUTABLE:
            failed = f" ({version.error})" if version.error else ""
            raise NotExecutable(
                f"Version {version.number} of {program.name!r} is {version.status}{failed}; initialize it first."
            )
        if version.definition.mock is not None:
            raise Conflict(
                f"Version {version.number} of {program.name!r} is a mock, which asks no model: there is nothing to "
                "optimize. Name a version with a model.",
                code="not_with_mock",
            )
        return version

    async def _voters(self, version: Version, order: Order) -> dict[int, Version]:
        """The versions that an Ensemble names, by their numbers. Raises Missing."""
        named = order.config.get("programs")
        if order.optimizer != "Ensemble" or not isinstance(named, list):
            return {}
        numbers = list(dict.fromkeys(one for one in named if _is_number(one)))
        return dict(zip(numbers, await self._programs.beside(version, numbers), strict=True))

    async def _with_programs(self, voters: Mapping[int, Version], order: Order) -> Mapping[str, Any]:
        """Versions that an Ensemble names by their numbers become their states. Raises Conflict."""
        if not voters:
            return order.config
        states: list[Any] = []
        for one in order.config["programs"]:
            if _is_number(one):
                saved = await self._programs.saved_state(voters[one])
                states.append({name: part for name, part in saved.items() if name != "metadata"})
            else:
                states.append(one)
        return {**order.config, "programs": states}

    def _pool(self, version: Version) -> str:
        """Where it runs: the pool for optimizers, where there is one, else the program's own."""
        own = version.definition.config.get("pool")
        if POOL in self._pools:
            return POOL
        return own if own in self._pools else GENERAL

    async def _check_prices(self, version: Version, order: Order) -> None:
        """A budget can't be kept to without prices."""
        if order.budget_usd is None:
            return
        alias = version.definition.lm.alias
        for model in (alias, *self._gateway.settings_of(alias).fallbacks):
            if await self._prices.cost(model, Usage(1000, 1000, 2000)) is None:
                raise bad_order(
                    f"A budget limits this optimization, but the price of model {model!r} is not known. Set `pricing` "
                    "of the model in models.registry, or leave the budget out.",
                    "/budget_usd",
                    code="budget_needs_price",
                )

    def _check_fields(self, metric: MetricSpec, rows: list[Row]) -> None:
        """Raises Invalid (code metric_does_not_fit) for outputs that hardly any row has."""
        for name in metric.fields:
            without = sum(name not in row.outputs for row in rows)
            if without:
                raise bad_order(
                    f"The metric looks at {name!r}, which {without} of {len(rows)} rows have no value for.",
                    "/metric",
                    code="metric_does_not_fit",
                )


def _is_number(named: Any) -> bool:
    return isinstance(named, int) and not isinstance(named, bool)


def _check_fits(
    signature: Signature | None, dataset: Dataset, held: Dataset | None, metric: MetricSpec
) -> None:
    """Names of fields only: what of values does not fit fails where it is used, as in production."""
    if signature is None:
        return
    inputs = {field.name: field for field in signature.inputs}
    outputs = {field.name for field in signature.outputs}
    problems: list[Problem] = []
    for given, pointer in ((dataset, "/dataset"), (held, "/validation")):
        if given is None:
            continue
        fields: Mapping[str, Any] = given.fields
        lacking = [
            name
            for name, one in inputs.items()
            if not one.has_default and name not in fields.get("inputs", {})
        ]
        unknown = [name for name in fields.get("outputs", {}) if name not in outputs] if outputs else []
        if lacking:
            told = f"{given.name!r} has no input {', '.join(map(repr, lacking))}, which the program takes"
            problems.append(Problem(pointer, "inputs_missing", told))
        if outputs and unknown and len(unknown) == len(fields.get("outputs", {})):
            told = (
                f"none of the outputs of {given.name!r} is one of the program's: {', '.join(sorted(outputs))}"
            )
            problems.append(Problem(pointer, "outputs_unknown", told))
    if outputs:
        for name in metric.fields:
            if name not in outputs:
                told = f"looks at {name!r}; the program's outputs are {', '.join(sorted(outputs))}"
                problems.append(Problem("/metric", "output_unknown", told))
    if problems:
        told = "; ".join(one.message for one in problems)
        raise Invalid(f"These don't go together: {told}.", code="dataset_does_not_fit", problems=problems)
