"""Which rows demonstrations came from that no optimization saw: those of the versions that it began with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dspex.kit import json
from dspex.programs.records import COMPOSED, Version

# What the rows are called that neighbours are chosen from.
NEIGHBOUR = "neighbour"


def traced(
    demos: Sequence[Mapping[str, Any]], state: Mapping[str, Any], line: Sequence[Version]
) -> list[Mapping[str, Any]]:
    """The demos of a `state`, each whose row is not known with that, "dataset" and "dataset_version" of where it came

    from. `line` are the versions that the state was made from and theirs, the nearest first; what they do not tell of
    stays as it is.
    """
    if all(one.get("row") is not None for one in demos):
        return list(demos)
    known: dict[tuple[str, bytes], Mapping[str, Any]] = {}
    for version in line:
        for place, origin in _told(version):
            known.setdefault(place, origin)
    found: list[Mapping[str, Any]] = []
    for one in demos:
        shown = _shown(one, state) if one.get("row") is None else None
        found.append(one if shown is None else {**one, **known.get(shown, {})})
    return found


def _told(version: Version) -> Iterator[tuple[tuple[str, bytes], Mapping[str, Any]]]:
    """What the lineage of a version says of what it shows."""
    lineage = version.lineage or {}
    for one in lineage.get("demos", ()):
        shown = None if one.get("row") is None else _shown(one, version.definition.state or {})
        if shown is not None:
            source = lineage["dataset"]
            yield (
                shown,
                {
                    "row": one["row"],
                    "dataset": one.get("dataset", source["name"]),
                    "dataset_version": one.get("dataset_version", source["version"]),
                },
            )


def _shown(demo: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[str, bytes] | None:
    """Its predictor and what is shown there, for comparing; None where there is no such thing in the state."""
    name, whole = demo["predictor"], state
    for program in [demo["program"], *demo.get("within", ())] if demo.get("program") is not None else ():
        states = (whole.get(COMPOSED) or {}).get("states", ())
        whole = states[program] if program < len(states) else {}
    if demo.get("source") == NEIGHBOUR:
        found = (whole.get(COMPOSED) or {}).get("rows", ())
    else:
        # DSPy calls the one predictor of a lone dspy.Predict "self".
        part = whole if name == "self" and "demos" in whole else whole.get(name)
        found = part.get("demos", ()) if isinstance(part, Mapping) else ()
    if not 0 <= demo["index"] < len(found):
        return None
    return name, json.dumps(found[demo["index"]], sort_keys=True)
