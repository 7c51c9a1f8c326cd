"""The verdict on an earlier, shorter round's choice: is it still the best in a longer round?

Some settings are run in both rounds. The verdict follows from the noise between seeds; where that
is not known, nothing is claimed.

**The tests.** With flat priors, and normal noise of one size for all settings, the true mean cost
of a setting is t-distributed around the mean of its seeds. The choice "held" if the probability
that it is the best of all is at least 1 - alpha. It "did not hold" if the one with the lowest mean
of the k - 1 others is better with a probability of at least 1 - alpha / (k - 1) (Bonferroni).
Otherwise one "cannot tell". Against any one setting these are one-sided t-tests; so, whatever the
true means, a study is wrongly said to have held, or not to have held, with a probability of at most
alpha. The choice must not have been made with the later round's results.

**Divergence.** A setting of which a seed diverged counts as worse than all of which none did. Where
that is the choice, it "did not hold" only if its seeds diverged more often than those of all others
together, by Fisher's exact test at alpha: one seed of two may be chance.

**Measured** on 2,000 simulated studies each of 2 to 8 settings and 2 to 5 seeds
(``tests/playbook/derived/test_earlier_choice.py``): confident and wrong in 0.8 % where the choice
is truly the best, 0.3 % where another is, 3.6 % where all settings are equal (the worst case), 1.9
% where one is as good as the choice, 1.4 % where differences drown in noise. In the worst case 3.6
% with heavy tails (Student's t of 2 degrees of freedom) and 2.7 % with skewed noise; but 6.5 %
where the settings' noise differs up to tenfold, and 10 % where the choice is four times as noisy as
all others: noise that is pooled is then too small for it. Where seeds diverge by chance (in 10 or
50 %) it is wrong to say "did not hold" in 1.5 %; and 6.2 % of choices "held" beside a setting that
diverged in a seed and would have been better without that.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from budgetflow.playbook.common.measurement import SEED, Selection, TrialRecord, by_setting
from budgetflow.playbook.common.rank_correlation import RankCorrelation, rank_correlation
from budgetflow.playbook.common.seed_noise import Noise, pooled_noise, with_floor
from budgetflow.playbook.derived.narrowing import in_order

# The error rate of a confident verdict.
ALPHA = 0.05
# Points of each of the two integrals; at 64 the error is below 0.001.
POINTS = 32

Verdict = Literal["held", "did_not_hold", "cannot_tell"]
Direction = Literal["up", "down", "changed", "same"]
Evidence = Literal["shown", "not_attributable", "within_noise"]


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting of the hyperparameters that was run in both rounds.

    Attributes:
        hyperparameters: config field to value.
        earlier, later: its costs in either round, one per seed; NaN or infinite if it diverged.
        promoted: whether it is the earlier round's choice.
    """

    hyperparameters: dict[str, Any]
    earlier: tuple[float, ...]
    later: tuple[float, ...]
    promoted: bool = False

    @property
    def diverged(self) -> int:
        """How many seeds diverged in the later round."""
        return sum(not math.isfinite(cost) for cost in self.later)

    @property
    def mean(self) -> float:
        """The mean cost in the later round; infinite if a seed diverged."""
        return math.inf if self.diverged else float(np.mean(self.later))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MovedValue:
    """A hyperparameter's value in the earlier round's choice and in what the later one prefers.

    Attributes:
        field: the config field.
        before: its value in the promoted setting.
        after: its value in the setting that the later round prefers.
        direction: "changed" where the values are no numbers.
        evidence: "shown" where the verdict is that the choice did not hold and nothing else differs
            between the two settings; "not_attributable" where several fields do; "within_noise"
            where there is no such verdict.
    """

    field: str
    before: Any
    after: Any
    direction: Direction
    evidence: Evidence


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChoiceVerdict:
    """Whether the earlier round's choice held; settings are numbered in the order given.

    Attributes:
        verdict: "held" or "did_not_hold" in error at most as often as ``alpha``.
        alpha: that error rate.
        settings: how many were run in both rounds.
        fewest_seeds, most_seeds: of a setting in the later round.
        promoted: the number of the earlier round's choice.
        preferred: that of the setting which the later round prefers: the lowest mean cost, the
            promoted one of ties. None if all of them diverged.
        promoted_seeds, promoted_diverged: the seeds of the choice in the later round, and how many
            of them diverged.
        others_diverged: how many other settings had a seed that diverged; they count as worse.
        probability_still_best: that the choice is still the best; None where the noise is unknown
            or the choice diverged.
        probability_preferred_is_better: that the preferred setting is better than the choice; None
            where it is the choice itself, and as above.
        noise_sd, noise_degrees_of_freedom: the noise between seeds that these are found on.
        rank_correlation: of the two rounds' orders; None where there is no order.
        moved: each hyperparameter in both rounds, in the order of the promoted setting.
        retune: the fields to tune again: those that moved where the choice did not hold.
    """

    verdict: Verdict
    alpha: float
    settings: int
    fewest_seeds: int
    most_seeds: int
    promoted: int
    preferred: int | None
    promoted_seeds: int
    promoted_diverged: int
    others_diverged: int
    probability_still_best: float | None
    probability_preferred_is_better: float | None
    noise_sd: float | None
    noise_degrees_of_freedom: float | None
    rank_correlation: RankCorrelation | None
    moved: tuple[MovedValue, ...]
    retune: tuple[str, ...]


