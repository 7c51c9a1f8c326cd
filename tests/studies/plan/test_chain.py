"""Budgets that become rounds."""

import json

import pytest
from conftest import run

from budgetflow.base.errors import ConfigError
from budgetflow.config import choices, default_config, log_uniform
from budgetflow.playbook.budget.budget import StepCost
from budgetflow.studies.kinds import parse_study
from budgetflow.studies.kinds.rounds import expand
from budgetflow.studies.kinds.rounds import planned as plan_of
from budgetflow.studies.plan import chain


def rounds_config(**fields):
    """Two rounds of 20 and 100 steps with an idea, dotted fields ("__" for ".") changed."""
    config = default_config("rounds")
    config.name = "planned"
    config.rounds.production_steps = 100
    config.rounds.first_round_fraction = 0.2
    config.rounds.budget_steps = 1600
    config.rounds.last_round_share = 0.6
    config.model.hidden_sizes = (16,)
    config.schedule.warmup_steps = 2
    config.schedule.decay = "linear"
    config.schedule.decay_fraction = 0.2
    config.evaluation.evaluations = 5
    config.search.seeds = 3
    config.search.reruns = 1
    config.search.space = (
        log_uniform("schedule.base_learning_rate", 1e-2, 1.0),
        choices("regularization.weight_decay", 0.0, 1e-3),
    )
    config.ideas = {"wider": {"model": {"hidden_sizes": (32,)}}}
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


def test_a_plan_is_a_chain_of_ordinary_rounds():
    config = parse_study(
        rounds_config(rounds__num_rounds=3, rounds__budget_steps=5000, data__test_split="test")
    )
    plan = plan_of(config, StepCost(examples=64))
    first, second, last = expand(config, plan)
    assert [study.name for study in (first, second, last)] == [
        "planned_round1",
        "planned_round2",
        "planned",
    ]
    assert {study.kind for study in (first, second, last)} == {"round"}
    lengths = [study.max_train_steps for study in (first, second, last)]
    assert lengths == sorted(lengths) and lengths[0] == 20 and lengths[-1] == 100
    assert first.search.space and not second.search.space and second.search.derive
    # Only what yields the final model is tested.
    assert [study.data.test_split for study in (first, second, last)] == [None, None, "test"]
    # The trials of a round are no more than planned: with every idea promoted, as many.
    of_ideas = 3 * 2
    assert first.search.trials + of_ideas == plan.rounds[0].trials
    assert (second.search.trials or 0) + 3 * (1 + 1 + 1) == plan.rounds[1].trials


def test_a_dry_run_shows_the_plan_and_writes_nothing(tmp_path):
    _, output = run(rounds_config(), tmp_path, dry_run=True)
    assert "of production" in output and "Twice the budget (3200 steps) buys" in output
    assert "swept at half" in output and "Might transfer" in output
    assert "planned_round1" in output
    assert not list(tmp_path.iterdir())


def test_a_budget_in_examples_is_so_many_steps(tmp_path):
    config = rounds_config(rounds__budget_steps=None, rounds__budget_examples=64 * 1600)
    _, output = run(config, tmp_path, dry_run=True)
    assert "The budget of 102400 examples is 1600 steps of 64 examples." in output


def test_a_budget_in_hours_or_flops_is_measured_by_running_a_step(tmp_path, monkeypatch):
    measured = {}

    def recorded(name, function, then):
        def call(*arguments):
            measured[name] = function(*arguments)
            return then

        monkeypatch.setattr(chain, name, call)

    # What is measured differs by machine; a plan of it would be larger than a test needs.
    recorded("flops_per_step", chain.flops_per_step, 1e6)
    recorded("seconds_per_step", chain.seconds_per_step, 2.0)
    config = rounds_config(rounds__budget_steps=None, rounds__budget_hours=1.0)
    _, output = run(config, tmp_path, dry_run=True)
    assert "The budget of 1 hour is 1800 steps of 2 seconds, evaluations included." in output
    assert 0 < measured["seconds_per_step"] < 1 and measured["flops_per_step"] > 1e5
    config = rounds_config(rounds__budget_steps=None, rounds__budget_flops=1.7e9)
    _, output = run(config, tmp_path, dry_run=True)
    assert "The budget of 1.7e+09 FLOPs is 1700 steps of 1e+06 FLOPs." in output


def test_the_cost_of_a_step_is_kept_with_the_plan(tmp_path):
    folder = tmp_path / "planned"
    folder.mkdir()
    cost = {"examples": 64, "flops": None, "seconds": 1.0}
    (folder / "plan.json").write_text(json.dumps({"cost": cost}))
    config = rounds_config(rounds__budget_steps=None, rounds__budget_hours=0.5)
    _, output = run(config, tmp_path, dry_run=True)
    assert "is 1800 steps of 1 seconds" in output


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rounds__production_steps": None}, r"config\.rounds\.production_steps is missing"),
        ({"rounds__budget_steps": None}, r"config\.rounds has none: set one of budget_steps"),
        ({"rounds__budget_hours": 1.0}, r"config\.rounds has budget_steps, budget_hours"),
        ({"rounds__budget_steps": 100}, r"a budget of 100 steps is too small: .* \d+ steps"),
        ({"search__space": ()}, r"config\.search\.space is empty"),
        ({"search__trials": 5}, r"search\.trials .* is for a single round"),
        ({"max_train_steps": 5}, r"max_train_steps .* is for a single round"),
        ({"schedule__decay": "inverse_sqrt", "schedule__decay_fraction": None,
          "schedule__timescale_steps": 5}, "set another config.schedule.decay for rounds"),
        ({"rounds__num_rounds": 10, "rounds__production_steps": 8}, r"config\.rounds: num_rounds"),
        ({"search__carry": (("optimizer.momentum", "pinned"),)}, r"optimizer\.momentum"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_refused(fields, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run(rounds_config(**fields), tmp_path, dry_run=True)
    assert not list(tmp_path.iterdir())


def test_the_smallest_budget_named_is_enough(tmp_path):
    with pytest.raises(ConfigError, match="too small") as error:
        run(rounds_config(rounds__budget_steps=100), tmp_path, dry_run=True)
    smallest = int(str(error.value).split("needs is ")[1].split(" steps")[0])
    run(rounds_config(rounds__budget_steps=smallest), tmp_path, dry_run=True)
    with pytest.raises(ConfigError, match="too small"):
        run(rounds_config(rounds__budget_steps=smallest - 1), tmp_path, dry_run=True)
