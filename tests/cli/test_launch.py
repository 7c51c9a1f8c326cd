import os
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY, edited_config, run

from budgetflow.base.errors import ConfigError, UserError
from budgetflow.cli import launch
from budgetflow.cli.launch import load_chain
from budgetflow.config import choices, load_config_file, log_uniform
from budgetflow.results.reading import open_study
from budgetflow.studies.plan import chain as studies_of_chain


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "budgetflow.launch", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_help_helps():
    result = command("--help")
    assert result.returncode == 0
    for flag in ("--config", "--workdir", "dry_run"):
        assert flag in result.stdout


@pytest.mark.slow
def test_compiled_programs_are_kept_for_later_launches(tmp_path):
    def sweep(workdir, cache):
        result = command(
            "--config=configs/lr_sweep.py",
            # Relative, as a user gives it.
            f"--workdir={os.path.relpath(tmp_path / workdir, REPOSITORY)}",
            f"--compilation_cache_dir={cache}",
            "--config.sweep.learning_rates=(0.1, 0.2, 0.4)",
            # Where the machine is busy, the trials would be timed, and run two at a time.
            "--config.mesh.trial=1",
        )
        assert result.returncode == 0, result.stderr
        return open_study(tmp_path / workdir / "lr_sweep").outcome

    cache = tmp_path / "cache"
    first = sweep("first", cache)
    kept = {path.name for path in cache.iterdir()}
    assert sweep("again", cache) == first
    assert {path.name for path in cache.iterdir()} == kept != set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("lm_rounds", ["rounds.budget_steps=280", "evaluation.train_examples=16"]),
        ("regression_rounds", ["rounds.budget_steps=320", "rounds.first_round_fraction=0.2"]),
    ],
)
def test_planned_rounds_of_real_data_in_short(name, fields, tmp_path):
    """From the plan to the verdict: what their configs are for, with less of it."""
    short = ["rounds.production_steps=20", "schedule.warmup_steps=1", "evaluation.evaluations=2"]
    result = command(
        f"--config=configs/{name}.py",
        f"--workdir={tmp_path}",
        *(f"--config.{field}" for field in (*short, *fields)),
    )
    assert (result.returncode, result.stderr) == (0, "")
    for text in ("The plan", "What was carried over", "earlier round's choice held", "Summary"):
        assert text in result.stdout
    earlier, last = (open_study(tmp_path / each) for each in (f"{name}_round1", name))
    assert last.outcome["max_train_steps"] == 20
    assert [row["field"] for row in last.outcome["carried_over"]] == [
        dimension["name"] for dimension in earlier.config["search"]["space"]
    ]
    assert last.outcome["held"]["settings"] == 2
    ideas = [idea["name"] for idea in last.outcome.get("ideas") or ()]
    promoted = [i["name"] for i in earlier.outcome.get("ideas") or () if i["status"] == "promoted"]
    assert ideas == promoted
    assert (tmp_path / name / "report.html").stat().st_size > 10_000


def test_reports_are_imported_once_a_study_is_resolved(studies, chain, monkeypatch):
    """In Python 3.11 it fails now and then to parse code and matplotlib's settings at once."""
    calls = []

    def watched(module, name):
        function = getattr(module, name)

        def call(*arguments):
            calls.append(name)
            return function(*arguments)

        monkeypatch.setattr(module, name, call)

    watched(studies_of_chain, "resolve")
    watched(launch, "_prepare_reports")
    watched(launch, "_show")
    shutil.rmtree(studies / "first")
    run(chain[1], studies)
    # The report, which waits for the import, is written before the next study is resolved.
    assert calls == ["resolve", "_prepare_reports", "_show"] * 2
    calls.clear()
    run(chain[1], studies)
    assert calls == ["resolve", "_show"] * 2


def test_a_complete_chain_trains_nothing_and_says_so(workdir):
    result = command("--config=configs/round2.py", f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    assert "nothing was trained" in result.stdout
    assert result.stderr == ""


def test_the_summary_says_what_was_found(completed_workdir):
    output = (completed_workdir / "output.txt").read_text()
    summary = output[output.index("Summary") :]
    for text in ("lr_sweep", "max_train_steps = ", "test error rate", "report.html", "open_study"):
        assert text in summary


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, completed_workdir):
    config = load_config_file(REPOSITORY / "configs" / "round2.py")
    outcome, plan = run(config, tmp_path / "runs", dry_run=True)
    assert outcome is None
    assert not (tmp_path / "runs").exists()
    for text in ("lr_sweep", "9 to 17", "at most 2000", "4 x that of lr_sweep", "to run"):
        assert text in plan
    _, plan = run(config, completed_workdir, dry_run=True)
    assert plan.count("complete") == 3


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "round1",
            {"search__space": (choices("max_train_steps", 10, 20),)},
            "never tune the number of steps within a study",
        ),
        ("round1", {"search__space": (choices("data.name", "digits"),)}, "cannot vary 'data.name'"),
        (
            "round1",
            {"search__space": (log_uniform("schedule.learning_rate", 0.1, 1.0),)},
            "did you mean 'base_learning_rate'",
        ),
        (
            "round1",
            {"search__space": (log_uniform("optimizer.momentun", 0.1, 0.9),)},
            "did you mean 'momentum'",
        ),
        (
            "round1",
            {"search__space": (choices("schedule.base_learning_rate", -0.1),)},
            "base_learning_rate = -0.1",
        ),
        (
            "round1",
            {"search__space": (log_uniform("optimizer.momentum", 0.1, 0.9),) * 2},
            "optimizer.momentum twice",
        ),
        ("round1", {"search__method": "grid", "search__trials": None}, "grid search needs choices"),
        ("round1", {"max_train_steps": 100, "max_train_steps_factor": 1.0,
                    "schedule__warmup_fraction": 0.9}, "longer than"),
        ("round1", {"data__validation_split": "dev"}, "digits has no such split"),
        ("round2", {"search__promote_trials": 0, "schedule__decay": "cosine",
                    "schedule__decay_steps": 9, "schedule__decay_fraction": 0.1,
                    "max_train_steps": 50, "max_train_steps_factor": 1.0}, "both decay_steps"),
    ],
)  # fmt: skip
def test_a_bad_config_is_refused_before_anything_is_written(tmp_path, name, fields, message):
    with pytest.raises(ConfigError, match=message):
        run(edited_config(name, **fields), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_chain_that_leads_back_to_itself_is_refused(tmp_path):
    path = tmp_path / "loop.py"
    path.write_text(
        "from budgetflow.config import default_config\n"
        "def get_config():\n"
        "    config = default_config('round')\n"
        "    config.builds_on = __file__\n"
        "    return config\n"
    )
    with pytest.raises(ConfigError, match="builds on itself"):
        load_chain(load_config_file(path))


def test_more_trials_than_there_are_cannot_be_promoted(workdir):
    shutil.rmtree(workdir / "round2")
    with pytest.raises(UserError, match="round1 has only 16 trials"):
        run(edited_config("round2", search__promote_trials=17), workdir)


def test_a_round_cannot_be_shorter_than_the_one_it_promotes(workdir):
    shutil.rmtree(workdir / "round2")
    with pytest.raises(ConfigError, match="cannot be carried over to fewer"):
        run(edited_config("round2", max_train_steps=50, max_train_steps_factor=1.0), workdir)
