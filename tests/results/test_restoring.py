"""A trial's model is read back as it was evaluated, whatever it is made of."""

import shutil
import warnings

import numpy as np
import pytest
from conftest import run
from flax import nnx

import budgetflow
from budgetflow.base.errors import UserError
from budgetflow.config import default_config
from budgetflow.engine.data.source import load_dataset


@pytest.fixture(scope="module")
def images():
    """The validation images and their labels, as the data set holds them."""
    return load_dataset("digits", "train", "validation", None).validation.arrays


@pytest.fixture(scope="module")
def normalised(tmp_path_factory):
    """The folder of a study of a network with batch normalisation, in a list of blocks."""
    config = default_config("round")
    config.name = "normalised"
    config.max_train_steps = 40
    config.evaluation.evaluations = 4
    config.ema_decay = 0.5
    config.model = {"name": "budgetflow.models.ResNet", "channels": (4, 8), "blocks": 1}
    folder = tmp_path_factory.mktemp("normalised")
    run(config, folder)
    return folder / "normalised"


def share_wrong(outputs, images):
    return (outputs.argmax(axis=-1) != images["targets"]).mean()


def test_predictions_have_the_error_rate_that_was_measured(completed_workdir, normalised, images):
    for folder in (completed_workdir / "round2", normalised):
        trial = budgetflow.open_study(folder).best_trial
        for step in ("best", trial.record.max_train_steps):
            measured = trial.record.best_step if step == "best" else step
            row = next(row for row in trial.record.rows if row["step"] == measured)
            outputs = trial.predict(images["inputs"], step)
            assert outputs.shape == (270, 10) and outputs.dtype == np.float32
            assert share_wrong(outputs, images) == pytest.approx(row["validation_error_rate"])


def test_the_model_comes_back_in_evaluation_mode_with_its_statistics(normalised, images):
    trial = budgetflow.open_study(normalised).best_trial
    model = trial.restore_model()
    assert type(model).__name__ == "ResNet"
    outputs = np.asarray(model(images["inputs"][:7] / np.float32(255)))
    assert outputs == pytest.approx(trial.predict(images["inputs"][:7]), abs=1e-4)
    norms = [m for _, m in nnx.iter_modules(model) if isinstance(m, nnx.BatchNorm)]
    assert norms and all(norm.use_running_average for norm in norms)
    assert any(np.any(np.asarray(norm.mean[...]) != 0) for norm in norms)


def test_inputs_that_are_not_as_in_training_are_refused(completed_workdir, images):
    trial = budgetflow.open_study(completed_workdir / "round2").best_trial
    inputs = images["inputs"]
    # Whole numbers of another type are the same pixels.
    assert (trial.predict(inputs[:5].astype(int)) == trial.predict(inputs[:5])).all()
    for bad, message in (
        (inputs[0], r"shape \[8, 8, 1\]: should be \[examples, 8, 8, 1\]"),
        (inputs / 255, "type float64: should be uint8"),
        (inputs.astype(int) + 200, "type int64: should be uint8"),
        (inputs[:0], "hold 0 examples"),
    ):
        with pytest.raises(UserError, match=message):
            trial.predict(bad)


def test_another_models_code_is_warned_of(completed_workdir):
    trial = budgetflow.open_study(completed_workdir / "round2").best_trial
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trial.restore_model()
    trial.record.reuse_key["code"]["model.name"]["budgetflow"] = "another"
    with pytest.warns(UserWarning, match="budgetflow changed since"):
        trial.restore_model()
    trial.record.reuse_key.clear()
    with pytest.raises(UserError, match="earlier version"):
        trial.restore_model()


def test_a_copy_elsewhere_that_cannot_be_written_is_read(workdir, tmp_path, images, monkeypatch):
    elsewhere = shutil.copytree(workdir / "round2", tmp_path / "elsewhere" / "round2")
    shutil.rmtree(workdir)
    for path in [*elsewhere.rglob("*"), elsewhere]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(elsewhere.rglob("*"))
    try:
        monkeypatch.chdir(elsewhere.parent)
        trial = budgetflow.open_study("round2").best_trial  # by a relative path
        assert trial.restore_params()["hidden"]["0"]["kernel"].shape == (64, 128)
        assert share_wrong(trial.predict(images["inputs"]), images) < 0.05
        assert sorted(elsewhere.rglob("*")) == before
    finally:
        for path in [elsewhere, *elsewhere.rglob("*")]:
            path.chmod(0o755)
