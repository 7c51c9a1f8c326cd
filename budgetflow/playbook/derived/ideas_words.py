"""The ledger of ideas, in rows and in sentences: facts in, words out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.common.words import counted, words
from budgetflow.playbook.derived.ideas import MIN_SEEDS, IdeaResult

# Left out of the keys of results: see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

LEDGER_COLUMNS = ("idea", "difference", "relative", "interval", "p (Holm)", "seeds", "status")
UNKNOWN = "-"


def ledger_rows(results: Sequence[IdeaResult], selection: Selection) -> list[tuple[str, ...]]:
    """A row for each idea, in :data:`LEDGER_COLUMNS`, in units of the metric.

    The difference is the idea minus the baseline, with the metric's own sign: of an accuracy,
    positive is better. The p-value is the one of the direction that the difference has.
    """
    return [
        (
            result.name,
            _signed(result.difference, selection),
            _signed(result.relative, selection, "+.1%"),
            _interval(result, selection),
            _p(result),
            str(result.seeds),
            words(result.status),
        )
        for result in results
    ]


def ideas_reasons(results: Sequence[IdeaResult], selection: Selection) -> Iterator[str]:
    """What became of each idea, and how it was tested."""
    for result in results:
        yield _sentence(result, selection)
    if tested := [result for result in results if result.p_better is not None]:
        yield (
            "Ideas are compared with the baseline seed by seed, by one-sided paired t-tests with "
            f"Holm's correction for the {len(results)} that entered: the probability that any is "
            f"promoted which is no better is at most {tested[0].alpha:.3g}."
        )


def _sentence(result: IdeaResult, selection: Selection) -> str:
    idea = f"idea {result.name!r}"
    if result.status == "diverged":
        return f"The {idea} diverged in {counted(result.diverged, 'seed')}: it is not promoted."
    if result.status == "cannot_tell":
        if result.seeds < MIN_SEEDS:
            return (
                f"Whether the {idea} is better cannot be told from "
                f"{counted(result.seeds, 'seed')} that it and the baseline both have; it takes "
                f"{MIN_SEEDS}: run config.search.seeds = {MIN_SEEDS}. It is not promoted."
            )
        return (
            f"Whether the {idea} is better cannot be told: its difference from the baseline is "
            f"the same in all {result.seeds} seeds, so their noise is unknown. It is not promoted."
        )
    if result.difference == 0:
        return f"The {idea} is as good as the baseline on average: it is not promoted."
    difference = _difference(result, selection)
    if result.status == "promoted":
        return f"The {idea} is better than the baseline by {difference}: it is promoted."
    if result.status == "worse":
        return f"The {idea} is worse than the baseline by {difference}: it is not promoted."
    return (
        f"The {idea} is not better than the baseline by more than the noise between seeds: the "
        f"means differ by {difference}. It is not promoted."
    )


def _difference(result: IdeaResult, selection: Selection) -> str:
    """How far the means are apart, with the evidence."""
    assert result.difference is not None
    relative = "" if result.relative is None else f" ({abs(result.relative):.1%})"
    p = _p(result)
    return (
        f"{abs(result.difference):.3g}{relative} in {selection.words} "
        f"({1 - 2 * result.alpha:.0%} interval of idea minus baseline "
        f"{_interval(result, selection)}, p {p if p.startswith('<') else f'= {p}'}, "
        f"{result.seeds} seeds)"
    )


def _interval(result: IdeaResult, selection: Selection) -> str:
    if result.low is None or result.high is None:
        return UNKNOWN
    ends = (result.low, result.high)
    low, high = reversed(ends) if selection.higher_is_better else ends
    return f"{_signed(low, selection)} to {_signed(high, selection)}"


def _p(result: IdeaResult) -> str:
    """The adjusted p-value of the direction that the difference has."""
    if result.p_better is None or result.p_worse is None:
        return UNKNOWN
    p = min(result.p_better, result.p_worse)
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _signed(difference: float | None, selection: Selection, digits: str = "+.3g") -> str:
    """A difference of costs as one of the metric, never -0."""
    if difference is None:
        return UNKNOWN
    return format((-difference if selection.higher_is_better else difference) + 0.0, digits)