def choice_verdict(
    earlier: Sequence[TrialRecord],
    promoted: int,
    later: Sequence[TrialRecord],
    selection: Selection,
) -> ChoiceVerdict | None:
    """The verdict on an earlier round's choice, by the settings of it that were run again.

    Args:
        earlier: the earlier round's trials.
        promoted: the number of the one that was its choice.
        later: the later round's trials.
        selection: what selects steps and trials.

    Returns:
        None where fewer than two settings were run again, or the choice was not.
    """
    before = by_setting(trial for trial in earlier if not trial.failed)
    after = by_setting(trial for trial in later if trial.role in ("best", "rerun"))
    choice = next(key for key, group in before.items() if promoted in {t.trial for t in group})
    settings = [
        Setting(
            hyperparameters=again[0].hyperparameters,
            earlier=tuple(map(selection.cost_of, before[key])),
            later=tuple(map(selection.cost_of, again)),
            promoted=key == choice,
        )
        for key, again in after.items()
        if key in before
    ]
    if len(settings) < 2 or not any(setting.promoted for setting in settings):
        return None
    groups = ([selection.cost_of(trial) for trial in group] for group in before.values())
    noise = pooled_noise(groups, selection.resolution)
    return judge_choice(settings, noise, selection.resolution)


def judge_choice(
    settings: Sequence[Setting],
    noise: Noise | None = None,
    resolution: float = 0.0,
) -> ChoiceVerdict:
    """The verdict on the earlier round's choice, by the tests of the module's docstring.

    Args:
        settings: those that were run in both rounds, one of them promoted.
        noise: between seeds, as measured elsewhere (say, in the earlier round); only used where no
            setting has two seeds in the later round.
        resolution: the smallest step of the metric: the noise is never taken to be less.

    Raises:
        ValueError: there is nothing to compare.
    """
    _check(settings)
    promoted = next(i for i, setting in enumerate(settings) if setting.promoted)
    choice = settings[promoted]
    # Noise that was measured elsewhere is no rounding, however small it is.
    noise = pooled_noise([s.later for s in settings], resolution) or (
        noise and with_floor(noise, 0.0, resolution)
    )
    # The lowest mean, the promoted one of ties.
    usable = [number for number, setting in enumerate(settings) if not setting.diverged]
    preferred = min(usable, key=lambda n: (settings[n].mean, n != promoted), default=None)
    still_best = is_better = None
    if noise and not choice.diverged:
        still_best = _probability_best(settings, promoted, noise)
        if preferred is not None and preferred != promoted:
            is_better = _probability_below(settings[preferred], choice, noise)
    verdict = _verdict(settings, choice, still_best, is_better)
    moved = _moved(settings, promoted, preferred, verdict)
    retune = [m.field for m in moved if verdict == "did_not_hold" and m.direction != "same"]
    return ChoiceVerdict(
        verdict=verdict,
        alpha=ALPHA,
        settings=len(settings),
        fewest_seeds=min(len(setting.later) for setting in settings),
        most_seeds=max(len(setting.later) for setting in settings),
        promoted=promoted,
        preferred=preferred,
        promoted_seeds=len(choice.later),
        promoted_diverged=choice.diverged,
        others_diverged=sum(s.diverged > 0 for s in settings if not s.promoted),
        probability_still_best=still_best,
        probability_preferred_is_better=is_better,
        noise_sd=noise.sd if noise else None,
        noise_degrees_of_freedom=noise.degrees_of_freedom if noise else None,
        rank_correlation=rank_correlation(
            [setting.earlier for setting in settings], [setting.later for setting in settings]
        ),
        moved=moved,
        retune=tuple(retune),
    )


