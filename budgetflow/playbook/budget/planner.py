"""The plan of rounds for a budget and a production run: their lengths and numbers of trials.

The playbook, where training is compute-bound: round 1, many short runs to find good hyperparameters
of model and optimizer; round 2, very few long runs at the good points, to get the final model. With
more rounds than these two, lengths grow geometrically up to that of the production run.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction

from budgetflow.playbook.budget.budget import exact
from budgetflow.playbook.common.words import counted

# Conclusions of a first round below this share of production are unlikely to carry over.
SHORT_FIRST_ROUND = Fraction(1, 10)


class InfeasibleBudgetError(ValueError):
    """The budget does not pay for the fewest trials of every round.

    Attributes:
        smallest_feasible_steps: the smallest budget that does; one step less does not.
    """

    def __init__(self, budget_steps: int, smallest_feasible_steps: int) -> None:
        super().__init__(
            f"a budget of {budget_steps} steps is too small; the smallest that is enough: "
            f"{smallest_feasible_steps}"
        )
        self.smallest_feasible_steps = smallest_feasible_steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class BudgetRequest:
    """The request for a plan.

    Attributes:
        production_steps: the length of the production run, and so of the last round's trials.
        budget_steps: the most that all trials of all rounds may cost together.
        num_rounds: the playbook's two, or another number.
        first_round_fraction: the length of the first round, as a fraction of production.
        last_round_share: the share of the budget that is kept for the last round; the others
            divide the rest equally.
        min_trials: the fewest trials of a round before the last.
        min_last_trials: the same of the last round: the winner, and a re-run to check it by.
        max_trials: the most trials of any round; None for no limit.
        constant_fraction: the share of a run before its decay, where a longer run can continue it;
            None if runs share nothing.
    """

    production_steps: int
    budget_steps: int
    num_rounds: int = 2
    first_round_fraction: float = 0.1
    last_round_share: float = 0.5
    min_trials: int = 4
    min_last_trials: int = 2
    max_trials: int | None = None
    constant_fraction: float | None = None

    def __post_init__(self) -> None:
        """Checks that it can be planned, whatever the budget.

        Raises:
            ValueError: it cannot.
        """
        for name in ("first_round_fraction", "last_round_share"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: should be between 0 and 1")
        room = 1 + self.production_steps - self._first_length
        if self.num_rounds > 1 and self.num_rounds > room:
            raise ValueError(
                f"num_rounds = {self.num_rounds}: from {self._first_length} to "
                f"{self.production_steps} steps there are lengths for no more "
                f"than {counted(room, 'round')}"
            )
        least = max(self.least_trials)
        if self.max_trials is not None and self.max_trials < least:
            raise ValueError(
                f"max_trials = {self.max_trials}: a round takes {least} trials or more; the "
                f"nearest that fits: {least}"
            )

    @property
    def _first_length(self) -> int:
        """Rounded up, so that the fraction is reached."""
        return math.ceil(exact(self.first_round_fraction) * self.production_steps)

    @property
    def lengths(self) -> list[int]:
        """The length of each round's trials: geometric, but at least a step more each time."""
        first, last, growths = self._first_length, self.production_steps, self.num_rounds - 1
        lengths: list[int] = []
        for number in range(growths):
            geometric = round(first * (last / first) ** (number / growths))
            least = lengths[-1] + 1 if lengths else first
            # Room for a step more in each of the rounds to come.
            lengths.append(min(max(geometric, least), last - growths + number))
        return [*lengths, last]

    @property
    def least_trials(self) -> list[int]:
        """The fewest trials of each round."""
        return [self.min_trials] * (self.num_rounds - 1) + [self.min_last_trials]

    @property
    def shares(self) -> list[Fraction]:
        """The share of the budget of each round."""
        others = self.num_rounds - 1
        if not others:
            return [Fraction(1)]
        last = exact(self.last_round_share)
        return [(1 - last) / others] * others + [last]


