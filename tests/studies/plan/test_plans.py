import dataclasses

import pytest
from conftest import run, write_chain

from budgetflow.base.errors import ConfigError, UserError
from budgetflow.config import choices, load_config_file
from budgetflow.results.reading import open_study
from budgetflow.studies.store.trial import read_trials


def test_a_promoted_trial_can_get_another_schedule(studies, chain):
    fields = {"schedule.decay": "cosine", "schedule.decay_fraction": 0.5}
    config = load_config_file(chain[0] / "second.py")
    config.update_from_flattened_dict(fields)
    _, output = run(config, studies, dry_run=True)
    assert "TOO SMALL" not in output and "70, and 50 taken over" in output
    # At steps 60, 80, 100 and 120, 270 + 1257 examples each, beside 70 batches of 64.
    assert "about 31% of the work" in output and "26% on training" in output
    outcome, _ = run(config, studies)
    best = open_study(studies / "first").best_trial.record.schedule
    (record,) = read_trials(studies / "second")
    expected = dataclasses.replace(best, constant_steps=55, decay_steps=60, decay="cosine")
    assert record.schedule == expected
    assert outcome["transfer"]["to"] == expected.to_dict()
    assert outcome["transfer"]["rule"] == "as config.schedule gives it"
    assert outcome["steps_reused"] == 50
    with pytest.raises(ConfigError, match="keeps each trial's own base learning rate"):
        config.schedule.base_learning_rate = 0.5
        run(config, studies)


def test_a_plan_that_takes_over_all_steps_evaluates_nothing(studies, chain):
    config = load_config_file(chain[0] / "second.py")
    config.max_train_steps = 60
    _, output = run(config, studies, dry_run=True)
    assert "0, and 60 taken over" in output and "about 0% of the work" in output
    assert "0% on training" not in output


def test_another_schedule_keeps_the_trials_own_warmup_from_where_it_began(tmp_path):
    start = {"schedule.warmup_start_learning_rate": 0.05}
    config = write_chain(tmp_path, start, {"schedule.decay": "cosine"})
    run(config, tmp_path)
    (record,) = read_trials(tmp_path / "second")
    kept = record.schedule.warmup_steps, record.schedule.warmup_start_learning_rate
    assert kept == (5, 0.05) and record.schedule.decay == "cosine"


PITFALL = {"schedule.decay": "linear", "schedule.decay_steps": 30, "schedule.final_steps": 60}


def test_extra_steps_at_too_small_a_learning_rate_are_warned_of_or_refused(studies, chain):
    config = load_config_file(chain[0] / "second.py")
    config.update_from_flattened_dict(PITFALL)
    _, output = run(config, studies, dry_run=True)
    assert "TOO SMALL" in output and "(stretched:" in output
    config.transfer.refuse_below = 0.3
    with pytest.raises(ConfigError, match=r"TOO SMALL .* below the 30% .*refuse_below"):
        run(config, studies)
    assert not (studies / "second").exists()
    config.transfer.refuse_below = 0.0
    outcome, _ = run(config, studies)
    assert any(reason.startswith("THE EXTRA STEPS") for reason in outcome["reasons"])
    assert outcome["transfer"]["extra_steps_mean_relative_learning_rate"] < 0.2
    assert outcome["transfer"]["stretched"]["extra_steps_mean_relative_learning_rate"] > 0.5


def test_a_search_of_its_own_is_compared_with_the_round_before(studies, chain):
    config = load_config_file(chain[0] / "second.py")
    config.search.promote_trials = 0
    config.search.method = "grid"
    config.search.space = (choices("schedule.decay_steps", 30, 60),)
    config.update_from_flattened_dict({"schedule.warmup_steps": 5, "schedule.decay": "linear"})
    outcome, _ = run(config, studies)
    assert outcome["transfer"]["extra_steps"] == 60
    # Both begin as trials of the round before; the second leaves the first at step 60, later.
    assert [r.reused_from["step"] for r in read_trials(studies / "second")] == [50, 60]


def test_a_sweep_has_no_rounds_to_promote(tmp_path):
    sweep = tmp_path / "sweep.py"
    sweep.write_text(
        "from budgetflow.config import default_config\n"
        "def get_config():\n"
        "    config = default_config('lr_sweep')\n"
        "    config.max_train_steps = 600\n"
        "    config.sweep.learning_rates = (0.1, 0.2, 0.4)\n"
        "    return config\n"
    )
    config = write_chain(tmp_path, second={"builds_on": str(sweep)})
    with pytest.raises(UserError, match="sweep, which the study builds on, is a sweep"):
        run(config, tmp_path)
