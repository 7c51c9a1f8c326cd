"""Whole sentences about what carries over, from facts made by hand."""

import pytest

from budgetflow.config import choices, uniform
from budgetflow.playbook.derived.first_round import (
    Instability,
    RateAtEdge,
    RegularizationWithoutFit,
    Separation,
)
from budgetflow.playbook.derived.search_space import CarriedField, Derivation, plan
from budgetflow.playbook.derived.words import (
    COLUMNS,
    derivation_caveats,
    instability_sentences,
    plan_table,
    rate_sentences,
    regularization_sentence,
    table,
)


def row_of(**fields):
    defaults = {"field": "optimizer.b1", "tag": "might", "tagged_by": "playbook"}
    row = CarriedField(**{**defaults, "competing": 1, **fields})
    (found,) = table([row])
    assert len(found) == len(COLUMNS)
    return found


def test_pinned_and_winner_only():
    row = row_of(
        field="schedule.warmup_steps",
        tag="very_likely",
        action="pinned",
        value=50,
        competing=4,
        competing_low=20,
        competing_high=50,
    )
    assert row == (
        "schedule.warmup_steps",
        "very likely",
        "pinned to 50",
        "Very likely to transfer: short runs settle early instability. 4 settings compete, with "
        "values from 20 to 50.",
    )
    row = row_of(
        field="model.hidden_sizes",
        tag="likely",
        action="winner_only",
        value=(8, 8),
        competing=3,
        competing_values=((8, 8), (4,)),
    )
    assert row[1:] == (
        "likely",
        "the winner's (8, 8)",
        "Likely to transfer; it is not looked at again. 3 settings compete, with (8, 8), (4,).",
    )
    row = row_of(field="schedule.decay", tag="unlikely", action="winner_only", value="linear")
    assert row.reason == (
        "Unlikely to transfer, but a part of the winner's schedule, of which only the base "
        "learning rate and the decay's length are swept; override it to look again. No other "
        "setting competes with the winner's."
    )


RANGE = {
    "action": "narrowed",
    "value": 0.51,
    "distribution": "uniform",
    "low_before": 0.0,
    "high_before": 1.0,
    "competing_low": 0.5,
    "competing_high": 0.6,
}


def test_a_narrowed_range():
    row = row_of(**RANGE, searched="spread", low=0.45, high=0.65, competing=5)
    assert row[1:] == (
        "might",
        "0.45 to 0.65",
        "Might transfer. 5 settings compete, with values from 0.5 to 0.6. It was searched from 0 "
        "to 1.",
    )
    row = row_of(**RANGE, searched="too_few", low=0.0, high=1.0, competing=2, tagged_by="config")
    assert row[1:] == (
        "might (config)",
        "0 to 1",
        "Might transfer, says the config. 2 settings compete, with values from 0.5 to 0.6. That "
        "is too few to narrow it by: all of it is kept.",
    )


@pytest.mark.parametrize(
    ("high", "then"),
    [(1.2, "and is searched beyond it"), (1.0, "and nothing beyond it is searched")],
)
def test_a_winner_at_an_edge(high, then):
    row = row_of(**RANGE, searched="spread", low=0.4, high=high, competing=5, at_edge="high")
    assert row.reason.endswith(f" THE WINNER IS AT THE HIGH END of what was tried, {then}.")


def test_choices():
    row = row_of(
        action="narrowed",
        value="adam",
        searched="spread",
        values_before=("sgd", "adam"),
        competing=6,
        competing_values=("adam",),
    )
    assert (row.becomes, row.reason) == (
        "adam alone",
        "Might transfer. 6 settings compete, with adam. It was one of sgd, adam.",
    )


def test_a_sweep():
    fields = {
        "field": "schedule.base_learning_rate",
        "tag": "unlikely",
        "action": "swept",
        "value": 0.1,
        "searched": "around",
        "distribution": "choices",
        "values": (0.1, 0.05, 0.2),
        "low_before": 0.01,
        "high_before": 0.1,
        "competing": 2,
        "competing_low": 0.1,
        "competing_high": 0.1,
    }
    assert row_of(**fields, at_edge="high")[1:] == (
        "unlikely",
        "0.1, 0.05, 0.2",
        "Unlikely to transfer; its sweep is cheap, since trunks are shared. 2 settings compete, "
        "all with 0.1. THE WINNER IS AT THE HIGH END of what was tried, and is searched beyond it.",
    )
    assert row_of(**fields, overridden=True).reason.startswith("The config says so. 2 settings")


