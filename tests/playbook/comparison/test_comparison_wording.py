"""Whole sentences about comparisons, from facts made by hand."""

import dataclasses

from budgetflow.playbook.comparison.gradient_noise import NoisePoint, NoiseScale
from budgetflow.playbook.comparison.outcome import ComparisonOutcome, SeedSteps, Side
from budgetflow.playbook.comparison.policy import changes_of
from budgetflow.playbook.comparison.words import (
    comparison_headline,
    comparison_reasons,
    noise_reasons,
)
from budgetflow.results.kind_views import headline


def side(*steps, status="found", noise=None):
    seeds = [
        SeedSteps(
            seed=n,
            status="found" if s is not None else status,
            steps=s,
            learning_rate=0.1,
            trial=n,
        )
        for n, s in enumerate(steps)
    ]
    return Side(seeds=tuple(seeds), median_steps=None, noise_scale=noise)


def compared(unchanged, changed, changes=None, **fields):
    return ComparisonOutcome(
        max_train_steps=2000,
        steps_trained=5000,
        changes=changes_of(changes or {"data.batch_size": (128, 32)}),
        unchanged=unchanged,
        changed=changed,
        **{"status": "cannot_be_told", "train_loss": None, **fields},
    )


FACTOR = {
    "status": "measured",
    "steps_factor": 3.0,
    "steps_factor_low": 2.5,
    "steps_factor_high": 3.6,
    "direction": "more",
}
MEASURED = compared(side(100.0, 110.0, 90.0), side(300.0, 330.0, 270.0), **FACTOR)


def test_a_factor():
    assert list(comparison_reasons(MEASURED)) == [
        "data.batch_size = 32 instead of 128: both sides were trained to a perfect fit, each at "
        "the best of its own constant learning rates, the first seed's over the whole grid and "
        "the others' around its best.",
        "The change takes 3 times the steps (geometric mean over 3 seeds; 95 % interval 2.5 to 3.6 "
        "by Student's t): 300 at 0.1, 330 at 0.1 and 270 at 0.1 instead of 100 at 0.1, 110 at 0.1 "
        "and 90 at 0.1.",
        "So the change needs more steps: as the playbook expects.",
        "For a study with the change that takes its length from one without it, this measures "
        "config.max_train_steps_factor = 3; 3.6, the upper end of the interval, errs on the longer "
        "side.",
    ]
    assert headline(MEASURED) == comparison_headline(MEASURED)
    assert headline(MEASURED) == (
        "data.batch_size = 32 instead of 128 takes 3 times the steps (95 % interval 2.5 to 3.6) "
        "to a perfect fit."
    )


def third(changes, **fields):
    """The sentence about the direction."""
    outcome = dataclasses.replace(MEASURED, changes=changes_of(changes), **fields)
    return list(comparison_reasons(outcome))[2]


def test_directions_beside_the_playbook():
    more, fewer = {"data.batch_size": (128, 32)}, {"data.batch_size": (32, 128)}
    both = {**more, "optimizer.momentum": (0.9, 0.8)}
    assert third(fewer) == (
        "So the change needs more steps: AGAINST THE PLAYBOOK, which expects fewer steps."
    )
    assert third(both) == (
        "So the change needs more steps: either way is possible by the playbook."
    )
    assert third(more, direction=None) == (
        "The interval holds 1, so these seeds do not tell whether the change needs more steps or "
        "fewer; the playbook expects more steps."
    )


def last(outcome):
    return list(comparison_reasons(outcome))[-1]


def test_no_factor():
    never = compared(side(100.0), side(None, status="not_fitted"), train_loss=0.1)
    assert last(never) == (
        "The factor cannot be told: with the change, seed 0 did not get to a training loss under "
        "0.1 within 2000 steps at any learning rate. The other side took 100, so at these learning "
        "rates this seed's ratio is above 20; raise config.max_train_steps to measure it."
    )
    assert headline(never) == (
        "data.batch_size = 32 instead of 128: the factor in steps cannot be told."
    )
    other = compared(side(None, status="not_fitted"), side(400.0))
    assert "without the change" in last(other) and "ratio is below 0.2;" in last(other)
    both = compared(side(None, status="not_fitted"), side(None, status="not_fitted"))
    assert last(both).endswith("within 2000 steps at any learning rate.")
    assert last(compared(side(100.0), side(None, status="at_boundary"))) == (
        "The factor cannot be told: with the change, seed 0 got there first at the boundary of the "
        "learning rates tried (0.1), extensions included, so it may need far fewer steps. Move "
        "config.comparison.learning_rates."
    )
    assert last(compared(side(None, status="too_early"), side(400.0))) == (
        "The factor cannot be told: without the change, seed 0 got to a perfect fit before the "
        "first evaluation, so the number of steps is not known; set a lower "
        "config.comparison.train_loss, or a smaller config.max_train_steps, which evaluates "
        "earlier."
    )
    assert last(compared(side(100.0, 100.0), side(200.0, 250.0))) == (
        "The factor cannot be told: 2 seeds say nothing of the spread between seeds. The ratio of "
        "steps was 2 and 2.5; set config.comparison.seeds = 3 or more."
    )


def scale(examples, low, high):
    point = NoisePoint(step=1, covariance_trace=1.0, squared_gradient_norm=1.0)
    return NoiseScale(examples=examples, low=low, high=high, points=(point,))


def test_noise_scales():
    noisy = dataclasses.replace(
        MEASURED,
        unchanged=side(100.0, 110.0, 90.0, noise=scale(64.0, 50.0, 80.0)),
        changed=side(300.0, 330.0, 270.0, noise=scale(60.0, 50.0, 72.0)),
        steps_rerun=1000,
        predicted_steps_factor=1.9,
        predicted_steps_factor_low=1.7,
        predicted_steps_factor_high=2.1,
    )
    assert list(noise_reasons(noisy, (128, 32))) == [
        "The simple gradient-noise scale is 64 examples (95 % interval 50 to 80) without the "
        "change (batches of 128) and 60 examples (95 % interval 50 to 72) with the change (batches "
        "of 32), measured at 2 points of the fastest trials, which were trained again for it (1000 "
        "steps).",
        "By steps = S_min (1 + noise scale / batch) it predicts a factor of 1.9 (95 % interval 1.7 "
        "to 2.1 from the measurement of the noise alone). That is a prediction, which takes S_min "
        "to be the same on both sides; the measured interval lies above it.",
    ]
    within = dataclasses.replace(noisy, predicted_steps_factor=2.6)
    assert list(noise_reasons(within, (128, 32)))[1].endswith("; the measured interval holds it.")
    lost = dataclasses.replace(
        noisy,
        changed=side(300.0, noise=scale(None, 400.0, None)),
        predicted_steps_factor=None,
    )
    first, second = noise_reasons(lost, (128, 32))
    assert "above 400 examples (the gradient itself is lost in the noise) with the change" in first
    assert second == "So the noise scale predicts no factor."
