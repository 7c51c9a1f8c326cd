"""Asked to stop at any step, a study saves all, and goes on to the very same results."""

import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY, edited_config, run
from etils import epath
from test_controller import everything_recorded

from budgetflow.base import stopping
from budgetflow.base.files import read_json, write_json
from budgetflow.cli.launch import load_chain
from budgetflow.config import load_config_file
from budgetflow.engine.checkpoints import TrialCheckpoints
from budgetflow.studies.run.controller import run_study
from budgetflow.studies.run.live_trials import STOPPED_AT, noticed_between
from budgetflow.studies.store.trial import read_trial, read_trials, trial_folder
from budgetflow.studies.study import resolve


@pytest.fixture
def asked():
    yield stopping._asked
    stopping._asked.clear()


def launches_until_done(config, workdir, asked):
    """Launches a study that is asked to stop at its first call each time; how often."""
    launches = 0
    while True:
        launches += 1
        study = load_chain(config)[-1]
        asked.set()
        try:
            run_study(resolve(study, workdir / study.name, None), lambda records, steps: None)
        except stopping.StoppedError:
            asked.clear()
            continue
        return launches


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("lr_sweep", {"sweep__learning_rates": (0.1, 0.3), "sweep__max_extensions": 0}),
        ("first", {}),
    ],
)
def test_a_study_that_is_stopped_at_every_call_is_the_undisturbed_one(
    tmp_path, chain, asked, name, fields
):
    def config():
        if name == "lr_sweep":
            return edited_config(name, **fields)
        loaded = load_config_file(chain[0] / "first.py")
        # More steps between evaluations than a call makes.
        loaded.update(max_train_steps=300, evaluation={"evaluations": 2})
        return loaded

    run(config(), tmp_path / "undisturbed")
    launches = launches_until_done(config(), epath.Path(tmp_path / "stopped"), asked)
    assert launches > 5
    found, expected = (
        everything_recorded(tmp_path / folder / name) for folder in ("stopped", "undisturbed")
    )
    between = [path for path in found if path.endswith("stopped_at.json")]
    assert between
    assert {path: found[path] for path in found if path not in between} == expected


def test_what_a_trial_had_noticed_is_not_believed_of_another(tmp_path, chain, asked):
    config = load_config_file(chain[0] / "first.py")
    config.update(max_train_steps=300, evaluation={"evaluations": 2})
    run(config, tmp_path / "undisturbed")
    study = resolve(load_chain(config)[-1], epath.Path(tmp_path / "stopped" / "first"), None)
    asked.set()
    with pytest.raises(stopping.StoppedError):
        run_study(study, lambda records, steps: None)
    asked.clear()
    (path,) = (tmp_path / "stopped").rglob("stopped_at.json")
    content = read_json(path)
    assert 0 < content["step"] < 150 and content["fitted_at_step"] == -1
    # Another trial's, stopped at the same step, that had diverged; and one that is damaged.
    for spoilt in ({**content, "trial": 7, "diverged_at_step": 3}, None):
        copy = tmp_path / ("another" if spoilt else "damaged")
        shutil.copytree(tmp_path / "stopped", copy)
        write_json(copy / path.relative_to(tmp_path / "stopped"), spoilt or {})
        if spoilt is None:
            (copy / path.relative_to(tmp_path / "stopped")).write_text("{")
        run(config, copy)
        found, expected = (
            everything_recorded(f / "first") for f in (copy, tmp_path / "undisturbed")
        )
        assert {n: t for n, t in found.items() if "stopped_at" not in n} == expected


@pytest.mark.parametrize(
    "killed_in",
    [
        "orbax.checkpoint.StandardCheckpointer.save",
        "budgetflow.studies.run.live_trials.write_json",
    ],
)
def test_a_stop_that_is_killed_loses_no_more_than_since_the_last_one(
    tmp_path, chain, asked, monkeypatch, killed_in
):
    config = load_config_file(chain[0] / "first.py")
    config.update(max_train_steps=300, evaluation={"evaluations": 2})
    run(config, tmp_path / "undisturbed")
    folder = epath.Path(tmp_path / "stopped" / "first")

    def stop(expected):
        asked.set()
        with pytest.raises(expected):
            run_study(resolve(load_chain(config)[-1], folder, None), lambda records, steps: None)
        asked.clear()
        (path,) = folder.glob(f"trials/*/{STOPPED_AT}")
        record = read_trial(path.parent)
        return noticed_between(record, TrialCheckpoints(path.parent))

    def killed(path, *arguments):
        if not killed_in.endswith("write_json") or path.name == STOPPED_AT:
            raise KeyboardInterrupt
        write_json(path, *arguments)

    before = stop(stopping.StoppedError)
    assert before["step"] > 0
    with monkeypatch.context() as patch:
        patch.setattr(
            killed_in,
            killed,
        )
        assert stop(KeyboardInterrupt) == before
    assert stop(stopping.StoppedError)["step"] > before["step"]
    run(config, tmp_path / "stopped")
    found, expected = (
        everything_recorded(tmp_path / name / "first") for name in ("stopped", "undisturbed")
    )
    assert {n: t for n, t in found.items() if "stopped_at" not in n} == expected


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_launcher_that_is_signalled_saves_all_and_says_so(tmp_path, number):
    command = [sys.executable, "-m", "budgetflow.launch", "--config=configs/lr_sweep.py"]
    # One that takes long: no loss is that low.
    command += ["--config.max_train_steps=100000", "--config.sweep.fitted_train_loss=1e-30"]
    command.append(f"--workdir={tmp_path}")
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while not any(tmp_path.glob("*/trials/*/measurements.jsonl")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, error = process.communicate(timeout=30)
    assert process.returncode == stopping.STOPPED_STATUS
    said = "budgetflow: stopped, all saved; launch again to go on from here\n"
    if number == signal.SIGINT:
        said = f"budgetflow: saving every trial; interrupt again to end at once\n{said}"
    assert error == said
    running = [record for record in read_trials(tmp_path / "lr_sweep") if record.step]
    assert running
    for record in running:
        saved = TrialCheckpoints(trial_folder(tmp_path / "lr_sweep", record.trial)).steps()
        assert max(saved) >= record.step
