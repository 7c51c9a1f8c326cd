"""Findings of a short first round besides its ranking, on which later rounds rely.

Early instability is a matter of short runs (the playbook: it can be resolved with a small number of
training steps, by warmup and initialisation); short-horizon bias is the limit of what they can say.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

from budgetflow.config.search_space import BASE_LEARNING_RATE, Dimension
from budgetflow.playbook.common.competing import compete
from budgetflow.playbook.common.measurement import Selection, TrialRecord, by_setting
from budgetflow.playbook.common.outcomes import Regime
from budgetflow.playbook.derived.narrowing import Edge, as_choice, edge, in_order
from budgetflow.playbook.derived.transfer_tags import default_tag, regularizes

# A loss spike is higher than the lowest training loss before it by this share of that loss …
SPIKE_OF_LOSS = 0.5
# … and by this share of what had been learned, from the first evaluation to that lowest loss.
SPIKE_OF_FALL = 0.1
# Values separate stable from unstable trials only if chance does so less often than this.
BY_CHANCE = 0.05
# A schedule that ends at or below this share of its base learning rate is complete: Hoffmann et
# al. 2022 (arXiv:2203.15556) end theirs at a tenth.
DECAYED_TO = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Separation:
    """A hyperparameter whose values separate the unstable trials from all others.

    Attributes:
        field: the config field.
        unstable: the side on which the unstable trials are; "values" where they have no order.
        last_unstable, first_stable: the neighbouring values, where they have an order.
        unstable_values: the values, where they have none.
        by_chance: how often chance separates as many trials as clearly, by any such field.
    """

    field: str
    unstable: Literal["below", "above", "values"]
    last_unstable: float | None = None
    first_stable: float | None = None
    unstable_values: tuple[Any, ...] = ()
    by_chance: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instability:
    """The stability of early training.

    Attributes:
        trials: how many there are.
        diverged: the numbers of those that diverged.
        spiked: the numbers of those that had a loss spike and did not diverge.
        settles: the dimensions that settle it, tagged "very_likely" to transfer: warmup and
            initialisation.
        separations: of those dimensions, where they separate unstable from stable trials.
    """

    trials: int
    diverged: tuple[int, ...]
    spiked: tuple[int, ...]
    settles: tuple[str, ...]
    separations: tuple[Separation, ...]


def instability(space: Sequence[Dimension], records: Sequence[TrialRecord]) -> Instability:
    """How many trials diverged or spiked, and whether warmup or initialisation separates them.

    A field does if all unstable settings have lower values than all stable ones (or higher; without
    an order: other values), and chance would do so in less than 5 % of cases: of all ways to pick
    as many unstable ones among the settings, as a permutation test counts them, times the number of
    fields that were looked at (Bonferroni). Another seed of a setting is no further evidence.
    """
    settles = [d.name for d in space if (d.tag or default_tag(d.name)) == "very_likely"]
    diverged = tuple(trial.trial for trial in records if trial.diverged)
    spiked = tuple(t.trial for t in records if not t.diverged and has_spike(t))
    unstable = {*diverged, *spiked}
    settings = [
        (trials[0].setting, any(trial.trial in unstable for trial in trials))
        for trials in by_setting(records).values()
    ]
    separations = (_separation(field, settings, len(settles)) for field in settles)
    return Instability(
        trials=len(records),
        diverged=diverged,
        spiked=spiked,
        settles=tuple(settles),
        separations=tuple(s for s in separations if s and s.by_chance < BY_CHANCE),
    )


def has_spike(trial: TrialRecord) -> bool:
    """Whether a trial's training loss jumped up at an evaluation and came back later.

    Up: by more than half of the lowest training loss before it, and by more than a tenth of what
    had been learned from the first evaluation to that one. Each alone would take noise for a spike:
    the first where the loss is next to nothing and any change is a large ratio of it, the second
    where hardly anything had been learned. Back: to that lowest loss or below; a loss that stays up
    is a worse end, which the ranking shows.
    """
    losses = _finite([trial], "train_loss")
    lowest = math.inf
    for number, loss in enumerate(losses):
        least = max(SPIKE_OF_LOSS * abs(lowest), SPIKE_OF_FALL * (losses[0] - lowest))
        if loss - lowest > least and min(losses[number:]) <= lowest:
            return True
        lowest = min(lowest, loss)
    return False


def _separation(
    field: str, settings: Sequence[tuple[dict[str, Any], bool]], fields: int
) -> Separation | None:
    """How a field separates settings; None if it does not.

    Args:
        field: the field.
        settings: each with whether it is unstable.
        fields: how many are looked at.
    """
    sides: dict[bool, list[Any]] = {False: [], True: []}
    for setting, is_unstable in settings:
        if field in setting:
            sides[is_unstable].append(as_choice(setting[field]))
    stable, unstable = sides.values()
    if not stable or not unstable or {*stable} & {*unstable}:
        return None
    found: dict[str, Any]
    ways = 2  # all of them at either end
    if not in_order([*stable, *unstable]):
        ways = _subsets_of_size([*stable, *unstable], len(unstable))
        found = {"unstable": "values", "unstable_values": tuple(dict.fromkeys(unstable))}
    elif max(unstable) < min(stable):
        found = {"unstable": "below", "last_unstable": max(unstable), "first_stable": min(stable)}
    elif min(unstable) > max(stable):
        found = {"unstable": "above", "last_unstable": min(unstable), "first_stable": max(stable)}
    else:
        return None
    picks = math.comb(len(stable) + len(unstable), len(unstable))
    return Separation(field=field, **found, by_chance=min(fields * ways / picks, 1.0))


def _subsets_of_size(values: Sequence[Any], size: int) -> int:
    """The number of sets of different values that ``size`` of the values are in."""
    ways = collections.Counter({0: 1})
    for count in collections.Counter(values).values():
        for total, number in list(ways.items()):
            ways[total + count] += number
    return ways[size]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegularizationWithoutFit:
    """Regularization is tuned although the training set cannot be fitted.

    Attributes:
        fields: the dimensions that regularize.
        shown_by: a "regime" of "compute_bound", or the "trials", none of which fitted the set.
        lowest_train_error_rate, lowest_train_loss: of all trials; None where not measured.
        fitted_train_loss: the loss that counts as fitted; None for a task that has an error rate.
    """

    fields: tuple[str, ...]
    shown_by: Literal["regime", "trials"]
    lowest_train_error_rate: float | None = None
    lowest_train_loss: float | None = None
    fitted_train_loss: float | None = None


def regularization_without_fit(
    space: Sequence[Dimension],
    records: Sequence[TrialRecord],
    regime: Regime | None,
    fitted_train_loss: float | None = None,
) -> RegularizationWithoutFit | None:
    """The finding that regularization is tuned where it is unlikely to help, by the playbook.

    "If it isn't possible to perfectly fit the training set, then the model may be in a regime where
    regularization is unlikely to help": where the regime is compute-bound and no trial fitted the
    set after all, or where the regime is not known and no trial of the round fitted it, which is
    weaker: with regularization, or too few steps, no trial may do what the model could.

    Args:
        space: the round's.
        records: its trials; none before it has run.
        regime: by an earlier sweep or the config.
        fitted_train_loss: the training loss under which the set counts as fitted, for a task
            without an error rate.

    Returns:
        None where there is nothing to flag, or nothing to tell by.
    """
    fields = tuple(dimension.name for dimension in space if regularizes(dimension.name))
    lowest_error, lowest_loss = (
        min(_finite(records, f"train_{name}"), default=None) for name in ("error_rate", "loss")
    )
    fits, is_measured = lowest_error == 0, lowest_error is not None
    if fitted_train_loss is not None and lowest_loss is not None:
        fits, is_measured = fits or lowest_loss < fitted_train_loss, True
    if not fields or fits or regime == "not_compute_bound":
        return None
    if regime != "compute_bound" and not is_measured:
        return None
    return RegularizationWithoutFit(
        fields=fields,
        shown_by="regime" if regime == "compute_bound" else "trials",
        lowest_train_error_rate=lowest_error,
        lowest_train_loss=lowest_loss,
        fitted_train_loss=fitted_train_loss,
    )


def _finite(records: Sequence[TrialRecord], key: str) -> list[float]:
    """The finite values of a measurement, trial by trial."""
    values = [row[key] for trial in records for row in trial.rows if key in row]
    return [value for value in values if math.isfinite(value)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RateAtEdge:
    """The place of the best base learning rate among those tried, and the kind of runs.

    Attributes:
        runs: "complete" if all schedules decayed to a tenth of their base learning rate or less,
            "undecayed" if none did, else "mixed".
        best, lowest, highest: base learning rates; the latter two of all trials, diverged or not.
        edge: the end at which the best one lies: it is within the outer 5 % of their range, in
            decades; None with fewer than three different ones, of which most are at an end.
        inner_competing: how many trials with base learning rates away from that end compete.
    """

    runs: Literal["complete", "undecayed", "mixed"]
    best: float
    lowest: float
    highest: float
    edge: Edge | None = None
    inner_competing: int = 0


def rate_at_edge(records: Sequence[TrialRecord], selection: Selection) -> RateAtEdge | None:
    """The place of the best base learning rate; None if every trial diverged."""
    competing = [trial for trial, _ in compete(records, selection).competing]
    if not competing:
        return None
    rates = sorted({trial.base_learning_rate for trial in records})
    ends: list[Edge | None] = [None]
    if len(rates) > 2:
        tried = Dimension(BASE_LEARNING_RATE, "log_uniform", low=rates[0], high=rates[-1])
        ends = [edge(tried, trial.base_learning_rate) for trial in competing]
    decayed = [
        trial.schedule.end_learning_rate <= DECAYED_TO * trial.base_learning_rate
        for trial in records
    ]
    return RateAtEdge(
        runs="complete" if all(decayed) else "mixed" if any(decayed) else "undecayed",
        best=competing[0].base_learning_rate,
        lowest=rates[0],
        highest=rates[-1],
        edge=ends[0],
        inner_competing=sum(end != ends[0] for end in ends) if ends[0] else 0,
    )
