"""Whether an earlier round's choice held, in sentences: facts in, words out."""

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


def held_reasons(found: ChoiceVerdict, selection: Selection) -> Iterator[str]:
    """Whether the choice held, with the counts behind it."""
    if found.verdict == "held":
        yield (
            f"The earlier round's choice held: of {_settings(found)} it is still the best with a "
            f"probability of {_percent(found.probability_still_best)}."
        )
    elif found.verdict == "did_not_hold":
        yield f"The earlier round's choice did not hold: {_against(found)}."
    else:
        yield _cannot_tell(found)
    if found.noise_sd is not None and not found.promoted_diverged:
        sure = (
            ""
            if found.verdict == "cannot_tell"
            else (f"; with that, such a verdict is wrong in at most {found.alpha:.3g} of studies")
        )
        degrees = "degree" if found.noise_degrees_of_freedom == 1 else "degrees"
        yield (
            f"The noise between seeds is taken to be {found.noise_sd:.3g} in {selection.words} "
            f"({found.noise_degrees_of_freedom:.4g} {degrees} of freedom), the same for all "
            f"settings{sure}."
        )
    if found.others_diverged:
        count = "counts" if found.others_diverged == 1 else "count"
        yield (
            f"{counted(found.others_diverged, 'other setting')}, of which a seed diverged in the "
            f"later round, {count} as worse."
        )
    if found.rank_correlation:
        yield _order(found.rank_correlation, found.settings)
    yield from _moves(found)


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


def held_title(found: ChoiceVerdict) -> str:
    """What a table of what held is about, with its verdict."""
    return f"What held of the round before: {_VERDICTS[found.verdict]}"


def held_rows(found: ChoiceVerdict) -> list[tuple[str, str, str, str]]:
    """Each hyperparameter in both rounds, a row as :data:`COLUMNS` name its cells."""
    return [
        (
            moved.field,
            in_words(moved.before),
            in_words(moved.after),
            "it is the same" if moved.direction == "same" else _EVIDENCE[moved.evidence],
        )
        for moved in found.moved
    ]


def held_warning(found: ChoiceVerdict) -> Reason | None:
    """What did not hold and what to tune again; None unless the verdict is that it did not."""
    if found.verdict != "did_not_hold":
        return None
    retune = "No hyperparameter differs between the two."
    if found.retune:
        moves = ", ".join(f"{m.field} ({_move(m)})" for m in found.moved if m.direction != "same")
        retune = f"Tune again at the longer length: {moves}."
    text = f"THE EARLIER ROUND'S CHOICE DID NOT HOLD: {_against(found)}. {retune}"
    return Reason(text, loud=True)


def _against(found: ChoiceVerdict) -> str:
    """What speaks against the choice."""
    if found.promoted_diverged:
        return (
            f"it diverged in {found.promoted_diverged} of {found.promoted_seeds} seeds of the "
            f"later round, more often than the other settings do (Fisher's exact test at "
            f"{found.alpha:.3g})"
        )
    return (
        f"of {_settings(found)}, setting {found.preferred} is better with a probability of "
        f"{_percent(found.probability_preferred_is_better)}"
    )


def _cannot_tell(found: ChoiceVerdict) -> str:
    unknown = f"Whether the earlier round's choice held cannot be told from {_settings(found)}"
    if found.preferred is None:
        return f"{unknown}: each has a seed that diverged in the later round."
    if found.promoted_diverged:
        return (
            f"{unknown}: it diverged in {found.promoted_diverged} of "
            f"{counted(found.promoted_seeds, 'seed')} of the later round, which may be chance: "
            f"{_more_seeds(found)}."
        )
    if found.probability_still_best is None:
        why = "" if found.most_seeds == 1 else ", whose seeds do not show their noise"
        return f"{unknown}{why}: {_more_seeds(found)}."
    return (
        f"{unknown}: it is still the best with a probability of "
        f"{_percent(found.probability_still_best)}, and nothing else is certain enough: "
        f"{_more_seeds(found)}."
    )


def _more_seeds(found: ChoiceVerdict) -> str:
    seeds = MIN_SEEDS if found.fewest_seeds < MIN_SEEDS else 2 * found.fewest_seeds
    return f"run config.search.seeds = {seeds}"


def _settings(found: ChoiceVerdict) -> str:
    """The counts, as in "4 settings with one seed each"."""
    if found.fewest_seeds != found.most_seeds:
        return f"{found.settings} settings with {found.fewest_seeds} to {found.most_seeds} seeds"
    seeds = "one seed" if found.most_seeds == 1 else f"{found.most_seeds} seeds"
    return f"{found.settings} settings with {seeds} each"


def _order(found: RankCorrelation, settings: int) -> str:
    """How well the order of the settings held."""
    agreement = f"The order of {settings} settings in both rounds: Kendall's tau-b {found.tau:.2f}"
    if found.low is None or found.high is None:
        return f"{agreement}, from too few to say anything (an interval takes {MIN_SETTINGS})."
    interval = f"{agreement} ({CONFIDENCE:.0%} interval {found.low:.2f} to {found.high:.2f})"
    if found.low > 0:
        return f"{interval}: what is better in the earlier round tends to be better in the later."
    if found.high < 0:
        return f"{interval}: what is better in the earlier round tends to be worse in the later."
    return f"{interval}, which does not exclude that the earlier order says nothing of the later."


def _moves(found: ChoiceVerdict) -> Iterator[str]:
    """Which preferred values moved, and whether that is more than noise."""
    moves = [m for m in found.moved if m.direction != "same"]
    if not moves:
        return
    listed = ", ".join(f"{m.field} {_move(m)}" for m in moves)
    if found.verdict != "did_not_hold":
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
