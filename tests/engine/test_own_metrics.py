"""Studies selected by a metric of which higher is better, beside one that is undefined."""

import pytest
from conftest import run
from test_metrics import Odd

from budgetflow.config import default_config, log_uniform
from budgetflow.results.reading import open_study


def config_of(**task):
    config = default_config("round")
    config.name, config.max_train_steps = "metrics", 40
    config.model.hidden_sizes = (16,)
    config.task = {"name": f"{Odd.__module__}.Odd", **task}
    config.evaluation.evaluations = 8
    config.search.trials = 4
    config.search.space = (log_uniform("schedule.base_learning_rate", 1e-3, 0.3),)
    return config


def test_selecting_by_accuracy_is_selecting_by_error(tmp_path):
    outcomes = {}
    for metric in ("error_rate", "accuracy"):
        config = config_of()
        config.evaluation.selection_metric = metric
        outcomes[metric], output = run(config, tmp_path / metric)
        study = open_study(tmp_path / metric / "metrics")
        values = study.to_pandas()[f"validation_{metric}"]
        best = values.max() if metric == "accuracy" else values.min()
        assert values[study.best_trial.record.trial] == best
        assert study.best_trial.restore_params()
        assert "Best of 4 trials" in output
    first, second = outcomes.values()
    for key in ("best_trial", "best_step", "best_validation"):
        assert first[key] == pytest.approx(second[key], nan_ok=True)
    assert second["higher_is_better"] and not first["higher_is_better"]
    for key in ("verdict", "competing_trials", "in_last_25_percent", "suggested_max_train_steps"):
        assert first["best_step_diagnosis"][key] == second["best_step_diagnosis"][key]


def test_an_undefined_metric_is_shown_as_undefined_and_ends_nothing(tmp_path):
    outcome, output = run(config_of(undefined=True), tmp_path)
    assert outcome["diverged"] == 0
    assert "validation of none undefined" in output and "validation undefined undefined" in output
    # Launched again, from what JSON can hold.
    assert "validation of none undefined" in run(config_of(undefined=True), tmp_path)[1]
    assert (tmp_path / "metrics" / "report.html").read_text().count("undefined") > 1


def test_a_study_whose_trials_all_diverge_at_once_is_shown(tmp_path):
    config = config_of()
    config.evaluation.selection_metric = "loss"
    config.search.space = (log_uniform("schedule.base_learning_rate", 1e25, 1e29),)
    outcome, output = run(config, tmp_path)
    assert outcome["best_trial"] is None and "Every trial diverged" in output