@dataclasses.dataclass(frozen=True)
class PlannedRound:
    """A round of a plan.

    Attributes:
        round: its number, from 1.
        length_steps: of each of its trials.
        trials: how many.
        steps: their cost, each trained from scratch.
    """

    round: int
    length_steps: int
    trials: int
    steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundsPlan:
    """A budget divided among rounds.

    Attributes:
        budget_steps: the budget.
        rounds: the first one first.
        total_steps: the cost of all of them, every trial trained from scratch.
        left_over_steps: the rest of the budget.
        reused_steps_expected: how many of ``total_steps`` need not be trained, at least; an
            estimate, see :func:`plan_rounds`.
        first_round_is_short: whether it is shorter than a tenth of the production run.
    """

    budget_steps: int
    rounds: tuple[PlannedRound, ...]
    total_steps: int
    left_over_steps: int
    reused_steps_expected: int
    first_round_is_short: bool


def plan_rounds(request: BudgetRequest) -> RoundsPlan:
    """Divides a budget among rounds. It is never exceeded, even if nothing is reused.

    Each round buys the trials that its share pays for, but at least its fewest and at most
    ``max_trials``. Where that makes some rounds cost more or less than their shares, the others'
    shrink or grow in proportion. What is left then buys more trials of the earliest rounds: less
    than one trial of the first round stays unspent, unless ``max_trials`` binds there.

    So without ``max_trials`` a larger budget never has fewer trials in any round after the first.
    The first one loses some when what was left to it comes to pay for a trial of a longer round.
    No plan could avoid that: if every step of a budget were spent and none ever taken back, one
    step more would never buy a trial of ten.

    The steps expected to be reused are those of the last round's fewest trials: the winner and its
    re-runs were trained before, in the round before it, and go on from where that run's decay began
    (``constant_fraction`` of its length, a warmup not counted). That holds for
    schedules whose constant period grows with the run, such as with a linear decay.

    Raises:
        InfeasibleBudgetError: the budget does not pay for the fewest trials of every round.
    """
    lengths, least, budget = request.lengths, request.least_trials, request.budget_steps
    smallest = _cost(least, lengths)
    if budget < smallest:
        raise InfeasibleBudgetError(budget, smallest)
    trials = _divided(request, lengths, least)
    left = budget - _cost(trials, lengths)
    for number, length in enumerate(lengths):
        more = left // length
        if request.max_trials is not None:
            more = min(more, request.max_trials - trials[number])
        trials[number] += more
        left -= more * length
    reused = 0
    if request.constant_fraction is not None and request.num_rounds > 1:
        before_decay = math.floor(exact(request.constant_fraction) * lengths[-2])
        reused = request.min_last_trials * before_decay
    return RoundsPlan(
        budget_steps=budget,
        rounds=tuple(
            PlannedRound(number, length, count, count * length)
            for number, (length, count) in enumerate(zip(lengths, trials, strict=True), start=1)
        ),
        total_steps=budget - left,
        left_over_steps=left,
        reused_steps_expected=reused,
        first_round_is_short=lengths[0] < SHORT_FIRST_ROUND * request.production_steps,
    )


def plan_if_feasible(request: BudgetRequest, budget_steps: int) -> RoundsPlan | None:
    """The plan of a request with another budget; None where that is too small for any."""
    try:
        return plan_rounds(dataclasses.replace(request, budget_steps=budget_steps))
    except InfeasibleBudgetError:
        return None


def _divided(request: BudgetRequest, lengths: Sequence[int], least: Sequence[int]) -> list[int]:
    """The trials that each round's share pays for, out of the largest sum that is affordable.

    That sum is larger than the budget where ``max_trials`` keeps rounds from spending their shares,
    and smaller where their fewest trials cost more. As it grows no round loses a trial (a divisor
    method of apportionment, like D'Hondt's), so neither does any as the budget grows.
    """
    shares, most = request.shares, request.max_trials

    def trials(shared: int) -> list[int]:
        bought = (share * shared // length for share, length in zip(shares, lengths, strict=True))
        counts = [max(fewest, int(n)) for fewest, n in zip(least, bought, strict=True)]
        return counts if most is None else [min(count, most) for count in counts]

    # With this much, every round that has no limit is over the budget by itself.
    enough = math.ceil((request.budget_steps + lengths[-1]) / min(shares))
    over = bisect.bisect_right(
        range(enough + 1), request.budget_steps, key=lambda shared: _cost(trials(shared), lengths)
    )
    return trials(over - 1)


def _cost(trials: Sequence[int], lengths: Sequence[int]) -> int:
    return sum(count * length for count, length in zip(trials, lengths, strict=True))
