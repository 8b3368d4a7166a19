"""A metric of one's own: dspex eval run triage tickets --metric metrics:sorted_well"""

from typing import Any


def sorted_well(example: Any, prediction: Any, trace: Any = None) -> float:
    """The right team counts most; what is urgent and was missed is worse than the other way round."""
    team = 0.7 if prediction.team == example.team else 0.0
    if prediction.urgency == example.urgency:
        return team + 0.3
    return team + (0.1 if prediction.urgency == "high" else 0.0)
