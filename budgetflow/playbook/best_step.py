"""The best-step diagnosis: was ``max_train_steps`` too high or too low for this study?

The playbook: from all trials of a study, plot the training step that retrospective checkpoint
selection finds. If the best step is always in the first 10 % of training, ``max_train_steps`` is
far too high; if it is consistently in the last 25 %, longer training and a re-tuned decay may help.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from budgetflow.playbook.measurement import TrialView, best_row

FIRST, LAST = 0.10, 0.25
# "Always" is every trial; "consistently" is at least this share of them.
CONSISTENTLY = 0.75
MIN_TRIALS = 3


def diagnose(
    trials: Sequence[TrialView], max_train_steps: int, selection_metric: str
) -> dict[str, Any]:
    """The ``best_step_diagnosis`` of a round's outcome.

    Args:
        trials: the study's trials; diverged ones are left out.
        max_train_steps: the length of every trial.
        selection_metric: the measurement's key, like "validation_error_rate"; ties go to the
            earlier step.

    Returns:
        ``verdict`` ("too_long", "too_short", "about_right", "undecided" for fewer than three
        trials), the two shares, the counts behind them, ``suggested_max_train_steps`` (on the
        longer side, as the playbook asks when in doubt), ``caveats`` and ``means`` (sentences).
    """
    chosen = [
        (trial, row["step"])
        for trial in trials
        if not trial.diverged and (row := best_row(trial.rows, selection_metric))
    ]
    steps = [step for _, step in chosen]
    early = sum(step <= FIRST * max_train_steps for step in steps)
    late = sum(step > (1 - LAST) * max_train_steps for step in steps)
    verdict, suggestion = _verdict(steps, early, late, max_train_steps)
    caveats = []
    if left_out := len(trials) - len(steps):
        caveats.append(f"{left_out} trial(s) that diverged are left out.")
    decaying = sum(trial.decays_to_zero for trial, _ in chosen)
    if decaying:
        caveats.append(
            f"The learning rate of {decaying} of {len(steps)} trials decays to zero, which by "
            "itself pushes best steps to the end; late best steps alone do not show that training "
            "was too short."
        )
    count = len(steps)
    means = {
        "undecided": f"{count} trial(s) are too few to judge max_train_steps by; "
        f"it takes {MIN_TRIALS}.",
        "too_long": f"In all {count} trials the best step lies in the first {FIRST:.0%} of "
        f"training: max_train_steps is far too high; {suggestion} would do.",
        "too_short": f"In {late} of {count} trials the best step lies in the last {LAST:.0%} of "
        f"training ('consistently' means {CONSISTENTLY:.0%} or more): longer training, up to "
        f"{suggestion} steps, and re-tuning the decay may help.",
        "about_right": f"In {early} of {count} trials the best step lies in the first {FIRST:.0%} "
        f"of training and in {late} in the last {LAST:.0%}: neither always early nor consistently "
        "late, so max_train_steps is about right.",
    }[verdict]
    return {
        "verdict": verdict,
        "share_in_first_10_percent": early / count if count else None,
        "share_in_last_25_percent": late / count if count else None,
        "suggested_max_train_steps": suggestion,
        "trials": count,
        "in_first_10_percent": early,
        "in_last_25_percent": late,
        "caveats": caveats,
        "means": means,
    }


def _verdict(
    steps: list[int], early: int, late: int, max_train_steps: int
) -> tuple[str, int | None]:
    if len(steps) < MIN_TRIALS:
        return "undecided", None
    if early == len(steps):
        # Twice the latest best step: generous, since training longer does not hurt.
        return "too_long", min(2 * max(steps), max_train_steps)
    if late >= CONSISTENTLY * len(steps):
        return "too_short", 2 * max_train_steps
    return "about_right", max_train_steps
