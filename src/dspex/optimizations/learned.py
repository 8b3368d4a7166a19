"""What a version learned from, and what those learned from that it was made from."""

from msgspec import Struct

from dspex.datasets.service import Datasets
from dspex.kit.errors import Missing
from dspex.optimizations.errors import not_known
from dspex.optimizations.rules import withheld
from dspex.programs.records import Version
from dspex.programs.service import ProgramService


class Learned(Struct, frozen=True):
    """The `inputs_digest` of each row of a dataset that a version was optimized on.

    None where the dataset was deleted since, so that nobody can know.
    """

    version: int
    dataset: str
    inputs: frozenset[str] | None


async def line_of(programs: ProgramService, version: Version) -> list[Version]:
    """The version and its ancestors, the nearest first. Raises Missing."""
    line = [version]
    while (parent := line[-1].parent_id) is not None:
        line.append(await programs.version(version.project, parent))
    return line


async def learned_by(programs: ProgramService, datasets: Datasets, version: Version) -> list[Learned]:
    """Of the version and its ancestors, the oldest first."""
    found: list[Learned] = []
    for one in reversed(await line_of(programs, version)):
        if one.lineage is not None:
            found.append(await _learned(datasets, one, _union(found)))
    return found


async def known_inputs(programs: ProgramService, datasets: Datasets, version: Version) -> frozenset[str]:
    """What no score of it may be held out of. Raises Invalid (code validation_unknown)."""
    learned = await learned_by(programs, datasets, version)
    for one in learned:
        if one.inputs is None:
            raise not_known(one.version, one.dataset)
    return _union(learned)


def _union(learned: list[Learned]) -> frozenset[str]:
    return frozenset().union(*(one.inputs for one in learned if one.inputs is not None))


async def _learned(datasets: Datasets, version: Version, before: frozenset[str]) -> Learned:
    lineage = version.lineage or {}
    source = lineage["dataset"]
    label = f"{source['name']}@{source['version']}"
    digests: list[str] = []
    try:
        dataset = await datasets.get(version.project, source["name"], source["version"])
        async for page in datasets.inputs(dataset):
            digests += page
    except Missing:
        return Learned(version.number, label, None)
    held = lineage.get("validation") or {}
    if "share" in held:
        without = withheld(digests, held["share"], held["seed"], before)
        train = [one for one in digests if one not in without]
        # Held out by what is not known any more: any of the rows may have been learned from.
        if len(train) == lineage.get("train_rows"):
            digests = train
    return Learned(version.number, label, frozenset(digests))
