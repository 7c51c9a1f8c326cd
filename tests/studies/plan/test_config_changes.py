"""What a study says of a length that was found on another config."""

import pytest
from conftest import edited_config, run

from budgetflow.cli.launch import load_chain
from budgetflow.config import default_config
from budgetflow.config.schema import to_json
from budgetflow.studies.kinds import kind_of
from budgetflow.studies.plan.config_changes import changes_since_sweep
from budgetflow.studies.study import study_dataset


def said(**fields):
    earlier, config = load_chain(edited_config("round1", **fields))
    return changes_since_sweep(config, to_json(earlier), kind_of(earlier), study_dataset(config))


def test_round_1_of_the_digits():
    noise, either = said()
    assert noise == (
        "The answer of lr_sweep was found on another configuration. Here "
        "augmentation.shift_pixels = 1 instead of 0, regularization.dropout_rate = 0 to 0.4 "
        "instead of 0 and regularization.weight_decay = 1e-05 to 0.01 instead of 0 bring more "
        "gradient noise or regularization, so more steps are needed: config.max_train_steps_factor "
        "= 4 stands for that, unmeasured (config.kind = 'comparison' measures it)."
    )
    assert either.startswith(
        "config.optimizer.momentum = 0.8 to 0.98 instead of 0.9 and schedule.decay = linear "
        "instead of none can push the number of steps either way from the answer of lr_sweep: "
    )


def test_batches_and_models():
    noise, fewer, either = said(data__batch_size=128, model__hidden_sizes=(64,))
    assert "augmentation.shift_pixels" in noise
    assert fewer.startswith("config.data.batch_size = 128 instead of 64 makes gradients less noisy")
    assert "model.hidden_sizes = [64] instead of [128, 128]" in either
    # Another model's arguments are its own.
    *_, renamed = said(model__name="budgetflow.models.ConvNet")
    assert "model.name = budgetflow.models.ConvNet instead of budgetflow.models.MLP" in renamed


def test_a_length_of_its_own_or_of_a_round_departs_from_nothing():
    assert said(max_train_steps=500, max_train_steps_factor=1.0) == ()
    first, config = load_chain(edited_config("round2"))[-2:]
    assert changes_since_sweep(config, to_json(first), kind_of(first), study_dataset(config)) == ()


@pytest.mark.slow
def test_the_dry_run_and_the_outcome_say_so(tmp_path):
    sweep = tmp_path / "found.py"
    sweep.write_text(
        "from budgetflow.config import default_config\n"
        "def get_config():\n"
        "    config = default_config('lr_sweep')\n"
        "    config.max_train_steps = 400\n"
        "    config.data.train_split = 'train[:100]'\n"
        "    config.model.hidden_sizes = (16,)\n"
        "    config.sweep.learning_rates = (0.01, 0.1, 1.0)\n"
        "    return config\n"
    )
    config = default_config("round")
    config.name, config.builds_on = "after", str(sweep)
    config.data.train_split = "train[:100]"
    config.model.hidden_sizes = (16,)
    config.data.batch_size = 16
    config.max_train_steps_factor = 2.0
    config.evaluation.evaluations = 4
    sentence = (
        "The answer of found was found on another configuration. Here data.batch_size = 16 "
        "instead of 64 brings more gradient noise or regularization, so more steps are needed: "
        "config.max_train_steps_factor = 2 stands for that, unmeasured (config.kind = "
        "'comparison' measures it)."
    )
    _, planned = run(config, tmp_path / "runs", dry_run=True)
    assert f"after: {sentence}" in planned
    outcome, _ = run(config, tmp_path / "runs")
    assert sentence in outcome["reasons"]
