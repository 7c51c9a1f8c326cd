"""More trials, or more seeds, in a study that is there already."""

import pytest
from conftest import assert_identical, run
from test_comparison import config_of_batches

from budgetflow.base.errors import UserError
from budgetflow.base.files import read_json
from budgetflow.config import choices, default_config, log_uniform, parse_config, uniform
from budgetflow.results.reading import open_study
from budgetflow.studies.run.controller import run_study
from budgetflow.studies.store.trial import read_trials
from budgetflow.studies.study import resolve

SPACE = (
    log_uniform("schedule.base_learning_rate", 0.01, 1.0),
    uniform("optimizer.momentum", 0.5, 0.95),
)
TRUNK = (choices("schedule.decay_fraction", 0.2, 0.4, 0.6, 0.8),)


def config_of(trials, method="halton", space=SPACE):
    config = default_config("round")
    config.name = "mine"
    config.max_train_steps = 30
    config.model.hidden_sizes = (16,)
    config.evaluation.evaluations = 5
    config.schedule.decay = "linear"
    config.search.method = method
    config.search.space = space
    config.search.trials = trials
    return config


def contents(folder):
    """All that lies in a study's folder and does not tell the time, but for what was before."""
    names = ["outcome.json", "config.json", *(str(path.relative_to(folder)) for path in (
        *folder.glob("trials/*/trial.json"), *folder.glob("trials/*/measurements.jsonl"),
    ))]  # fmt: skip
    return {name: (folder / name).read_text() for name in sorted(names)}


def assert_same_params(folder):
    """The parameters of all trials at their ends, bit for bit."""
    grown, whole = (open_study(folder / name / "mine").trials for name in ("grown", "whole"))
    for one, other in zip(grown, whole, strict=True):
        assert_identical(one.restore_params(30), other.restore_params(30))


@pytest.mark.parametrize("method", ["halton", "random"])
def test_a_grown_study_is_the_one_with_more_trials_from_the_start(tmp_path, method):
    first, _ = run(config_of(2, method), tmp_path / "grown")
    outcome, output = run(config_of(5, method), tmp_path / "grown")
    whole, _ = run(config_of(5, method), tmp_path / "whole")
    assert outcome == whole
    assert outcome["trials"] == 5
    grown = tmp_path / "grown" / "mine"
    assert contents(grown) == contents(tmp_path / "whole" / "mine")
    assert_same_params(tmp_path)
    assert read_json(grown / "outcome_of_2_trials.json") == first
    assert "5 trials" in output
    assert "5 trials" in (grown / "report.html").read_text()


@pytest.mark.slow
def test_a_trunk_is_shared_with_trials_that_were_there(tmp_path):
    run(config_of(2, space=TRUNK), tmp_path / "grown")
    run(config_of(8, space=TRUNK), tmp_path / "grown")
    run(config_of(8, space=TRUNK), tmp_path / "whole")
    grown, whole = (read_trials(tmp_path / name / "mine") for name in ("grown", "whole"))
    assert any(record.reused_from for record in grown[2:])
    for one, other in zip(grown, whole, strict=True):
        assert (one.schedule, one.status) == (other.schedule, other.status)
        # Where later trials branch off, a trial that knows of them has an evaluation more.
        rows = {row["step"]: row for row in other.rows}
        assert all(row == rows[row["step"]] for row in one.rows)
    assert_same_params(tmp_path)


def test_a_study_that_was_killed_grows_too(tmp_path):
    def killed(records, steps):
        if any(record.step > 10 for record in records):
            raise KeyboardInterrupt

    study = resolve(parse_config(config_of(2)), tmp_path / "grown" / "mine", None)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, killed)
    outcome, _ = run(config_of(4), tmp_path / "grown")
    whole, _ = run(config_of(4), tmp_path / "whole")
    assert outcome == whole
    assert contents(tmp_path / "grown" / "mine") == contents(tmp_path / "whole" / "mine")
    assert not list((tmp_path / "grown" / "mine").glob("outcome_of*"))


def test_no_trials_are_thrown_away(tmp_path):
    outcome, _ = run(config_of(3), tmp_path)
    with pytest.raises(UserError, match=r"search.trials = 2: .*holds 3 trials.*set 3 or more"):
        run(config_of(2), tmp_path)
    with pytest.raises(UserError, match=r"search.trials = 2: .*holds 3 trials.*set 3 or more"):
        run(config_of(2), tmp_path, dry_run=True)
    with pytest.raises(UserError, match=r"differ in search.method, search.trials"):
        run(config_of(4, "random"), tmp_path)
    assert run(config_of(3), tmp_path)[0] == outcome


def test_the_default_number_is_one_like_any_other(tmp_path):
    config = config_of(None)
    config.max_train_steps, config.evaluation.evaluations = 2, 1
    outcome, _ = run(config, tmp_path)
    assert outcome["trials"] == 16
    config.search.trials = 16
    assert "nothing was trained" in run(config, tmp_path)[1]
    config.search.trials = 17
    _, plan = run(config, tmp_path, dry_run=True)
    assert "to run" in plan
    assert run(config, tmp_path)[0]["trials"] == 17


@pytest.mark.slow
def test_a_sweep_gets_more_seeds(tmp_path):
    def sweep(seeds):
        config = default_config("lr_sweep")
        config.name = "mine"
        config.max_train_steps = 600
        config.sweep.learning_rates = (0.05, 0.1, 0.2, 0.4)
        config.sweep.seeds = seeds
        return config

    first, _ = run(sweep(1), tmp_path / "grown")
    outcome, _ = run(sweep(3), tmp_path / "grown")
    whole, _ = run(sweep(3), tmp_path / "whole")
    # The best trial of the first seed was trained on, to see whether its fit held.
    for both in (outcome, whole):
        del both["steps_trained"]
    assert outcome == whole
    assert [seed["seed"] for seed in outcome["seeds"]] == [0, 1, 2]
    kept = tmp_path / "grown" / "mine" / "outcome_of_1_seeds.json"
    assert read_json(kept) == first
    with pytest.raises(UserError, match="holds 3 seeds"):
        run(sweep(2), tmp_path / "grown")


@pytest.mark.slow
def test_a_comparison_gets_more_seeds(tmp_path):
    def compared(seeds, where):
        fields = {"comparison__refine": None, "comparison__seeds": seeds}
        return run(config_of_batches(**fields), tmp_path / where)[0]

    assert compared(1, "grown")["status"] == "cannot_be_told"
    assert compared(3, "grown") == compared(3, "whole")
