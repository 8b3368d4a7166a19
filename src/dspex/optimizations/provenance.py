"""Which rows the demonstrations came from that an optimization kept of the version before."""

from collections.abc import Mapping, Sequence
from typing import Any

from dspex.programs.records import COMPOSED, Version


def traced(
    demos: Sequence[Mapping[str, Any]], state: Mapping[str, Any], line: Sequence[Version]
) -> list[Mapping[str, Any]]:
    """The demos of a `state`, each that was kept with the row, "dataset" and "dataset_version" that it came from.

    `line` are the version that was optimized and its ancestors, the nearest first; what they do not tell of stays as it
    is.
    """
    return [{**one, **_before(one, state, line)} if one.get("source") == "kept" else one for one in demos]


def _before(demo: Mapping[str, Any], state: Mapping[str, Any], line: Sequence[Version]) -> Mapping[str, Any]:
    name = demo["predictor"]
    whole = state if demo.get("program") is None else state[COMPOSED]["states"][demo["program"]]
    shown = _demos(whole, name)
    if not 0 <= demo["index"] < len(shown):
        return {}
    for version in line:
        lineage = version.lineage or {}
        for one in lineage.get("demos", ()):
            if one.get("row") is None or one["predictor"] != name or one.get("program") is not None:
                continue
            theirs = _demos(version.definition.state or {}, name)
            if one["index"] < len(theirs) and theirs[one["index"]] == shown[demo["index"]]:
                source = lineage["dataset"]
                return {
                    "row": one["row"],
                    "dataset": one.get("dataset", source["name"]),
                    "dataset_version": one.get("dataset_version", source["version"]),
                }
    return {}


def _demos(state: Mapping[str, Any], predictor: str) -> Sequence[Any]:
    # DSPy calls the one predictor of a lone dspy.Predict "self".
    part = state if predictor == "self" and "demos" in state else state.get(predictor)
    return part.get("demos", ()) if isinstance(part, Mapping) else ()
