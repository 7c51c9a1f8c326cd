"""Studies as a whole: what their folders hold, how they hang together, what they find."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from conftest import REPOSITORY, assert_identical, conclude_again, edited_config, run, start_trial

from budgetflow.base.errors import UserError
from budgetflow.base.files import read_json
from budgetflow.config import load_config_file, log_uniform, parse_config
from budgetflow.config.keys import replace_fields
from budgetflow.engine.checkpoints import TrialCheckpoints, restore_as_numpy
from budgetflow.engine.schedules import Schedule
from budgetflow.results.reading import open_study
from budgetflow.studies.store.trial import read_trials, write_trial

STUDIES = ("lr_sweep", "round1", "round2")
SWEEP_KEYS = {
    "kind", "status", "max_train_steps", "fitted_at_step_bracket", "best_learning_rate",
    "learning_rates", "extensions", "switched_off", "regime", "steps_trained", "steps_full_grid",
    "fingerprint", "reasons",
}  # fmt: skip
ROUND_KEYS = {
    "kind", "max_train_steps", "trials", "diverged", "best_trial", "best_step", "best_validation",
    "best_step_diagnosis", "transfer", "steps_trained", "steps_reused", "fingerprint", "reasons",
}  # fmt: skip
TRIAL_KEYS = {
    "trial", "hyperparameters", "schedule", "seed", "max_train_steps", "status", "step",
    "best_step", "reused_from",
}  # fmt: skip
SCHEDULE_KEYS = {
    "base_learning_rate", "warmup_steps", "constant_steps", "decay_steps", "decay",
    "final_learning_rate",
}  # fmt: skip


def outcome_of(workdir, study):
    return read_json(workdir / study / "outcome.json")


def everything_recorded(folder):
    """All that a study's folder records, but for times and checkpoints' bytes, which hold times.

    And for how the trials shared this process's devices, which are fewer than the launcher's.
    """
    paths = [p for p in folder.rglob("*.json*") if "checkpoints/" not in str(p)]
    left_out = ("checksums.json", "timing.json", "strategy.json", "begun.json")
    return {str(p.relative_to(folder)): p.read_text() for p in paths if p.name not in left_out}


def test_the_folders_hold_what_the_contract_says(completed_workdir):
    sweep, round1, round2 = (outcome_of(completed_workdir, study) for study in STUDIES)
    assert sweep.keys() >= SWEEP_KEYS and sweep["kind"] == "lr_sweep"
    for outcome in (round1, round2):
        assert outcome.keys() >= ROUND_KEYS and outcome["kind"] == "round"
        assert outcome["best_step_diagnosis"].keys() >= {
            "verdict", "share_in_first_10_percent", "share_in_last_25_percent",
            "suggested_max_train_steps", "caveats",
        }  # fmt: skip
    for outcome in (sweep, round1, round2):
        assert outcome["selection_metric"] == "error_rate" and outcome["higher_is_better"] is False
    assert round1["transfer"] is None
    assert round2["transfer"].keys() >= {
        "from", "to", "extra_steps", "extra_steps_mean_relative_learning_rate",
        "extra_steps_share_above_half",
    }  # fmt: skip
    for study in STUDIES:
        trials = sorted((completed_workdir / study / "trials").iterdir())
        assert [path.name for path in trials] == [f"{n:04d}" for n in range(len(trials))]
        for path in trials:
            trial = json.loads((path / "trial.json").read_text())
            assert trial.keys() >= TRIAL_KEYS
            assert trial["schedule"].keys() >= SCHEDULE_KEYS
            assert trial["status"] in ("complete", "stopped", "diverged")


def test_the_chain_hangs_together(completed_workdir):
    sweep, round1, round2 = (outcome_of(completed_workdir, study) for study in STUDIES)
    assert sweep["status"] == "found" and sweep["regime"] == "not_compute_bound"
    step = sweep["max_train_steps"]
    assert sweep["fitted_at_step_bracket"] == [step - 1, step]
    assert sweep["switched_off"] == [
        "regularization.dropout_rate = 0.1", "augmentation.shift_pixels = 1"
    ]  # fmt: skip
    assert sweep["steps_trained"] < sweep["steps_full_grid"] / 5
    assert round1["max_train_steps"] == 4 * step
    assert round2["max_train_steps"] == 16 * step
    # Training longer never gives a worse result.
    assert round2["best_validation"]["error_rate"] <= round1["best_validation"]["error_rate"]
    assert round2["best_test"].keys() == round2["best_validation"].keys() >= {"loss", "error_rate"}
    transfer = round2["transfer"]
    assert transfer["extra_steps_mean_relative_learning_rate"] == pytest.approx(1)
    for key in ("warmup_steps", "decay_steps", "base_learning_rate"):
        assert transfer["from"][key] == transfer["to"][key]
    trained, reused = round2["steps_trained"], round2["steps_reused"]
    assert trained + reused == 2 * round2["max_train_steps"]
    assert reused == 2 * (transfer["from"]["warmup_steps"] + transfer["from"]["constant_steps"])


def test_coarse_to_fine_gives_the_answer_of_the_fine_grid(completed_workdir, tmp_path):
    fine = outcome_of(completed_workdir, "lr_sweep")
    coarse = tuple(fine["learning_rates"][::2])
    config = edited_config("lr_sweep", sweep__learning_rates=coarse, sweep__refine=1.78)
    outcome, _ = run(config, tmp_path)
    for key in ("status", "max_train_steps", "best_learning_rate"):
        assert outcome[key] == fine[key]
    assert 0 < outcome["refinements"] < len(fine["learning_rates"]) - len(coarse)
    assert set(outcome["learning_rates"]) < set(fine["learning_rates"])


def test_further_seeds_race_around_the_best_as_if_alone(completed_workdir, tmp_path):
    alone = outcome_of(completed_workdir, "lr_sweep")
    rates = (0.1, 0.1778, 0.3162)
    config = edited_config("lr_sweep", sweep__learning_rates=rates, sweep__seeds=2)
    outcome, _ = run(config, tmp_path / "two")
    first, second = outcome["seeds"]
    assert first["max_train_steps"] == alone["max_train_steps"]
    assert second["best_learning_rate"] != first["best_learning_rate"]
    assert outcome["max_train_steps"] == max(o["max_train_steps"] for o in (first, second))
    # The second seed's best lay at the edge of the three, so that it tried one more.
    assert [r.seed for r in read_trials(tmp_path / "two" / "lr_sweep")] == [0] * 3 + [1] * 4
    config = edited_config("lr_sweep", sweep__learning_rates=rates, seed=1)
    lone, _ = run(config, tmp_path / "one")
    assert lone["max_train_steps"] == second["max_train_steps"]
    assert lone["best_learning_rate"] == second["best_learning_rate"]


def test_trials_keep_their_best_latest_and_pinned_checkpoints(completed_workdir):
    for record in read_trials(completed_workdir / "round1"):
        folder = completed_workdir / "round1" / "trials" / f"{record.trial:04d}"
        pin = record.schedule.decay_start_step
        saved = TrialCheckpoints(folder).steps()
        assert {record.best_step, pin, record.max_train_steps} <= set(saved)
        assert len(saved) <= 4
        assert len(record.rows) >= 40
        assert record.rows[-1]["step"] == record.max_train_steps


def test_of_the_trials_that_a_sweep_stops_the_best_alone_leaves_its_checkpoints(completed_workdir):
    study = open_study(completed_workdir / "lr_sweep")
    stopped = [trial for trial in study.trials if trial.record.status == "stopped"]
    saved = {t.record.trial: TrialCheckpoints(t.folder).steps() for t in stopped}
    best = study.best_trial.record
    assert best.best_step in saved.pop(best.trial) and best.fitted_at_step is not None
    assert len(saved) > 5 and not any(saved.values())


def test_a_continued_trial_is_the_one_from_scratch_bit_for_bit(completed_workdir, digits):
    config = parse_config(load_config_file(REPOSITORY / "configs" / "round2.py"))
    record = read_trials(completed_workdir / "round2")[0]
    assert record.reused_from["study"] == "round1" and record.reused_from["step"] > 500
    values = {k: v for k, v in record.hyperparameters.items() if not k.startswith("schedule.")}
    scratch = start_trial(
        digits, replace_fields(config, values), record.schedule, frozenset(record.hyperparameters)
    )
    rows = [scratch.advance(row["step"]).row for row in record.rows]
    assert rows == list(record.rows)
    folder = completed_workdir / "round2" / "trials" / "0000"
    restored = TrialCheckpoints(folder).restore(record.max_train_steps, scratch.state)
    assert_identical(restored, scratch.state)


def test_a_schedule_without_a_rule_is_not_carried_over(workdir):
    shutil.rmtree(workdir / "round2")
    for record in read_trials(workdir / "round1"):
        old = record.schedule
        schedule = Schedule(
            old.base_learning_rate, old.warmup_steps, 0, old.total_steps - old.warmup_steps,
            "inverse_sqrt", timescale_steps=50,
        )  # fmt: skip
        write_trial(workdir / "round1", dataclasses.replace(record, schedule=schedule))
    conclude_again(workdir / "round1")
    with pytest.raises(UserError, match=r"round1: .* no constant period .* decay = 'linear'"):
        run(edited_config("round2"), workdir)
    assert not (workdir / "round2").exists()


def test_nothing_is_taken_over_where_more_than_the_schedule_differs(workdir):
    shutil.rmtree(workdir / "round2")
    config = edited_config("round2", data__batch_size=32, max_train_steps=1100,
                           max_train_steps_factor=1.0)  # fmt: skip
    outcome, _ = run(config, workdir)
    assert outcome["steps_reused"] == 0
    assert outcome["steps_trained"] == 2 * 1100


def test_a_cosine_is_extended_and_only_its_warmup_is_taken_over(tmp_path):
    first = tmp_path / "short.py"
    first.write_text(
        "from budgetflow.config import default_config\n"
        "def get_config():\n"
        "    config = default_config('round')\n"
        "    config.max_train_steps = 60\n"
        "    config.model.hidden_sizes = (16,)\n"
        "    config.schedule.decay = 'cosine'\n"
        "    config.schedule.warmup_steps = 13\n"
        "    return config\n"
    )
    second = tmp_path / "long.py"
    second.write_text(
        "from budgetflow.config import building_on\n"
        "def get_config():\n"
        f"    config = building_on({str(first)!r}, 'round')\n"
        "    config.max_train_steps_factor = 2.5\n"
        "    config.search.promote_trials = 1\n"
        "    return config\n"
    )
    outcome, _ = run(load_config_file(second), tmp_path / "runs")
    to = outcome["transfer"]["to"]
    assert (to["warmup_steps"], to["decay_steps"], to["decay"]) == (13, 137, "cosine")
    assert to["base_learning_rate"] == outcome["transfer"]["from"]["base_learning_rate"]
    assert outcome["steps_reused"] == 13


def test_a_grid_of_too_small_learning_rates_finds_the_same_answer(completed_workdir, tmp_path):
    good = outcome_of(completed_workdir, "lr_sweep")
    config = edited_config("lr_sweep", sweep__learning_rates=(0.01, 0.01778, 0.03162))
    outcome, _ = run(config, tmp_path)
    assert outcome["status"] == "found" and outcome["extensions"] > 0
    # One point of the grid is a ratio of 1.78.
    assert 1 / 1.79 < outcome["best_learning_rate"] / good["best_learning_rate"] < 1.79
    assert outcome["max_train_steps"] == pytest.approx(good["max_train_steps"], rel=0.1)


def test_too_few_steps_are_not_fitted_and_more_are_suggested(tmp_path):
    outcome, output = run(edited_config("lr_sweep", max_train_steps=60), tmp_path)
    assert outcome["status"] == "not_fitted"
    assert outcome["max_train_steps"] is None
    assert outcome["not_fitted_because"] == "n_too_small"
    suggestion = outcome["suggested_max_train_steps"]
    assert f"--config.max_train_steps={suggestion}" in output
    assert (tmp_path / "lr_sweep" / "report.html").exists()
    outcome, _ = run(edited_config("lr_sweep", max_train_steps=suggestion, name="again"), tmp_path)
    assert outcome["status"] == "found"


def test_a_round_does_not_build_on_a_sweep_without_an_answer(tmp_path):
    run(edited_config("lr_sweep", max_train_steps=2000, sweep__max_extensions=0,
                      sweep__learning_rates=(0.1, 0.2)), tmp_path)  # fmt: skip
    assert outcome_of(tmp_path, "lr_sweep")["status"] == "at_boundary"
    first = tmp_path / "lr_sweep.py"
    first.write_text(
        (REPOSITORY / "configs" / "lr_sweep.py")
        .read_text()
        .replace("log_grid(0.01, 1.0, 9)", "(0.1, 0.2); config.sweep.max_extensions = 0")
    )
    config = edited_config("round1", builds_on=str(first))
    with pytest.raises(UserError, match=r"found none \(at_boundary\)"):
        run(config, tmp_path)


def test_a_round_in_which_everything_diverges_says_so(tmp_path):
    space = (log_uniform("schedule.base_learning_rate", 1e28, 1e30),)
    config = edited_config("round1", max_train_steps=20, search__trials=3, search__space=space,
                           max_train_steps_factor=1.0, builds_on=None)  # fmt: skip
    outcome, output = run(config, tmp_path)
    assert outcome["best_trial"] is None and outcome["diverged"] == 3
    assert outcome["best_step_diagnosis"]["verdict"] == "undecided"
    assert "Every trial diverged" in output
    frame = open_study(tmp_path / "round1").to_pandas()
    assert (frame["status"] == "diverged").all()
    assert (frame["step"] < 20).all()


def test_results_of_another_config_are_never_overwritten(workdir):
    before = everything_recorded(workdir / "lr_sweep")
    with pytest.raises(
        UserError, match=r"another config, code or data \(they differ in data.batch_size\)"
    ):
        run(edited_config("lr_sweep", data__batch_size=32), workdir)
    assert everything_recorded(workdir / "lr_sweep") == before


def test_parameters_are_those_that_scored_the_best_validation(completed_workdir, digits):
    study = open_study(completed_workdir / "round2")
    params = study.best_trial.restore_params()
    arrays = digits.validation.arrays
    x = arrays["inputs"].reshape(len(arrays["inputs"]), -1) / np.float32(255)
    for layer in ("0", "1"):
        x = np.maximum(x @ params["hidden"][layer]["kernel"] + params["hidden"][layer]["bias"], 0)
    outputs = x @ params["output"]["kernel"] + params["output"]["bias"]
    error_rate = (outputs.argmax(-1) != arrays["targets"]).mean()
    assert error_rate == pytest.approx(study.outcome["best_validation"]["error_rate"])
    step = study.outcome["best_step"]
    folder = completed_workdir / "round2" / "trials" / f"{study.outcome['best_trial']:04d}"
    assert int(restore_as_numpy(folder, step)["step"]) == step
    assert jax.tree.leaves(params)[0].dtype == np.float32


def test_schedules_on_disk_are_the_ones_trained(completed_workdir):
    for record in read_trials(completed_workdir / "round2"):
        assert isinstance(record.schedule, Schedule)
        rates = record.schedule.learning_rates()
        assert len(rates) == record.max_train_steps
        for row in record.rows:
            assert row["learning_rate"] == pytest.approx(float(rates[row["step"] - 1]), rel=1e-6)
