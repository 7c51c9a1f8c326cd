"""The search space of the next round and a first round's findings, in tables and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from budgetflow.playbook.common.reasons import Reason, Sentence
from budgetflow.playbook.common.words import first_of, in_words, words
from budgetflow.playbook.derived.first_round import (
    BY_CHANCE,
    DECAYED_TO,
    Instability,
    RateAtEdge,
    RegularizationWithoutFit,
    Separation,
)
from budgetflow.playbook.derived.narrowing import AT_EDGE, in_order
from budgetflow.playbook.derived.search_space import (
    DECAY_LENGTHS,
    SWEPT_AROUND_WINNER,
    CarriedField,
    Derivation,
    PlannedField,
)

# Left out of the keys of results: see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

BIAS = "short-horizon bias (Wu et al. 2018, arXiv:1803.02021)"


class TableRow(NamedTuple):
    """A row of the table of what carries over, in words; its fields are the columns."""

    field: str
    tag: str
    becomes: str
    reason: str


COLUMNS = TableRow("field", "likely to transfer", "what becomes of it", "reason")


def table(rows: Sequence[CarriedField]) -> list[TableRow]:
    """A row for each hyperparameter: what becomes of it, and why."""
    return [TableRow(row.field, _tag(row), _becomes(row), " ".join(_reasons(row))) for row in rows]


def plan_table(planned: Sequence[PlannedField]) -> list[TableRow]:
    """A row for each hyperparameter of a round that has not run yet."""
    return [TableRow(row.field, _tag(row), _will_become(row), _why(row)) for row in planned]


def derivation_caveats(derivation: Derivation) -> Iterator[str]:
    """A note beside the table where no rule carries the schedule over."""
    if derivation.no_schedule_because:
        yield (
            "The lengths of the winner's schedule stay as they are, in steps, since no rule "
            f"carries it over: {derivation.no_schedule_because}."
        )


def _tag(row: PlannedField) -> str:
    return words(row.tag) + (" (config)" if row.tagged_by == "config" else "")


def _will_become(row: PlannedField) -> str:
    if row.action == "pinned":
        return "pinned to the winner's value"
    if row.action == "winner_only":
        return "the winner's value only"
    if row.action == "narrowed":
        return "narrowed to the neighbourhood of the trials that compete"
    if row.overridden:
        return "searched anew"
    if row.field in DECAY_LENGTHS:
        return "swept at half, once and twice the winner's steps and share of the run"
    if row.field in SWEPT_AROUND_WINNER:
        return "swept at half, once and twice the winner's value"
    return "searched anew in all of its dimension"


def _becomes(row: CarriedField) -> str:
    if row.searched is None:
        pinned = "pinned to " if row.action == "pinned" else "the winner's "
        return f"{pinned}{in_words(row.value)}"
    if row.distribution is None:
        return f"{in_words(row.value)} alone"
    if row.distribution == "choices":
        return ", ".join(map(in_words, row.values))
    return f"{in_words(row.low)} to {in_words(row.high)}"


def _why(row: PlannedField) -> str:
    """The reason by tag or config, without any results."""
    if row.overridden:
        return "The config says so."
    whose = ", says the config" if row.tagged_by == "config" else ""
    if row.action == "pinned":
        return f"Very likely to transfer{whose or ': short runs settle early instability'}."
    if row.action == "winner_only" and row.tag == "likely":
        return f"Likely to transfer{whose}; it is not looked at again."
    if row.action == "winner_only":
        return (
            "Unlikely to transfer, but a part of the winner's schedule, of which only the base "
            "learning rate and the decay's length are swept; override it to look again."
        )
    if row.action == "narrowed":
        return f"Might transfer{whose}."
    if row.field in SWEPT_AROUND_WINNER:
        return f"Unlikely to transfer{whose}; its sweep is cheap, since trunks are shared."
    return f"Unlikely to transfer{whose}."


def _reasons(row: CarriedField) -> Iterator[str]:
    """The reason of a row, with the evidence."""
    yield _why(row)
    yield _evidence(row)
    if row.searched == "too_few":
        yield "That is too few to narrow it by: all of it is kept."
    elif row.searched == "spread" and row.low_before is not None:
        yield f"It was searched from {in_words(row.low_before)} to {in_words(row.high_before)}."
    elif row.searched == "spread":
        yield f"It was one of {', '.join(map(in_words, row.values_before))}."
    if row.at_edge:
        yield _at_edge(row)


def _evidence(row: CarriedField) -> str:
    if row.competing == 1:
        return "No other setting competes with the winner's."
    low, high = row.competing_low, row.competing_high
    if low is None:
        values = ", ".join(map(in_words, row.competing_values))
        having = f"with {values}" if values else "whose values have no order"
    elif low == high:
        having = f"all with {in_words(low)}"
    else:
        having = f"with values from {in_words(low)} to {in_words(high)}"
    return f"{row.competing} settings compete, {having}."


def _at_edge(row: CarriedField) -> str:
    before = [row.low_before, row.high_before] if row.low_before is not None else row.values_before
    after = [row.low, row.high] if row.low is not None else row.values
    tried, searched = in_order(before), in_order(after)
    goes_on = searched and (
        searched[0] < tried[0] if row.at_edge == "low" else searched[-1] > tried[-1]
    )
    assert row.at_edge is not None
    then = "and is searched beyond it" if goes_on else "and nothing beyond it is searched"
    return f"THE WINNER IS AT THE {row.at_edge.upper()} END of what was tried, {then}."


def _numbers(trials: Sequence[int]) -> str:
    return f" ({first_of(trials)})" if trials else ""


def instability_sentences(instability: Instability) -> Iterator[str]:
    """The stability of early training, and the hyperparameters that settle it."""
    trials, diverged, spiked = instability.trials, instability.diverged, instability.spiked
    if not diverged and not spiked:
        yield f"None of {trials} trials diverged or had a loss spike at an evaluation."
        return
    yield (
        f"Of {trials} trials, {len(diverged)} diverged{_numbers(diverged)} and {len(spiked)} had a "
        f"loss spike at an evaluation{_numbers(spiked)}. Warmup and initialisation settle early "
        "instability, and short runs are enough for that."
    )
    yield from map(_separation, instability.separations)
    if not instability.settles:
        yield (
            "The search space varies neither: add schedule.warmup_steps to it, or lower the base "
            "learning rate."
        )
    elif not instability.separations:
        yield (
            f"No value of {', '.join(instability.settles)} parts unstable from stable trials in a "
            f"way that chance would not in {BY_CHANCE:.0%} of cases."
        )


def _separation(separation: Separation) -> str:
    field = separation.field
    chance = f"chance parts them so in {separation.by_chance:.2g} of cases"
    if separation.unstable == "values":
        values = ", ".join(map(in_words, separation.unstable_values))
        return f"All unstable trials have {field} {values}, and no stable one has ({chance})."
    below = separation.unstable == "below"
    less, more = ("or less", "or more") if below else ("or more", "or less")
    return (
        f"All unstable trials have {field} {in_words(separation.last_unstable)} {less}, all stable "
        f"ones {in_words(separation.first_stable)} {more} ({chance})."
    )


def regularization_sentence(finding: RegularizationWithoutFit) -> str:
    """The finding that regularization is tuned where it is unlikely to help."""
    evidence = (
        "No trial of the round fitted it, though without regularization or with more steps one may"
    )
    if finding.shown_by == "regime":
        evidence = "The workload is compute-bound"
    lowest = ""
    if finding.fitted_train_loss is not None and finding.lowest_train_loss is not None:
        lowest = (
            f" (the lowest training loss is {finding.lowest_train_loss:.4g}; "
            f"{finding.fitted_train_loss:.4g} counts as fitted)"
        )
    elif finding.lowest_train_error_rate is not None:
        lowest = f" (the lowest training error rate is {finding.lowest_train_error_rate:.4g})"
    return (
        f"The search space tunes {', '.join(finding.fields)}: regularization is unlikely to help "
        f"where the training set cannot be fitted perfectly. {evidence}{lowest}."
    )


def rate_sentences(rate: RateAtEdge) -> Iterator[Sentence]:
    """The kind of runs that chose the base learning rate, and whether it lies at an edge."""
    share = f"{DECAYED_TO:.0%} of the base learning rate or less"
    yield {
        "complete": (
            f"All trials were complete runs (decayed to {share}): short complete runs may pick "
            "other learning rates than long ones do."
        ),
        "undecayed": (
            f"No trial was decayed to {share}: short, undecayed comparisons can flatter high "
            "learning rates."
        ),
        "mixed": (
            f"Some trials were decayed to {share} and some were not, so that their ranking mixes "
            "decays with learning rates."
        ),
    }[rate.runs]
    if rate.edge is None:
        return
    end = "lowest" if rate.edge == "low" else "highest"
    inner = {
        0: "No trial away from that end competes.",
        1: "A trial away from that end competes, too.",
    }.get(rate.inner_competing, f"{rate.inner_competing} trials away from that end compete, too.")
    text = (
        f"THE BEST BASE LEARNING RATE, {rate.best:.4g}, IS AT THE {rate.edge.upper()} END of "
        f"what was tried ({rate.lowest:.4g} to {rate.highest:.4g}; within {AT_EDGE:.0%} of it, "
        f"in decades). {inner} Try beyond the {end}."
    )
    yield Reason(text, loud=True)
    if rate.edge == "low":
        yield f"A long run may want a higher one: {BIAS} favours small learning rates."
    elif rate.runs != "complete":
        yield "A long run, or one with a decay, may want a lower one."
