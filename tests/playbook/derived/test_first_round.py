"""Early instability, regularization without a fit, and where the best learning rate lies."""

import itertools
import random

import pytest
from conftest import trial_record

from budgetflow.config import choices, log_uniform, uniform
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.derived.first_round import (
    BY_CHANCE,
    has_spike,
    instability,
    rate_at_edge,
    regularization_without_fit,
)

SELECTION = Selection("validation_loss")
CONSTANT = Schedule(0.1, 0, 100)


def with_losses(*losses, number=0, status="complete", **fields):
    rows = [{"step": 10 * n, "train_loss": loss} for n, loss in enumerate(losses, start=1)]
    return trial_record(number, CONSTANT, rows, status=status, **fields)


STABLE = (2.0, 1.0, 0.5, 0.4)
SPIKED = (2.0, 0.5, 1.5, 0.4)


@pytest.mark.parametrize(
    ("losses", "spike"),
    [
        (STABLE, False),
        (SPIKED, True),
        ((-2.0, -5.0, -2.0, -6.0), True),  # a log-likelihood's sign
        ((2.0, 0.5, 1.5, 0.6), False),  # it did not come back
        ((2.0, 0.5, 0.74, 0.4), False),  # not half as high again
        ((2.0, 1e-5, 3e-5, 1e-5), False),  # three times next to nothing
        ((5.0, 4.9, 5.5, 4.8), False),  # hardly anything learned
        ((2.0, 0.5, float("nan"), 0.4), False),
        ((2.0,), False),
        ((), False),
    ],
)
def test_a_spike_is_high_and_comes_back(losses, spike):
    assert has_spike(with_losses(*losses)) == spike


def study(stable, unstable, field="schedule.warmup_steps"):
    """A trial for each of these values of a field, stable or not; every other one diverged."""
    values = [(value, False) for value in stable] + [(value, True) for value in unstable]
    return [
        with_losses(
            *(SPIKED if is_unstable and n % 2 else STABLE),
            number=n,
            status="diverged" if is_unstable and n % 2 == 0 else "complete",
            hyperparameters={field: value, "optimizer.b1": n / 100},
        )
        for n, (value, is_unstable) in enumerate(values)
    ]


WARMUP = [choices("schedule.warmup_steps", *range(20)), uniform("optimizer.b1", 0, 1)]


def test_unstable_trials_are_counted_and_parted_by_warmup():
    found = instability(WARMUP, study(stable=[10, 12, 14, 16], unstable=[1, 2, 3, 4]))
    assert (found.trials, found.diverged, found.spiked) == (8, (4, 6), (5, 7))
    assert found.settles == ("schedule.warmup_steps",)
    (separation,) = found.separations
    assert (separation.unstable, separation.last_unstable, separation.first_stable) == (
        "below",
        4,
        10,
    )
    assert separation.by_chance == pytest.approx(2 / 70)


def test_more_warmup_may_be_what_is_unstable():
    (found,) = instability(WARMUP, study(stable=[1, 2, 3, 4], unstable=[9, 7, 8, 11])).separations
    assert (found.unstable, found.last_unstable, found.first_stable) == ("above", 7, 4)


@pytest.mark.parametrize(
    ("stable", "unstable"),
    [
        ([10, 12, 14, 16], [1, 2, 3, 11]),  # not clear-cut
        ([10, 12, 14, 16], [1, 2, 3, 10]),  # a value is both
        ([10, 12, 14], [1, 2, 3]),  # chance: one in ten
        ([10, 12, 14, 16, 18], []),
        ([], [1, 2, 3, 4, 5]),
    ],
)
def test_what_is_not_clear_cut_is_not_said(stable, unstable):
    assert instability(WARMUP, study(stable, unstable)).separations == ()


def test_seeds_of_a_setting_are_no_further_evidence():
    records = study(stable=[10, 12, 14, 16], unstable=[1, 1, 1, 1])
    for record in records[4:]:
        record.hyperparameters.update({"optimizer.b1": 0.5, "seed": record.trial})
    assert instability(WARMUP, records).separations == ()


def test_initialisations_without_an_order_part_trials_too():
    space = [choices("model.init", "a", "b", "c")]
    records = study(["a"] * 3 + ["b"] * 3, ["c"] * 3, field="model.init")
    (found,) = instability(space, records).separations
    assert (found.unstable, found.unstable_values) == ("values", ("c",))
    # Of the 84 ways to pick 3 of 9, three are those of a single value.
    assert found.by_chance == pytest.approx(3 / 84)


def test_only_what_settles_instability_is_looked_at():
    records = study([10, 12, 14, 16], [1, 2, 3, 4], field="optimizer.eps")
    found = instability([uniform("optimizer.eps", 0, 20)], records)
    assert (found.settles, found.separations) == ((), ())
    assert len(found.diverged) == 2


