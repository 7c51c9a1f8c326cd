"""Whole sentences about what carries over, from facts made by hand."""

from budgetflow.config import choices, uniform
from budgetflow.playbook.derived.first_round import Instability
from budgetflow.playbook.derived.search_space import CarriedField, Derivation, plan
from budgetflow.playbook.derived.words import (
    COLUMNS,
    derivation_caveats,
    instability_sentences,
    plan_table,
    table,
)


def row_of(**fields):
    defaults = {"field": "optimizer.b1", "tag": "might", "tagged_by": "playbook"}
    row = CarriedField(**{**defaults, "competing": 1, **fields})
    (found,) = table([row])
    assert len(found) == len(COLUMNS)
    return found


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


def test_a_winner_alone():
    row = row_of(action="narrowed", value=0.5, searched="too_few")
    assert row.reason == (
        "Might transfer. No other setting competes with the winner's. That is too few to narrow it "
        "by: all of it is kept."
    )


def test_what_settles_instability_may_not_part_trials():
    instability = Instability(
        trials=9, diverged=(1, 4), spiked=(7,), settles=("model.init",), separations=()
    )
    assert list(instability_sentences(instability))[1] == (
        "No value of model.init parts unstable from stable trials in a way that chance would not "
        "in 5% of cases."
    )


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
