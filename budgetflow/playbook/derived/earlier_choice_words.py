"""The verdict on an earlier round's choice, in sentences and rows."""

from __future__ import annotations

from collections.abc import Iterator

from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.common.rank_correlation import CONFIDENCE, MIN_SETTINGS, RankCorrelation
from budgetflow.playbook.common.reasons import Reason
from budgetflow.playbook.common.words import counted, in_words
from budgetflow.playbook.derived.earlier_choice import ChoiceVerdict, MovedValue

# Left out of the keys of results: see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

MIN_SEEDS = 3


def held_reasons(choice: ChoiceVerdict, selection: Selection) -> Iterator[str]:
    """The verdict on the choice, with the counts behind it."""
    if choice.verdict == "held":
        yield (
            f"The earlier round's choice held: of {_settings(choice)} it is still the best with a "
            f"probability of {_percent(choice.probability_still_best)}."
        )
    elif choice.verdict == "did_not_hold":
        yield f"The earlier round's choice did not hold: {_against(choice)}."
    else:
        yield _cannot_tell(choice)
    if choice.noise_sd is not None and not choice.promoted_diverged:
        sure = ""
        if choice.verdict != "cannot_tell":
            sure = f"; with that, such a verdict is wrong in at most {choice.alpha:.3g} of studies"
        degrees = "degree" if choice.noise_degrees_of_freedom == 1 else "degrees"
        yield (
            f"The noise between seeds is taken to be {choice.noise_sd:.3g} in {selection.words} "
            f"({choice.noise_degrees_of_freedom:.4g} {degrees} of freedom), the same for all "
            f"settings{sure}."
        )
    if choice.others_diverged:
        count = "counts" if choice.others_diverged == 1 else "count"
        yield (
            f"{counted(choice.others_diverged, 'other setting')}, of which a seed diverged in the "
            f"later round, {count} as worse."
        )
    if choice.rank_correlation:
        yield _order(choice.rank_correlation, choice.settings)
    yield from _moves(choice)


COLUMNS = ("hyperparameter", "earlier round's choice", "later round's lowest mean", "which says")
_VERDICTS = {
    "held": "the choice held",
    "did_not_hold": "the choice did not hold",
    "cannot_tell": "cannot be told",
}
_EVIDENCE = {
    "shown": "it moved: tune it again",
    "not_attributable": "it, or another that moved, made the difference",
    "within_noise": "nothing beyond noise",
}


def held_title(choice: ChoiceVerdict) -> str:
    """The title of the table of both rounds' values, with the verdict."""
    return f"What held of the round before: {_VERDICTS[choice.verdict]}"


def held_rows(choice: ChoiceVerdict) -> list[tuple[str, str, str, str]]:
    """Each hyperparameter in both rounds, a row as :data:`COLUMNS` name its cells."""
    return [
        (
            moved.field,
            in_words(moved.before),
            in_words(moved.after),
            "it is the same" if moved.direction == "same" else _EVIDENCE[moved.evidence],
        )
        for moved in choice.moved
    ]


def held_warning(choice: ChoiceVerdict) -> Reason | None:
    """The fields to tune again where the choice did not hold; None where it is not shown so."""
    if choice.verdict != "did_not_hold":
        return None
    retune = "No hyperparameter differs between the two."
    if choice.retune:
        moves = ", ".join(f"{m.field} ({_move(m)})" for m in choice.moved if m.direction != "same")
        retune = f"Tune again at the longer length: {moves}."
    text = f"THE EARLIER ROUND'S CHOICE DID NOT HOLD: {_against(choice)}. {retune}"
    return Reason(text, loud=True)


def _against(choice: ChoiceVerdict) -> str:
    """The evidence against the choice."""
    if choice.promoted_diverged:
        return (
            f"it diverged in {choice.promoted_diverged} of {choice.promoted_seeds} seeds of the "
            f"later round, more often than the other settings do (Fisher's exact test at "
            f"{choice.alpha:.3g})"
        )
    return (
        f"of {_settings(choice)}, setting {choice.preferred} is better with a probability of "
        f"{_percent(choice.probability_preferred_is_better)}"
    )


def _cannot_tell(choice: ChoiceVerdict) -> str:
    unknown = f"Whether the earlier round's choice held cannot be told from {_settings(choice)}"
    if choice.preferred is None:
        return f"{unknown}: each has a seed that diverged in the later round."
    if choice.promoted_diverged:
        why = (
            f": it diverged in {choice.promoted_diverged} of "
            f"{counted(choice.promoted_seeds, 'seed')} of the later round, which may be chance"
        )
    elif choice.probability_still_best is None:
        why = "" if choice.most_seeds == 1 else ", whose seeds do not show their noise"
    else:
        why = (
            f": it is still the best with a probability of "
            f"{_percent(choice.probability_still_best)}, and nothing else is certain enough"
        )
    seeds = MIN_SEEDS if choice.fewest_seeds < MIN_SEEDS else 2 * choice.fewest_seeds
    return f"{unknown}{why}: run config.search.seeds = {seeds}."


def _settings(choice: ChoiceVerdict) -> str:
    """The counts, as in "4 settings with one seed each"."""
    if choice.fewest_seeds != choice.most_seeds:
        return f"{choice.settings} settings with {choice.fewest_seeds} to {choice.most_seeds} seeds"
    seeds = "one seed" if choice.most_seeds == 1 else f"{choice.most_seeds} seeds"
    return f"{choice.settings} settings with {seeds} each"


def _order(correlation: RankCorrelation, settings: int) -> str:
    """How well the order of the settings held."""
    tau, low, high = correlation.tau, correlation.low, correlation.high
    agreement = f"The order of {settings} settings in both rounds: Kendall's tau-b {tau:.2f}"
    if low is None or high is None:
        return f"{agreement}, from too few to say anything (an interval takes {MIN_SETTINGS})."
    interval = f"{agreement} ({CONFIDENCE:.0%} interval {low:.2f} to {high:.2f})"
    if low > 0:
        return f"{interval}: what is better in the earlier round tends to be better in the later."
    if high < 0:
        return f"{interval}: what is better in the earlier round tends to be worse in the later."
    return f"{interval}, which does not exclude that the earlier order says nothing of the later."


def _moves(choice: ChoiceVerdict) -> Iterator[str]:
    """The preferred values that moved, and whether that is more than noise."""
    moves = [m for m in choice.moved if m.direction != "same"]
    if not moves:
        return
    listed = ", ".join(f"{m.field} {_move(m)}" for m in moves)
    if choice.verdict != "did_not_hold":
        yield (
            f"The lowest mean of the later round has {listed}; that is not shown to be more than "
            "noise, so it is no sign of a move."
        )
    elif moves[0].evidence == "shown":
        yield f"What moved is {listed}: nothing else differs between the two settings."
    else:
        yield (
            f"The setting that the later round prefers has {listed}; which hyperparameter made the "
            "difference cannot be told from these runs."
        )


def _move(moved: MovedValue) -> str:
    """A move in words, as in "up from 0.9 to 0.95"."""
    before, after = in_words(moved.before), in_words(moved.after)
    return f"{moved.direction} from {before} to {after}"


def _percent(probability: float | None) -> str:
    """A probability, never rounded to certainty."""
    assert probability is not None
    if probability > 0.999:
        return "over 99.9%"
    return "under 0.1%" if probability < 0.001 else f"{probability:.1%}"
