"""Which trials of a race may wait: those so far behind that they will not be the first to fit.

A trial is behind another one, its leader, if the training loss that it has after s steps is one
that the leader had after s' < s steps. Assumed is this: if the leader fits at step f, then no trial
fits earlier that was :data:`LAG` times as slow as the leader (s >= LAG s') after a share of
:data:`SHARE` of the leader's steps or more (s >= SHARE f).

So while nobody fits, a trial that is as slow as that waits until its leader has made s / SHARE
steps. Once one has fitted, the others are trained only until they are too slow by the curve of that
one, or have come as far, or fit; under the assumption the answer is that of the whole race.

Who waits where depends on who is ahead. A kill can set trials back to saves of different times;
then some may be set aside at other steps than they would have been. The answer is the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from budgetflow.playbook.common.measurement import PARTIAL, Row, TrialRecord

# Measured: experiments/racing_with_proof/README.md.
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


def lag(trial: TrialRecord, leader: TrialRecord) -> Lag | None:
    """How far a trial is behind another one; None if it is not.

    Losses are compared where they are of the same training examples.
    """
    if not trial.rows or trial.trial == leader.trial:
        return None
    rows, others = (_comparable(t.rows, trial.rows[-1]) for t in (trial, leader))
    loss = min(row["train_loss"] for row in rows)
    reached = next((row["step"] for row in others if row["train_loss"] <= loss), None)
    if reached is None or reached >= trial.step:
        return None
    return Lag(trial.trial, trial.base_learning_rate, trial.step, loss, leader.trial, reached)


def due(
    racing: Sequence[TrialRecord], leader: TrialRecord, grid: Sequence[int]
) -> list[TrialRecord]:
    """The trials that have to be trained next; none if all are too slow.

    Args:
        racing: those that have not fitted, nor come as far as the fastest fit (or N).
        leader: the fastest that fitted; while none did, any, for it only says who goes first.
        grid: the steps at which trials wait for each other.
    """
    cleared = {trial.trial: _cleared(trial, leader) for trial in racing}
    if leader.fitted_at_step is not None:
        racing = [t for t in racing if cleared[t.trial] < leader.fitted_at_step]
    lowest = min((cleared[trial.trial] for trial in racing), default=0)
    stage = next((step for step in grid if step > lowest), math.inf)
    return [trial for trial in racing if cleared[trial.trial] < stage]


def _cleared(trial: TrialRecord, leader: TrialRecord) -> float:
    """The step up to which a trial is known not to fit, or, if its leader fits, to be too slow."""
    found = lag(trial, leader)
    is_too_slow = found is not None and found.step >= LAG * found.leader_step
    return trial.step / SHARE if is_too_slow else trial.step


def _comparable(rows: Sequence[Row], with_row: Row) -> list[Row]:
    """The measurements on as many training examples as another one."""
    return [row for row in rows if row.get(PARTIAL) == with_row.get(PARTIAL)]
