"""What trials take over from each other, in real studies: bit for bit, counted, or why not."""

import dataclasses
import json
import shutil

import pytest
from conftest import assert_as_from_scratch, assert_identical, conclude_again, run, write_chain
from test_trial_run import NormModel

from budgetflow.base.files import read_json, write_json
from budgetflow.config import default_config, load_config_file, parse_config
from budgetflow.config.keys import replace_fields
from budgetflow.engine.checkpoints import restore_as_numpy
from budgetflow.engine.training.mesh import make_mesh
from budgetflow.playbook.common.measurement import Selection
from budgetflow.results.reading import open_study
from budgetflow.studies.plan.reuse import why_not_reused
from budgetflow.studies.plan.round_trials import round_plans
from budgetflow.studies.store.keys import state_key
from budgetflow.studies.store.trial import read_trial, read_trials, write_trial
from budgetflow.studies.study import study_dataset

# Between them: momentum, adam's moments, batch statistics, averaged parameters, the keys of dropout
# and augmentation (in all of them), data in memory and streamed.
STATES = {
    "momentum": {"optimizer.nesterov": True},
    "adam, averaged parameters": {"optimizer": {"name": "adam"}, "ema_decay": 0.9},
    "batch statistics": {
        "model": {"name": f"{NormModel.__module__}.NormModel"}, "regularization.dropout_rate": 0.0,
    },
    "streamed": {
        "data.in_memory_bytes": 0, "data.train_split": "train[:256]",
        "data.validation_split": "validation[:64]",
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_what_is_taken_over_is_bit_for_bit_the_run_from_scratch(tmp_path, state):
    config = write_chain(tmp_path, STATES[state])
    outcome, _ = run(config, tmp_path)
    first, second = (read_trials(tmp_path / name) for name in ("first", "second"))
    # Within a study: the decays of 10 and of 20 steps leave the run that is there before.
    assert [record.reused_from for record in first] == [
        None,
        {"study": "first", "trial": 0, "step": 30},
        {"study": "first", "trial": 1, "step": 40},
    ]
    ledger = json.loads((tmp_path / "first" / "outcome.json").read_text())
    assert (ledger["steps_trained"], ledger["steps_reused"]) == (110, 70)
    # Across studies: from the trial that decays last, whichever was promoted.
    assert second[0].reused_from == {"study": "first", "trial": 1, "step": 50}
    assert (outcome["steps_trained"], outcome["steps_reused"]) == (70, 50)
    dataset = study_dataset(parse_config(config))
    assert_as_from_scratch(tmp_path / "first", parse_config(config), dataset)
    assert_as_from_scratch(tmp_path / "second", parse_config(config), dataset)
    if config.ema_decay:
        trial = open_study(tmp_path / "second").best_trial
        saved = restore_as_numpy(trial.folder, trial.record.best_step)
        assert_identical(trial.restore_params(), saved["ema_params"])
        assert (saved["params"]["output"]["bias"] != saved["ema_params"]["output"]["bias"]).any()


def test_a_study_that_lost_trials_is_the_same_again(studies, chain):
    config = load_config_file(chain[0] / "first.py")

    def recorded():
        paths = (studies / "first").rglob("*.json*")
        names = ("outcome.json", "trial.json", "measurements.jsonl")
        return {str(path): path.read_text() for path in paths if path.name in names}

    before = recorded()
    for lost in ([2], [1, 2], [0]):
        (studies / "first" / "outcome.json").unlink()
        for number in lost:
            shutil.rmtree(studies / "first" / "trials" / f"{number:04d}")
        run(config, studies)
        assert recorded() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"data.batch_size": 32}, "differ in data.batch_size"),
        ({"ema_decay": 0.5, "seed": 3}, "differ in ema_decay, seed"),
        (
            {"clip_gradient_norm": 1.0},
            "differ in clip_gradient_norm",
        ),
    ],
)
def test_where_more_than_the_schedule_differs_all_is_trained_and_it_is_said_why(
    studies, chain, fields, why
):
    config = load_config_file(chain[0] / "second.py")
    config.update_from_flattened_dict(fields)
    outcome, _ = run(config, studies)
    assert (outcome["steps_trained"], outcome["steps_reused"]) == (120, 0)
    (said,) = [reason for reason in outcome["reasons"] if "could not continue" in reason]
    assert why in said


