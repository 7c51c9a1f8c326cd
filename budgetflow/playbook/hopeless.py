"""Which trials of a race may wait: those too far behind to be the first to fit.

A trial whose training loss after s steps is one that another, its leader, had after s' < s steps is
behind it. If the leader fits at step f, it took f - s' steps from that loss. Assumed is that no
trial goes from a loss to the fit more than :data:`CATCH_UP` times as fast as the first to fit did.
So this one needs (f - s') / CATCH_UP more steps at least, and is too late if s + (f - s') / CATCH_UP
is more than f. Solved for f, that is: it is out if the leader fits before step
(CATCH_UP s - s') / (CATCH_UP - 1).

While nobody fits, a trial waits until its leaders have passed that step. Once one has fitted, the
others are trained only until they are out by the curve of that one, or fit. Under the assumption
the answer is that of the whole race.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from budgetflow.playbook.measurement import PARTIAL, Row, TrialRecord

LAG, SHARE = 4.0, 0.25


@dataclasses.dataclass(frozen=True)
class Lag:
    """How far a trial is behind its leader.

    Attributes:
        trial, learning_rate: the trial, and its learning rate.
        step: s, the updates that it has made.
        loss: its lowest training loss so far.
        leader: the other trial.
        leader_step: s', the first evaluation at which the leader had a loss as low.
    """

    trial: int
    learning_rate: float
    step: int
    loss: float
    leader: int
    leader_step: int

    @property
    def out_before(self) -> float:
        """The trial is too late if its leader fits before this step."""
        return self.step / SHARE if self.step >= LAG * self.leader_step else self.step


def lag(trial: TrialRecord, leader: TrialRecord) -> Lag | None:
    """How far a trial is behind another one; None if it is not, or has not been evaluated.

    Compared are losses on the same training examples.
    """
    if not trial.rows:
        return None
    rows, others = (_comparable(t.rows, trial.rows[-1]) for t in (trial, leader))
    loss = min(row["train_loss"] for row in rows)
    reached = next((row["step"] for row in others if row["train_loss"] <= loss), math.inf)
    if reached >= trial.step:
        return None
    return Lag(trial.trial, trial.base_learning_rate, trial.step, loss, leader.trial, reached)


def due(
    racing: Sequence[TrialRecord],
    leaders: Sequence[TrialRecord],
    grid: Sequence[int],
    fitted_at: int | None,
) -> list[TrialRecord]:
    """The trials that have to be trained next; none if all are out.

    Args:
        racing: those that have not fitted, nor come as far as the fastest fit (or N).
        leaders: whom they may be behind: the fastest that fitted; while none did, any.
        grid: the steps at which trials wait for each other.
        fitted_at: the step of the fastest fit, if there is one.
    """
    levels = {trial.trial: _level(trial, leaders) for trial in racing}
    if fitted_at is not None:
        racing = [trial for trial in racing if levels[trial.trial] <= fitted_at]
    lowest = min((levels[trial.trial] for trial in racing), default=math.inf)
    stage = next((step for step in grid if step > lowest), math.inf)
    return [trial for trial in racing if levels[trial.trial] < stage]


def _level(trial: TrialRecord, leaders: Sequence[TrialRecord]) -> float:
    """The step up to which a trial is known not to fit, or to be too late for its leaders."""
    lags = (lag(trial, leader) for leader in leaders)
    return max((found.out_before for found in lags if found), default=trial.step)


def _comparable(rows: Sequence[Row], with_row: Row) -> list[Row]:
    """The measurements on as many training examples as another one."""
    return [row for row in rows if row.get(PARTIAL) == with_row.get(PARTIAL)]
