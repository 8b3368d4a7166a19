"""What a version learned from, and what those learned from that it was made from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from dspex.datasets.rules import inputs_digest
from dspex.datasets.service import Datasets
from dspex.kit.errors import Missing
from dspex.optimizations.errors import not_known
from dspex.optimizations.rules import withheld
from dspex.programs.records import COMPOSED, Version
from dspex.programs.service import ProgramService


class Learned(Struct, frozen=True):
    """The `inputs_digest` of each row of a dataset that a version was optimized on, and of each that it answers by.

    None where the dataset was deleted since, so that nobody can know.
    """

    version: int
    dataset: str
    inputs: frozenset[str] | None


async def made_from(programs: ProgramService, version: Version) -> list[Version]:
    """Its parent, and the versions that vote in it. Raises Missing."""
    parents = (
        [] if version.parent_id is None else [await programs.version(version.project, version.parent_id)]
    )
    return parents + await programs.beside(version, (version.lineage or {}).get("ensemble_of", ()))


async def line_of(programs: ProgramService, versions: Sequence[Version]) -> list[Version]:
    """The versions and all that they were made from, the nearest first. Raises Missing."""
    line = {one.id: one for one in versions}
    nearest = list(versions)
    while nearest:
        before = [one for version in nearest for one in await made_from(programs, version)]
        nearest = list({one.id: one for one in before if one.id not in line}.values())
        line |= {one.id: one for one in nearest}
    return list(line.values())


async def learned_by(
    programs: ProgramService, datasets: Datasets, versions: Sequence[Version]
) -> list[Learned]:
    """Of the versions and all that they were made from, what was made first at first."""
    found: dict[str, Learned] = {}
    known: dict[str, dict[str, Learned]] = {}
    for one in versions:
        found |= await _learned_by(programs, datasets, one, known)
    return list(found.values())


async def known_inputs(
    programs: ProgramService, datasets: Datasets, versions: Sequence[Version]
) -> frozenset[str]:
    """What no score of what is made from them may be held out of. Raises Invalid (code validation_unknown)."""
    learned = await learned_by(programs, datasets, versions)
    for one in learned:
        if one.inputs is None:
            raise not_known(one.version, one.dataset)
    return _union(learned)


async def _learned_by(
    programs: ProgramService, datasets: Datasets, version: Version, known: dict[str, dict[str, Learned]]
) -> dict[str, Learned]:
    """By version. `known` is what was found of versions already, of which several may have been made."""
    if version.id not in known:
        found: dict[str, Learned] = {}
        for one in await made_from(programs, version):
            found |= await _learned_by(programs, datasets, one, known)
        if version.lineage is not None:
            found[version.id] = await _learned(datasets, version, _union(found.values()))
        known[version.id] = found
    return known[version.id]


def _union(learned: Iterable[Learned]) -> frozenset[str]:
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
    return Learned(version.number, label, frozenset([*digests, *_neighbours(version.definition.state or {})]))


def _neighbours(state: Mapping[str, Any]) -> Iterator[str]:
    """Of the rows that a state has with it: whoever gave a program to an ensemble may have got it anywhere."""
    composed = state.get(COMPOSED) or {}
    for row in composed.get("rows", ()):
        yield inputs_digest(row["inputs"])
    for one in composed.get("states", ()):
        yield from _neighbours(one)
