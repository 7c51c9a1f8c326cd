"""What any study has found, in words: see also the wording of sweeps and that of rounds."""

from __future__ import annotations

from budgetflow.playbook.outcomes import Outcome, SweepOutcome
from budgetflow.playbook.round_wording import round_headline
from budgetflow.playbook.sweep_wording import sweep_headline


def headline(outcome: Outcome) -> str:
    """The outcome of a study in one sentence."""
    if isinstance(outcome, SweepOutcome):
        return sweep_headline(outcome)
    return round_headline(outcome)


def vectorized(trials: int) -> str:
    """What it means that trials were vectorized."""
    return (
        f"Up to {trials} trials at a time were vectorized (config.mesh.vmap_trials), which rounds "
        "differently from a trial alone."
    )