@pytest.mark.parametrize("fields", [1, 3])
def test_chance_parts_trials_less_often_than_is_stated(fields):
    draws = random.Random(0)
    names = [f"model.init_{n}" for n in range(fields)]
    space = [uniform(name, 0, 1) for name in names]
    wrong = 0
    for _ in range(1000):
        records = [
            with_losses(
                *STABLE,
                number=n,
                status=draws.choice(["diverged", "complete"]),
                hyperparameters={name: draws.random() for name in names},
            )
            for n in range(9)
        ]
        wrong += bool(instability(space, records).separations)
    assert wrong / 1000 <= BY_CHANCE


# Regularization


def measured(**metrics):
    row = {"step": 10, **{f"train_{name}": value for name, value in metrics.items()}}
    return [trial_record(0, CONSTANT, [row])]


REGULARIZED = [
    log_uniform("regularization.weight_decay", 1e-5, 1e-2),
    uniform("optimizer.b1", 0, 1),
    choices("model.dropout_rate", 0.0, 0.1),
]


@pytest.mark.parametrize(
    ("records", "regime", "threshold", "shown_by"),
    [
        (measured(error_rate=0.1, loss=0.3), "compute_bound", None, "regime"),
        ([], "compute_bound", None, "regime"),
        (measured(error_rate=0.1, loss=0.3), "undecided", None, "trials"),
        (measured(error_rate=0.1, loss=0.3), None, None, "trials"),
        (measured(loss=0.3), None, 0.2, "trials"),
        (measured(loss=0.1), None, 0.2, None),
        (measured(loss=0.3), None, None, None),
        ([], None, None, None),
        (measured(error_rate=0.0, loss=0.3), None, None, None),
        (measured(error_rate=0.0, loss=0.3), "compute_bound", None, None),
        (measured(error_rate=0.1, loss=0.3), "not_compute_bound", None, None),
    ],
)
def test_regularization_is_flagged_where_nothing_fits(records, regime, threshold, shown_by):
    found = regularization_without_fit(REGULARIZED, records, regime, threshold)
    assert (found and found.shown_by) == shown_by
    if found:
        assert found.fields == ("regularization.weight_decay", "model.dropout_rate")


def test_a_space_without_regularization_is_not_flagged():
    space = [uniform("optimizer.b1", 0, 1)]
    assert regularization_without_fit(space, measured(error_rate=0.1), "compute_bound") is None


# Learning rates

DECAYS = {
    "complete": lambda rate: Schedule(rate, 0, 50, 50, "linear"),
    "tenth": lambda rate: Schedule(rate, 0, 0, 100, "cosine", final_learning_rate=rate / 10),
    "half": lambda rate: Schedule(rate, 0, 0, 100, "linear", final_learning_rate=rate / 2),
    "constant": lambda rate: Schedule(rate, 0, 100),
}


def at_rates(losses, kinds=("complete",), status="complete"):
    """Trials with these losses by base learning rate; they start at a loss of 1 or more."""
    return [
        trial_record(
            number,
            DECAYS[kind](rate),
            [
                {"step": 10, "validation_loss": max(loss, 1.0)},
                {"step": 100, "validation_loss": loss},
            ],
            status=status,
        )
        for number, ((rate, loss), kind) in enumerate(
            zip(losses.items(), itertools.cycle(kinds), strict=False)
        )
    ]


@pytest.mark.parametrize(
    ("losses", "edge", "inner"),
    [
        ({0.001: 0.5, 0.01: 0.3, 0.1: 0.1}, "high", 2),
        ({0.001: 0.1, 0.01: 0.3, 0.1: 0.5}, "low", 2),
        ({0.001: 0.1, 0.01: 1.5, 0.1: 1.5}, "low", 0),
        ({0.001: 0.5, 0.01: 0.1, 0.1: 0.2}, None, 0),
        ({0.001: 0.5, 0.095: 0.1, 0.1: 0.2}, "high", 1),
        ({0.001: 0.5, 0.1: 0.1}, None, 0),
    ],
)
def test_the_best_rate_may_be_at_an_edge(losses, edge, inner):
    found = rate_at_edge(at_rates(losses), SELECTION)
    assert (found.edge, found.inner_competing) == (edge, inner)
    assert (found.lowest, found.highest) == (min(losses), max(losses))
    assert losses[found.best] == min(losses.values())


def test_rates_that_diverged_were_tried_too():
    records = at_rates({0.001: 0.5, 0.01: 0.3, 0.1: 0.1})
    diverged = trial_record(9, Schedule(1.0, 0, 100), [{"step": 10}], status="diverged")
    assert rate_at_edge([*records, diverged], SELECTION).edge is None
    assert rate_at_edge([diverged], SELECTION) is None


@pytest.mark.parametrize(
    ("kinds", "runs"),
    [
        (["complete"], "complete"),
        (["complete", "tenth"], "complete"),
        (["constant"], "undecayed"),
        (["half", "constant"], "undecayed"),
        (["complete", "constant"], "mixed"),
    ],
)
def test_which_kind_of_runs_a_round_compared(kinds, runs):
    assert rate_at_edge(at_rates({0.01: 0.3, 0.1: 0.1}, kinds), SELECTION).runs == runs
