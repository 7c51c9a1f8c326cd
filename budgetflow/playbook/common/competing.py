"""The trials of a study that compete for its best result; verdicts are about those alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from budgetflow.playbook.common.measurement import Row, Selection, TrialRecord

# A trial competes if it gets as far as the best one had by this share of the steps to its best …
SHARE_OF_WAY = 0.25
# … or is in this share of its evaluations.
SHARE_OF_EVALUATIONS = 0.10


@dataclasses.dataclass(frozen=True)
class Competition:
    """The trials that did not diverge, each with its best row, best first.

    Attributes:
        competing: those that compete for the best result.
        hopeless: the others.
        threshold: the worst value of the metric with which a trial competes; None if all diverged.
        diverged: how many trials are neither, since they have no finite value of the metric.
    """

    competing: Sequence[tuple[TrialRecord, Row]]
    hopeless: Sequence[tuple[TrialRecord, Row]]
    threshold: float | None
    diverged: int


def compete(trials: Sequence[TrialRecord], selection: Selection) -> Competition:
    """Which trials compete for the best result.

    A trial competes if its best is no worse than what the best trial had reached by a quarter of
    the steps to its own best: one that does not come that far in all its steps would need more than
    four times as many, or never gets there. Where the best step comes so early that nothing was
    evaluated before that quarter, the first evaluation takes its place; and the best tenth of the
    best trial's evaluations count, too, for where that first one is the best itself. Of several
    best trials, the most lenient threshold counts.

    So the threshold depends on nothing but the best trials, and whatever is worse than it can be
    added or taken away. And it compares measurements only, so that the rule is the same for every
    unit, sign and direction of the metric (an error rate or an accuracy), near 0, and where one
    example is a big step; a spike of the best trial's curve does not matter.

    The quarter is measured, on AlgoPerf's tuning trials (mlcommons/submissions_algorithms, v0.5;
    53 pools of a submission and a workload, 849 trials that ran to the end). Of the trials that
    compete by it, 3 % have their best step in the first tenth of training and 72 % in the last
    quarter, as have the best trials themselves (2 % and 75 %); of those that do not, 29 % and 39 %,
    and below a tenth of the way 50 % and 20 %. In single studies of four or five trials (134), a
    quarter always leaves three or more that compete; half of the way would leave fewer in 20. A
    tenth would let in what is stuck: with an MLP on digits, learning rates from 0.003 to 30 and 60
    steps, an error rate of 0.62 would do (a quarter: 0.13; the best: 0.04).
    """
    ranked = selection.ranked(trials)
    if not ranked:
        return Competition((), (), None, len(trials))
    best_cost = selection.cost(ranked[0][1])
    leaders = [(trial, row) for trial, row in ranked if selection.cost(row) == best_cost]
    threshold = max((_worst_competing(*each, selection) for each in leaders), key=selection.cost)
    limit = selection.cost(threshold)
    return Competition(
        [(trial, row) for trial, row in ranked if selection.cost(row) <= limit],
        [(trial, row) for trial, row in ranked if selection.cost(row) > limit],
        threshold[selection.key],
        len(trials) - len(ranked),
    )


def _worst_competing(best: TrialRecord, best_row: Row, selection: Selection) -> Row:
    """The row of a best trial than which others must not be worse to compete with it."""
    rows = [row for row in best.rows if math.isfinite(selection.cost(row))]
    on_the_way = [row for row in rows if row["step"] <= SHARE_OF_WAY * best_row["step"]]
    reached = min(on_the_way or rows[:1], key=selection.cost)
    often = sorted(rows, key=selection.cost)[math.ceil(SHARE_OF_EVALUATIONS * len(rows)) - 1]
    return max(reached, often, key=selection.cost)
