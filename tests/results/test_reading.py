import io
import shutil

import numpy as np
import pytest
from conftest import REPOSITORY
from rich.console import Console

import budgetflow
from budgetflow.base.errors import DamagedFileError, UserError
from budgetflow.cli.launch import launch, load_chain
from budgetflow.config import load_config_file


def test_a_study_reads_back_as_a_table(completed_workdir):
    study = budgetflow.open_study(completed_workdir / "round1")
    frame = study.to_pandas()
    assert len(frame) == 16
    assert {"schedule.base_learning_rate", "optimizer.momentum", "status", "best_step",
            "validation_error_rate", "train_loss"} <= set(frame.columns)  # fmt: skip
    best = frame.loc[study.outcome["best_trial"]]
    assert best["validation_error_rate"] == frame["validation_error_rate"].min()
    assert best["best_step"] == study.outcome["best_step"] == study.best_trial.record.best_step
    curves = study.measurements()
    assert curves.groupby("trial").size().min() >= 40
    assert curves["step"].max() == study.outcome["max_train_steps"]


def test_the_best_trial_of_a_sweep_has_the_best_learning_rate(completed_workdir):
    study = budgetflow.open_study(str(completed_workdir / "lr_sweep"))
    schedule = study.best_trial.record.schedule
    assert schedule.base_learning_rate == study.outcome["best_learning_rate"]
    frame = study.to_pandas()
    assert frame["fitted_at_step"].min() == study.outcome["max_train_steps"]


def test_a_race_forecasts_nothing(completed_workdir):
    with pytest.raises(UserError, match="is a race to a fit; ask a round"):
        budgetflow.open_study(completed_workdir / "lr_sweep").forecast(1000)


def test_parameters_come_back_as_numpy(completed_workdir):
    trial = budgetflow.open_study(completed_workdir / "round2").best_trial
    best, last = trial.restore_params(), trial.restore_params(trial.record.max_train_steps)
    kernel = best["hidden"]["0"]["kernel"]
    assert isinstance(kernel, np.ndarray) and kernel.shape == (64, 128)
    assert (kernel != last["hidden"]["0"]["kernel"]).any()


def test_a_study_under_way_can_be_read(workdir):
    (workdir / "round1" / "outcome.json").unlink()
    study = budgetflow.open_study(workdir / "round1")
    assert study.outcome is None
    assert len(study.to_pandas()) == 16
    with pytest.raises(UserError, match="no outcome yet"):
        _ = study.best_trial
    shutil.rmtree(workdir / "round1" / "trials")
    assert budgetflow.open_study(workdir / "round1").to_pandas().empty


def test_what_is_not_there_is_named(completed_workdir, tmp_path):
    with pytest.raises(UserError, match="did you mean 'round1'"):
        budgetflow.open_study(completed_workdir / "round_1")
    with pytest.raises(UserError, match="holds some: open lr_sweep or round1 or round2 in it"):
        budgetflow.open_study(completed_workdir)
    with pytest.raises(UserError, match="there are no studies in"):
        budgetflow.open_studies(tmp_path)
    study = budgetflow.open_study(completed_workdir / "round2")
    with pytest.raises(UserError, match=r"no checkpoint of step 3 in .*checksums\.json, but"):
        study.best_trial.restore_params(3)
    with pytest.raises(UserError, match="no trial 7; the last one is 1"):
        study.trial(7)


def test_all_studies_of_a_folder_are_opened_by_name(completed_workdir, monkeypatch):
    monkeypatch.chdir(completed_workdir.parent)
    studies = budgetflow.open_studies(completed_workdir.name)
    assert list(studies) == ["lr_sweep", "round1", "round2"]
    assert studies["round1"].trial(7).record.trial == 7
    assert repr(studies["round1"]) == (
        f"<study round1 (round, complete) in {completed_workdir / 'round1'}>"
    )
    assert repr(studies["round1"].trial(7)) == "<trial 7 of round1: complete at step 1028>"


def test_a_sweeps_table_has_the_training_loss_that_its_figure_shows(completed_workdir):
    study = budgetflow.open_study(completed_workdir / "lr_sweep")
    last = [trial.record.rows[-1]["train_loss"] for trial in study.trials]
    assert study.to_pandas()["last_train_loss"].tolist() == last


def test_studies_are_compared_by_config_and_by_results(completed_workdir):
    studies = budgetflow.open_studies(completed_workdir)
    found = budgetflow.compare_studies(studies["round1"], studies["round2"])
    assert found.config.loc["data.test_split"].tolist() == [None, "test"]
    assert "data.batch_size" not in found.config.index
    best = [studies[name].outcome["best_validation"]["error_rate"] for name in found.results]
    assert found.results.loc["validation_error_rate"].tolist() == best
    assert found.results.loc["test_error_rate"].tolist()[0] is None
    same = budgetflow.compare_studies(studies["round1"], studies["round1"])
    assert same.config.empty and not same.results.empty
    # Studies of the same name, as of two workdirs, are told apart by their folders.
    assert str(studies["round1"].folder) in same.results.columns


def test_a_damaged_outcome_is_named(workdir):
    (workdir / "round1" / "outcome.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"outcome\.json is damaged"):
        budgetflow.open_study(workdir / "round1")


def test_a_sweep_answers_the_same_whether_its_races_are_evaluated_in_part_or_in_full(tmp_path):
    def swept(name, whole):
        config = load_config_file(REPOSITORY / "configs" / "lr_sweep.py")
        config.name, config.evaluation.whole_in_races = name, whole
        launch(load_chain(config), str(tmp_path), False, Console(file=io.StringIO()))
        return budgetflow.open_study(tmp_path / name)

    part, full = swept("part", False), swept("full", True)
    same = ("status", "max_train_steps", "fitted_at_step_bracket", "best_learning_rate", "fit_held")
    assert {key: part.outcome[key] for key in same} == {key: full.outcome[key] for key in same}
    assert part.best_trial.record.rows[-1] == full.best_trial.record.rows[-1]
    assert part.best_trial.restore_params().keys()
    # What is not there is said: no validation, and of how many examples the figures are.
    frame, in_full = part.to_pandas(), full.to_pandas()
    unfitted = frame[frame["fitted_at_step"].isna() & frame["best_step"].isna()]
    assert len(unfitted) and (unfitted["partial_train_examples"] == 256).all()
    assert unfitted["train_loss"].notna().all()
    assert unfitted["validation_error_rate"].isna().all()
    assert "partial_train_examples" not in in_full
    assert in_full["validation_error_rate"].notna().all()
    loser = next(trial for trial in part.trials if trial.record.best_step is None)
    with pytest.raises(UserError, match="was never validated; give one of its steps: "):
        loser.restore_params()
    assert any("of the first 256 training examples wrong" in r for r in part.outcome["reasons"])