def test_a_plan_has_no_results():
    space = [
        choices("schedule.warmup_steps", 1, 2),
        choices("model.depth", 1, 2),
        uniform("optimizer.b1", 0, 1),
        choices("schedule.decay_steps", 1, 2),
        uniform("optimizer.b2", 0, 1, tag="unlikely"),
        uniform("optimizer.eps", 0, 1),
    ]
    rows = plan_table(plan(space, {"optimizer.eps": uniform("optimizer.eps", 0, 2)}))
    assert [row[1:] for row in rows] == [
        (
            "very likely",
            "pinned to the winner's value",
            "Very likely to transfer: short runs settle early instability.",
        ),
        ("likely", "the winner's value only", "Likely to transfer; it is not looked at again."),
        ("might", "narrowed to the neighbourhood of the trials that compete", "Might transfer."),
        (
            "unlikely",
            "swept at half, once and twice the winner's steps and share of the run",
            "Unlikely to transfer; its sweep is cheap, since trunks are shared.",
        ),
        (
            "unlikely (config)",
            "searched anew in all of its dimension",
            "Unlikely to transfer, says the config.",
        ),
        ("might", "searched anew", "The config says so."),
    ]


def test_a_schedule_without_a_rule():
    (caveat,) = derivation_caveats(
        Derivation(rows=(), best_trial=0, no_schedule_because="It has none")
    )
    assert caveat == (
        "The lengths of the winner's schedule stay as they are, in steps, since no rule carries it "
        "over: It has none."
    )
    assert not list(derivation_caveats(Derivation(rows=(), best_trial=0)))


def unstable(**fields):
    facts = {"trials": 9, "diverged": (1, 4), "spiked": (7,), "settles": (), "separations": ()}
    return list(instability_sentences(Instability(**facts | fields)))


def test_instability():
    assert unstable(diverged=(), spiked=()) == [
        "None of 9 trials diverged or had a loss spike at an evaluation."
    ]
    counts, then = unstable()
    assert counts == (
        "Of 9 trials, 2 diverged (1, 4) and 1 had a loss spike at an evaluation (7). Warmup and "
        "initialisation settle early instability, and short runs are enough for that."
    )
    assert then == (
        "The search space varies neither: add schedule.warmup_steps to it, or lower the base "
        "learning rate."
    )
    assert unstable(settles=("model.init",))[1] == (
        "No value of model.init parts unstable from stable trials in a way that chance would not "
        "in 5% of cases."
    )


def test_what_parts_unstable_trials():
    below = Separation(
        field="schedule.warmup_steps",
        unstable="below",
        last_unstable=5,
        first_stable=20,
        by_chance=0.0286,
    )
    named = Separation(
        field="model.init", unstable="values", unstable_values=("a", "b"), by_chance=0.01
    )
    settles = ("schedule.warmup_steps", "model.init")
    assert unstable(settles=settles, separations=(below, named))[1:] == [
        "All unstable trials have schedule.warmup_steps 5 or less, all stable ones 20 or more "
        "(chance parts them so in 0.029 of cases).",
        "All unstable trials have model.init a, b, and no stable one has (chance parts them so in "
        "0.01 of cases).",
    ]


def test_regularization_without_a_fit():
    fields = ("regularization.weight_decay",)
    assert regularization_sentence(
        RegularizationWithoutFit(fields=fields, shown_by="regime", lowest_train_error_rate=0.12)
    ) == (
        "The search space tunes regularization.weight_decay: regularization is unlikely to help "
        "where the training set cannot be fitted perfectly. The workload is compute-bound (the "
        "lowest training error rate is 0.12)."
    )
    found = RegularizationWithoutFit(
        fields=fields, shown_by="trials", lowest_train_loss=0.3, fitted_train_loss=0.1
    )
    assert regularization_sentence(found).endswith(
        "No trial of the round fitted it, though without regularization or with more steps one may "
        "(the lowest training loss is 0.3; 0.1 counts as fitted)."
    )


def rates(**fields):
    facts = {"runs": "complete", "best": 0.1, "lowest": 0.001, "highest": 0.1}
    return list(map(str, rate_sentences(RateAtEdge(**facts | fields))))


def test_which_runs_chose_the_learning_rate():
    assert rates() == [
        "All trials were complete runs (decayed to 10% of the base learning rate or less): short "
        "complete runs may pick other learning rates than long ones do."
    ]
    assert rates(runs="undecayed") == [
        "No trial was decayed to 10% of the base learning rate or less: short, undecayed "
        "comparisons can flatter high learning rates."
    ]
    assert "mixes decays" in rates(runs="mixed")[0]


def test_the_best_learning_rate_at_an_edge():
    assert rates(edge="high", inner_competing=3)[1:] == [
        "THE BEST BASE LEARNING RATE, 0.1, IS AT THE HIGH END of what was tried (0.001 to 0.1; "
        "within 5% of it, in decades). 3 trials away from that end compete, too. Try beyond the "
        "highest."
    ]
    assert rates(edge="high", runs="undecayed")[1:] == [
        "THE BEST BASE LEARNING RATE, 0.1, IS AT THE HIGH END of what was tried (0.001 to 0.1; "
        "within 5% of it, in decades). No trial away from that end competes. Try beyond the "
        "highest.",
        "A long run, or one with a decay, may want a lower one.",
    ]
    assert rates(edge="low", best=0.001)[-1] == (
        "A long run may want a higher one: short-horizon bias (Wu et al. 2018, arXiv:1803.02021) "
        "favours small learning rates."
    )
