"""Which of the playbook's two workflows follows from the kind of workload that it is."""

from __future__ import annotations

from budgetflow.playbook.common.outcomes import Regime
from budgetflow.playbook.common.words import words

_FOLLOWS = {
    "not_compute_bound": (
        "tune in one round of this length or more (config.kind = 'round'), and let its best steps "
        "say whether the length is right"
    ),
    "compute_bound": (
        "tune in rounds of growing length, the last as long as you can wait for (config.kind = "
        "'rounds')"
    ),
    "undecided": "settle that first, or state it with config.regime",
}


def workflow(found: Regime, stated: Regime | None) -> str:
    """What follows, in a sentence; what a config states holds over what a sweep has found."""
    if stated is None or stated == found:
        return f"The workload is {_named(found)}: {_FOLLOWS[found]}."
    return (
        f"The config states that the workload is {_named(stated)}, which holds over what the sweep "
        f"shows ({_named(found)}): {_FOLLOWS[stated]}."
    )


def _named(regime: Regime) -> str:
    return words(regime).replace("compute bound", "compute-bound")
