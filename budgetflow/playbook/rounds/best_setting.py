"""How much the best trial's figure can bear: what it counts, what ties with it, which edges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from budgetflow.config.search_space import Dimension
from budgetflow.playbook.common.measurement import Selection, TrialRecord
from budgetflow.playbook.common.reasons import Reason
from budgetflow.playbook.common.words import in_words
from budgetflow.playbook.derived.narrowing import AT_EDGE, Edge, edge

CONFIDENCE = 0.95


def binomial_interval(count: int, examples: int) -> tuple[float, float]:
    """The exact 95 % interval of a rate of which ``count`` of ``examples`` were seen.

    Clopper and Pearson 1934, "The use of confidence or fiducial limits".
    """
    from scipy.special import betaincinv  # imported where needed: it takes a fifth of a second

    tail = (1 - CONFIDENCE) / 2
    low = betaincinv(count, examples - count + 1, tail) if count else 0.0
    high = betaincinv(count + 1, examples - count, 1 - tail) if count < examples else 1.0
    return float(low), float(high)


def winner_sentences(trials: Sequence[TrialRecord], selection: Selection) -> Iterator[str]:
    """What the best trial's figure counts, and which trials and steps do as well.

    Args:
        trials: those of a study.
        selection: what selects steps and trials.
    """
    ranked = selection.ranked(trials)
    if not ranked:
        return
    best, row = ranked[0]
    cost = selection.cost(row)
    if (count := selection.count(row[selection.key])) is not None:
        assert selection.examples is not None
        low, high = binomial_interval(count, selection.examples)
        what = "right" if selection.higher_is_better else "wrong"
        yield (
            f"That is {count} of {selection.examples} validation examples {what} ({CONFIDENCE:.0%} "
            f"interval of the rate: {low:.2%} to {high:.2%}); the best of many trials and steps is "
            "likely to be flattered."
        )
    others = [trial.trial for trial, other in ranked[1:] if selection.cost(other) == cost]
    steps = sum(selection.cost(other) == cost for other in best.rows)
    if others:
        numbers = ", ".join(map(str, others[:8])) + (", …" if len(others) > 8 else "")
        which = f"Trial {numbers} does" if len(others) == 1 else f"Trials {numbers} do"
        yield f"{which} as well; of equals, the one with the lowest number is taken."
    if steps > 1:
        yield f"Trial {best.trial} is as good at {steps} of its evaluations: the first is taken."


def edges(space: Sequence[Dimension], hyperparameters: dict[str, Any]) -> dict[str, Edge]:
    """The hyperparameters of a trial that lie at an end of what was searched, and at which.

    Args:
        space: the search space.
        hyperparameters: config field to value.
    """
    ends = {d.name: edge(d, hyperparameters[d.name]) for d in space if d.name in hyperparameters}
    return {name: end for name, end in ends.items() if end is not None}


def edge_sentences(
    space: Sequence[Dimension], hyperparameters: dict[str, Any], at: dict[str, Edge]
) -> Iterator[Reason]:
    """What it means that the best trial lies at an edge of what was searched."""
    for dimension in space:
        if dimension.name not in at:
            continue
        is_range = dimension.distribution != "choices"
        values = [dimension.low, dimension.high] if is_range else dimension.values
        numbers = sorted(float(value) for value in values if isinstance(value, int | float))
        within = f"; within {AT_EDGE:.0%} of it" if is_range else ""
        text = (
            f"THE BEST TRIAL'S {dimension.name}, {in_words(hyperparameters[dimension.name])}, IS "
            f"AT THE {at[dimension.name].upper()} END of what was searched "
            f"({in_words(numbers[0])} to {in_words(numbers[-1])}{within}): better values may lie "
            "beyond it."
        )
        yield Reason(text, loud=True)