@pytest.mark.parametrize(
    ("keys", "value"), [(("libraries", "jax"), "0.1"), (("devices", "kind"), "TPU v4")]
)
def test_other_libraries_and_devices_are_named(studies, chain, keys, value):
    for path in (studies / "first").glob("trials/*/trial.json"):
        record = read_json(path)
        record["reuse_key"][keys[0]][keys[1]] = value
        write_json(path, record)
    conclude_again(studies / "first")
    outcome, _ = run(chain[1], studies)
    assert outcome["steps_reused"] == 0
    assert any(f"they differ in {'.'.join(keys)}" in reason for reason in outcome["reasons"])


def test_a_trial_that_went_on_under_other_conditions_is_nobody_elses_beginning(
    digits, studies, chain
):
    def killed_at_step_30():
        record = read_trial(studies / "first" / "trials" / "0000")
        record = record.back_to(30, Selection("validation_error_rate"))
        return dataclasses.replace(record, status="running")

    record = killed_at_step_30()
    record.reuse_key["devices"]["kind"] = "TPU v4"  # it was on another device
    write_trial(studies / "first", record)
    (studies / "first" / "outcome.json").unlink()
    run(load_config_file(chain[0] / "first.py"), studies)
    trials = read_trials(studies / "first")
    key = trials[0].reuse_key
    assert key["resumed_with_another"] == ["devices.kind"]
    # What continued it before does so still. One that is added now trains all of its steps.
    (studies / "first" / "outcome.json").unlink()
    shutil.rmtree(studies / "first" / "trials" / "0001")
    write_trial(studies / "first", killed_at_step_30())
    outcome, _ = run(load_config_file(chain[0] / "first.py"), studies)
    again = read_trials(studies / "first")
    assert again[0].reuse_key == key
    assert again[1].reused_from is None and again[2].reused_from == trials[2].reused_from
    (said,) = [reason for reason in outcome["reasons"] if "could not continue" in reason]
    assert said.startswith("Trial 1 trained all steps") and "resumed_with_another" in said
    mesh = make_mesh(parse_config(chain[1]).mesh)
    plans = round_plans(
        parse_config(chain[1]), digits, mesh, Selection("validation_error_rate"), studies / "first"
    )
    ours = plans[0].state_key(digits, mesh)
    assert "resumed_with_another" in why_not_reused(key, ours)


def test_trials_of_an_older_version_are_read_and_not_continued(studies, chain):
    for path in (studies / "first").glob("trials/*/trial.json"):
        record = read_json(path)
        for key in ("reuse_key", "not_reused_because", "measurements_checksum"):
            del record[key]
        # They carry no checksums.
        path.write_text(json.dumps({**record, "trajectory": "0123"}))
    outcome = read_json(studies / "first" / "outcome.json")
    (studies / "first" / "outcome.json").write_text(json.dumps(outcome))
    outcome, _ = run(chain[1], studies)
    assert outcome["steps_reused"] == 0
    assert any("does not say what its states depend on" in r for r in outcome["reasons"])


def test_the_key_knows_what_states_depend_on(digits):
    config = default_config("round")
    config.max_train_steps = 10

    def key(**fields):
        changed = replace_fields(parse_config(config), fields)
        return state_key(changed, digits, frozenset(), make_mesh(changed.mesh, 1), False)

    base = key()
    assert why_not_reused(base, json.loads(json.dumps(base))) is None
    assert base == json.loads(json.dumps(base))
    # What can change the states is told apart; what cannot is not.
    for name, value in (
        ("seed", 1),
        ("model.hidden_sizes", (3,)),
        ("optimizer.momentum", 0.5),
        ("precision", "bfloat16"),
        ("data.train_split", "train[:50]"),
        ("regularization.weight_decay", 0.1),
    ):
        assert name in why_not_reused(base, key(**{name: value}))
    for name, value in (
        ("schedule.base_learning_rate", 0.5),
        ("max_train_steps", 20),
        ("data.in_memory_bytes", 0),
        ("evaluation.evaluations", 3),
        ("name", "other"),
    ):
        assert why_not_reused(base, key(**{name: value})) is None
