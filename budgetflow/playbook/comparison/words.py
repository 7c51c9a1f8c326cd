"""The sentences of a comparison's outcome, and of studies that depart from a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from budgetflow.playbook.comparison.direction import Change, Departure, Varied
from budgetflow.playbook.comparison.gradient_noise import NoiseScale
from budgetflow.playbook.comparison.outcome import MIN_SEEDS, ComparisonOutcome, SeedSteps, Side

# Left out of the keys of results: see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

_MEASURE = "config.kind = 'comparison' measures it"
_SIDES = ("without the change", "with the change")
_EXPECTED = {
    "more": "more steps",
    "fewer": "fewer steps",
    "either": "either",
    "none": "no difference",
}


def comparison_reasons(outcome: ComparisonOutcome) -> Iterator[str]:
    """The reasons of an outcome, but for those of its noise scales."""
    seeds = len(outcome.unchanged.seeds)
    yield (
        f"{changes_in_words(outcome.changes)}: both sides were trained to {_target(outcome)}, each "
        "at the best of its own constant learning rates, the first seed's over the whole grid "
        "and the others' around its best."
    )
    if outcome.steps_factor is not None:
        yield (
            f"The change takes {outcome.steps_factor:.3g} times the steps (geometric mean over "
            f"{seeds} seeds; {_interval(outcome.steps_factor_low, outcome.steps_factor_high)} by "
            f"Student's t): {_listed(outcome.changed)} instead of {_listed(outcome.unchanged)}."
        )
        yield _direction(outcome)
        yield (
            "For a study with the change that takes its length from one without it, this measures "
            f"config.max_train_steps_factor = {outcome.steps_factor:.2g}; "
            f"{outcome.steps_factor_high:.2g}, the upper end of the interval, errs on the longer "
            "side."
        )
        return
    sides = (outcome.unchanged, outcome.changed)
    for where, side, other in zip(_SIDES, sides, sides[::-1], strict=True):
        for one in side.seeds:
            if one.steps is None:
                yield _no_answer(outcome, where, one, other)
    if seeds < MIN_SEEDS and None not in [one.steps for side in sides for one in side.seeds]:
        yield (
            f"The factor cannot be told: {seeds} seed{'s say' if seeds > 1 else ' says'} nothing "
            f"of the spread between seeds. The ratio of steps was {_ratios(outcome)}; set "
            f"config.comparison.seeds = {MIN_SEEDS} or more."
        )


def comparison_headline(outcome: ComparisonOutcome) -> str:
    """A comparison in one sentence: its factor, or that there is none."""
    if outcome.steps_factor is None:
        return f"{changes_in_words(outcome.changes)}: the factor in steps cannot be told."
    return (
        f"{changes_in_words(outcome.changes)} takes {outcome.steps_factor:.3g} times the steps "
        f"({_interval(outcome.steps_factor_low, outcome.steps_factor_high)}) to "
        f"{_target(outcome)}."
    )


def noise_reasons(outcome: ComparisonOutcome, batch_sizes: tuple[int, int]) -> Iterator[str]:
    """What the noise scales of an outcome say.

    Args:
        outcome: one with noise scales.
        batch_sizes: without and with the change.
    """
    scales = (outcome.unchanged.noise_scale, outcome.changed.noise_scale)
    parts = [
        f"{_noise(scale)} {where} (batches of {size})"
        for scale, where, size in zip(scales, _SIDES, batch_sizes, strict=True)
        if scale is not None
    ]
    points = sum(len(scale.points) for scale in scales if scale is not None)
    yield (
        f"The simple gradient-noise scale is {' and '.join(parts)}, measured at {points} points of "
        f"the fastest trials, which were trained again for it ({outcome.steps_rerun} steps)."
    )
    predicted = outcome.predicted_steps_factor
    if predicted is None:
        yield "So the noise scale predicts no factor."
        return
    low, high = outcome.predicted_steps_factor_low, outcome.predicted_steps_factor_high
    yield (
        f"By steps = S_min (1 + noise scale / batch) it predicts a factor of {predicted:.3g} "
        f"({_interval(low, high)} from the measurement of the noise alone). That is a prediction, "
        f"which takes S_min to be the same on both sides{_beside_measured(outcome, predicted)}."
    )


def changes_in_words(changes: Iterable[Change]) -> str:
    """What differs, like "data.batch_size = 32 instead of 128"."""
    return ", ".join(map(_in_words, changes))


def departures(rows: Sequence[Departure], found_by: str, factor: float) -> Iterator[str]:
    """What a study that takes its length from a sweep should know.

    Args:
        rows: how its config departs from the one that the sweep trained.
        found_by: the sweep's name.
        factor: ``config.max_train_steps_factor``, by which the answer is multiplied.
    """
    more, fewer, either = (
        [row for row in rows if row.change.expected == way] for way in ("more", "fewer", "either")
    )
    if more:
        times = f"config.max_train_steps_factor = {factor:g}"
        if factor > 1:
            stands = f"{times} stands for that, unmeasured ({_MEASURE})"
        else:
            stands = f"{times} makes no allowance for that; how much is unmeasured ({_MEASURE})"
        yield (
            f"The answer of {found_by} was found on another configuration. Here "
            f"{_joined(more)} {'brings' if len(more) == 1 else 'bring'} more gradient noise or "
            f"regularization, so more steps are needed: {stands}."
        )
    if fewer:
        yield (
            f"config.{_joined(fewer)} {'makes' if len(fewer) == 1 else 'make'} gradients less "
            f"noisy than in {found_by}, so fewer steps may do; the longer run is the safe side."
        )
    if either:
        yield (
            f"config.{_joined(either)} can push the number of steps either way from the answer "
            f"of {found_by}: {'; '.join(dict.fromkeys(row.reason for row in either))}."
        )


def _joined(rows: Sequence[Departure]) -> str:
    """The changes of some fields, as the subject of a sentence."""
    *others, last = (_in_words(row.change) for row in rows)
    return f"{', '.join(others)} and {last}" if others else last


def _in_words(one: Change) -> str:
    return f"{one.field} = {_shown(one.after)} instead of {_shown(one.before)}"


def _listed(side: Side) -> str:
    """Each seed's steps and learning rate, like "300 at 0.1 and 280 at 0.05"."""
    parts = [f"{one.steps:.0f} at {one.learning_rate:g}" for one in side.seeds]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _direction(outcome: ComparisonOutcome) -> str:
    expected = {change.expected for change in outcome.changes}
    playbook = "either way is possible by the playbook"
    if len(expected) == 1 and (only := expected.pop()) != "either":
        playbook = f"the playbook expects {_EXPECTED[only]}"
        if only == outcome.direction:
            playbook = "as the playbook expects"
        elif outcome.direction is not None:
            playbook = f"AGAINST THE PLAYBOOK, which expects {_EXPECTED[only]}"
    if outcome.direction is None:
        return (
            "The interval holds 1, so these seeds do not tell whether the change needs more steps "
            f"or fewer; {playbook}."
        )
    return f"So the change needs {outcome.direction} steps: {playbook}."