def _check(settings: Sequence[Setting]) -> None:
    if len(settings) < 2:
        raise ValueError("fewer than two settings run in both rounds: it takes two to compare")
    if (promoted := sum(setting.promoted for setting in settings)) != 1:
        raise ValueError(f"{promoted} settings are marked as promoted: it should be 1")
    for number, setting in enumerate(settings):
        if not setting.earlier or not setting.later:
            raise ValueError(f"setting {number} has no cost in one of the rounds: it takes 1 seed")


def _verdict(
    settings: Sequence[Setting],
    choice: Setting,
    still_best: float | None,
    is_better: float | None,
) -> Verdict:
    if still_best is not None and still_best >= 1 - ALPHA:
        return "held"
    error = 1.0
    if is_better is not None:
        error = (1 - is_better) * (len(settings) - 1)
    elif choice.diverged and any(not setting.diverged for setting in settings):
        error = _diverges_more(settings, choice)
    return "did_not_hold" if error <= ALPHA else "cannot_tell"


def _probability_below(one: Setting, other: Setting, noise: Noise) -> float:
    """The probability that the true mean of one setting is lower than that of another."""
    from scipy.special import stdtr  # imported where needed: it takes a fifth of a second

    error = noise.sd * math.sqrt(1 / len(one.later) + 1 / len(other.later))
    return float(stdtr(noise.degrees_of_freedom, (other.mean - one.mean) / error))


def _probability_best(settings: Sequence[Setting], number: int, noise: Noise) -> float:
    """The probability that a setting's true mean is the lowest.

    By integrals over the true noise, whose posterior is a scaled inverse chi-squared, and over the
    setting's true mean given that noise; the others are independent of each other given both.
    """
    from scipy.special import gammaincinv, ndtr

    half = noise.degrees_of_freedom / 2
    (quantiles, share), (normal, weight) = _quadrature()
    sds = noise.sd / np.sqrt(gammaincinv(half, (quantiles + 1) / 2) / half)
    mean = settings[number].mean
    means = mean + np.outer(sds, normal) / math.sqrt(len(settings[number].later))
    below = np.ones_like(means)
    for i, other in enumerate(settings):
        if i != number and not other.diverged:
            below *= ndtr((other.mean - means) * math.sqrt(len(other.later)) / sds[:, None])
    return min(1.0, float(share / share.sum() @ below @ (weight / weight.sum())))


@functools.cache  # Constants.
def _quadrature() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Points and weights of Gauss's rules on [-1, 1] and for the normal distribution.

    Constants, so they are kept for the life of the process.
    """
    return np.polynomial.legendre.leggauss(POINTS), np.polynomial.hermite_e.hermegauss(POINTS)


def _diverges_more(settings: Sequence[Setting], choice: Setting) -> float:
    """The p-value of Fisher's exact test, one-sided, that the choice diverges no more than others.

    In whole numbers, so that 1 / 20 is 5 %: scipy.stats.hypergeom is off by a rounding error.
    """
    total, of_choice = sum(len(s.later) for s in settings), len(choice.later)
    diverged = sum(s.diverged for s in settings)
    ways = sum(
        math.comb(diverged, i) * math.comb(total - diverged, of_choice - i)
        for i in range(choice.diverged, of_choice + 1)
    )
    return ways / math.comb(total, of_choice)


def _moved(
    settings: Sequence[Setting], promoted: int, preferred: int | None, verdict: Verdict
) -> tuple[MovedValue, ...]:
    if preferred is None:
        return ()
    before, after = (settings[i].hyperparameters for i in (promoted, preferred))
    fields = [field for field in (before | after) if field != SEED]
    moved = [_moved_value(field, before.get(field), after.get(field)) for field in fields]
    if verdict != "did_not_hold":
        return tuple(moved)
    differing = sum(each.direction != "same" for each in moved)
    # That the choice diverges more often than the others together is no test against one.
    alone = differing == 1 and not settings[promoted].diverged
    evidence: Evidence = "shown" if alone else "not_attributable"
    return tuple(
        each if each.direction == "same" else dataclasses.replace(each, evidence=evidence)
        for each in moved
    )


def _moved_value(field: str, before: Any, after: Any) -> MovedValue:
    direction: Direction = "changed"
    if before == after:
        direction = "same"
    elif in_order([before, after]):
        direction = "up" if after > before else "down"
    return MovedValue(
        field=field, before=before, after=after, direction=direction, evidence="within_noise"
    )