def _no_answer(outcome: ComparisonOutcome, where: str, one: SeedSteps, other: Side) -> str:
    """Why a seed of one side has no answer, and what the other side's says of the factor."""
    most = outcome.max_train_steps
    if one.status == "at_boundary":
        return (
            f"The factor cannot be told: {where}, seed {one.seed} got there first at the boundary "
            f"of the learning rates tried ({one.learning_rate:g}), extensions included, so it may "
            "need far fewer steps. Move config.comparison.learning_rates."
        )
    if one.status == "too_early":
        return (
            f"The factor cannot be told: {where}, seed {one.seed} got to {_target(outcome)} before "
            "the first evaluation, so the number of steps is not known; set a lower "
            "config.comparison.train_loss, or a smaller config.max_train_steps, which evaluates "
            "earlier."
        )
    text = (
        f"The factor cannot be told: {where}, seed {one.seed} did not get to {_target(outcome)} "
        f"within {most} steps at any learning rate."
    )
    beside = next((o.steps for o in other.seeds if o.seed == one.seed), None)
    if beside is None or most is None:
        return text
    bound = f"above {most / beside:.3g}" if where == _SIDES[1] else f"below {beside / most:.3g}"
    return (
        f"{text} The other side took {beside:.0f}, so at these learning rates this seed's ratio is "
        f"{bound}; raise config.max_train_steps to measure it."
    )


def _ratios(outcome: ComparisonOutcome) -> str:
    pairs = zip(outcome.unchanged.seeds, outcome.changed.seeds, strict=True)
    ratios = (b.steps / a.steps for a, b in pairs if a.steps and b.steps)
    return " and ".join(f"{ratio:.3g}" for ratio in ratios)


def _noise(scale: NoiseScale) -> str:
    if scale.examples is None:
        return f"above {scale.low:.3g} examples (the gradient itself is lost in the noise)"
    return f"{scale.examples:.3g} examples ({_interval(scale.low, scale.high)})"


def _beside_measured(outcome: ComparisonOutcome, predicted: float) -> str:
    low, high = outcome.steps_factor_low, outcome.steps_factor_high
    if low is None or high is None:
        return ""
    if low <= predicted <= high:
        return "; the measured interval holds it"
    return f"; the measured interval lies {'above' if predicted < low else 'below'} it"


def _target(outcome: ComparisonOutcome) -> str:
    if outcome.train_loss is None:
        return "a perfect fit"
    return f"a training loss under {outcome.train_loss:g}"


def _interval(low: float | None, high: float | None) -> str:
    return f"95 % interval {low:.3g} to {high:.3g}"


def _shown(value: Any) -> str:
    if isinstance(value, Varied):
        numbers = all(isinstance(v, int | float) for v in value.values)
        if numbers and len(value.values) > 1:
            return f"{min(value.values):g} to {max(value.values):g}"
        return " or ".join(_shown(v) for v in value.values)
    return f"{value:g}" if isinstance(value, float) else str(value)
