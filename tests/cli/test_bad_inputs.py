"""Every bad input is refused in one line, which names key, value and what would be valid."""

import dataclasses
import math
import os
import re
import subprocess
import sys
import types
import typing
from typing import Annotated, Literal

import pytest
from bad_configs import CONFIGS, FILE, WRITTEN
from conftest import REPOSITORY

from budgetflow.base import processes
from budgetflow.base.errors import UserError
from budgetflow.base.workdir import open_workdir
from budgetflow.cli import command_line
from budgetflow.cli.command_line import flag_values
from budgetflow.cli.launch import check, load_chain, run
from budgetflow.cli.launch_flags import FLAGS, parse_steps
from budgetflow.config import StudyConfig, load_config_file
from budgetflow.studies.kinds import parse_study as parse_config

SWEEP = str(REPOSITORY / "configs" / "lr_sweep.py")
# How a message says what would be valid.
VALID = re.compile(r"should|did you mean|valid: |valid here|at most|is for|set |name ")
HUGE = 10**30
BAD = {
    int: ("many", 2.5, True, -2, HUGE, math.nan, (1,)),
    float: ("many", True, -1.0, math.nan, math.inf, -math.inf, 10 * HUGE, 10**400, (0.1,)),
    str: (3, True, ("a",)),
    bool: ("perhaps", 3),
    tuple: (3.5, ({},), (math.nan,), ("many",), (-1,), ((),)),
    dict: (3, "many"),
    Literal: ("nonsense", 3),
}


def refused(arguments, workdir, *parts):
    """Launches as far as anything runs; the message that it was refused with."""
    with pytest.raises(UserError) as caught:
        config = command_line.parse(["launch", *arguments], flag_values(FLAGS))
        check(load_chain(config), str(workdir))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert not workdir.exists()
    return message


def leaves(schema=StudyConfig, prefix=""):
    """All fields of the schema: dotted names and types."""
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{prefix}{field.name}.")
            yield f"{prefix}{field.name}", dict
        else:
            yield f"{prefix}{field.name}", hint


def kinds(hint):
    """The plain types that a field can have."""
    if typing.get_origin(hint) is Annotated:
        return kinds(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return set().union(*map(kinds, typing.get_args(hint)))
    return {typing.get_origin(hint) or hint}


def bad_values():
    """For every field, values of wrong types and out of range."""
    for name, hint in leaves():
        of = kinds(hint)
        values = list(BAD[next(kind for kind in BAD if kind in of)])
        if types.NoneType not in of:
            values.append(None)
        if of >= {str, tuple}:
            values.remove(("a",))
        yield from ((name, value) for value in values)


GENERATED = list(bad_values())


def test_there_are_enough():
    assert len(GENERATED) > 300


@pytest.mark.parametrize(("name", "value"), GENERATED, ids=str)
def test_a_wrong_value_in_a_file_is_refused(tmp_path, name, value):
    path = tmp_path / "mine.py"
    path.write_text(
        "from math import inf, nan\nfrom budgetflow.config import default_config\n"
        f"def get_config():\n    config = default_config('round')\n"
        f"    config.max_train_steps = 10\n    config.{name} = {value!r}\n    return config\n"
    )
    message = refused([f"--config={path}"], tmp_path / "runs", f"config.{name}")
    assert VALID.search(message), message
    assert re.search(re.escape(repr(value)[:30].strip("(){},'")), message), message


# Any text is a name or a description, and one number a tuple of it.
FINE_BY_FLAG = ("name", "description", "sweep.learning_rates-3.5")
BY_FLAG = [(n, v) for n, v in GENERATED if n not in FINE_BY_FLAG and f"{n}-{v}" not in FINE_BY_FLAG]


@pytest.mark.parametrize(("name", "value"), BY_FLAG, ids=str)
def test_a_wrong_value_by_flag_is_refused(tmp_path, name, value):
    message = refused(
        [f"--config={SWEEP}", f"--config.{name}={value}"], tmp_path / "runs", f"config.{name}"
    )
    assert VALID.search(message), message
    assert re.search(re.escape(str(value)[:30].strip("(){},'")), message), message


@pytest.mark.parametrize(
    ("kind", "body", "parts"), [(kind, body, parts) for kind, body, *parts in WRITTEN], ids=str
)
def test_what_makes_no_sense_in_a_file_is_refused(tmp_path, digits, kind, body, parts):
    path = tmp_path / "mine.py"
    path.write_text(FILE.format(kind=kind, body=body))
    refused([f"--config={path}"], tmp_path / "runs", *parts)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("def get_config(: pass", ["SyntaxError", "mine.py:1"]),
        ("get_config = 3", ["mine.py", "get_config()"]),
        ("def get_config(): return None", ["NoneType", "ConfigDict"]),
        ("def get_config(): yield 1", ["generator", "ConfigDict"]),
        ("def get_config(): raise OSError('disk')", ["OSError: disk", "mine.py:1"]),
        ("import sys; sys.exit(3)", ["SystemExit: 3", "mine.py:1"]),
        ("import nonsense", ["ModuleNotFoundError", "'nonsense'", "mine.py:1"]),
        ("def get_config(size): pass", ["TypeError", "'size'"]),
        ("\0", ["mine.py"]),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path, text, parts):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        command_line.parse(["launch", f"--config={path}"], flag_values(FLAGS))
    for part in (str(path), *parts):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["--config is missing", "--config=configs/lr_sweep.py"]),
        (["--config"], ["--config is missing"]),
        (["--config="], ["--config is missing"]),
        (["--config", "--dry_run"], ["--config is missing"]),
        ([f"--config={CONFIGS}"], [CONFIGS, "lr_sweep.py"]),
        ([f"--config={CONFIGS}/lr_swep.py"], ["did you mean 'lr_sweep.py'"]),
        ([f"--config={SWEEP}:small"], ["lr_sweep.py:small", "TypeError"]),
        ([f"--config={SWEEP}", "--confg=1"], ["confg", "config"]),
        ([f"--config={SWEEP}", "more"], ["unexpected argument 'more'"]),
        ([f"--config={SWEEP}", "--", "more"], ["unexpected argument 'more'"]),
        ([f"--config={SWEEP}", "--flagfile=/nope"], ["/nope"]),
        ([f"--config={SWEEP}", "--dry_run=maybe"], ["dry_run", "maybe"]),
        ([f"--config={SWEEP}", "--num_processes=0"], ["num_processes", "0"]),
        ([f"--config={SWEEP}", "--process_id=-1"], ["process_id", "-1"]),
        ([f"--config={SWEEP}", "--num_processes=two"], ["num_processes", "two"]),
        ([f"--config={SWEEP}", "--workdir"], ["workdir"]),
        ([f"--config={SWEEP}", "--config.modle.width=3"], ["modle", "'model'"]),
        ([f"--config={SWEEP}", "--config.data.batchsize=3"], ["batchsize", "'batch_size'"]),
        ([f"--config={SWEEP}", "--config.seed.x=3"], ["--config.seed.x"]),
        ([f"--config={SWEEP}", "--config.model.a.b=3"], ["--config.model.a.b"]),
        ([f"--config={SWEEP}", "--config.=3"], ["--config.", "seed"]),
        ([f"--config={SWEEP}", "--config.sweep.learning_rates[0]=3"], ["'learning_rates'"]),
        ([f"--config={SWEEP}", "--config.seed"], ["config.seed = True"]),
        ([f"--config={SWEEP}", "--config.seed="], ["config.seed = ''"]),
        ([f"--config={SWEEP}", "--config.data=3"], ["--config.data = 3", "dictionary"]),
        ([f"--config={SWEEP}", "--noconfig.data.foo"], ["foo", "batch_size"]),
    ],
    ids=str,
)
def test_a_command_line_that_makes_no_sense_is_refused(arguments, parts):
    with pytest.raises(UserError) as caught:
        parse_config(command_line.parse(["launch", *arguments], flag_values(FLAGS)))
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("workdir", "message"),
    [
        ("", "should be a folder"),
        ("a\nb", "should be a folder"),
        ("/dev/null", "is a file"),
        ("/dev/null/x", "cannot be written"),
        ("/proc/x", "cannot be written"),
        ("x" * 300, "too long"),
        ("a\\b", "backslash"),
        ("foo://bucket", "gs://"),
        ("file:///tmp", "gs://"),
        ("s3://bucket/runs", "s3fs"),
    ],
)
def test_a_workdir_that_cannot_be_is_refused(workdir, message):
    with pytest.raises(UserError, match=message) as caught:
        open_workdir(workdir)
    assert "\n" not in str(caught.value)
    assert workdir[:1] in str(caught.value)


def test_a_file_in_the_place_of_a_study_is_refused(tmp_path, digits):
    (tmp_path / "lr_sweep").write_text("")
    with pytest.raises(UserError, match="lr_sweep is a file"):
        check(load_chain(load_config_file(SWEEP)), str(tmp_path))


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(open_workdir("~/runs")) == str(tmp_path / "runs")


@pytest.mark.parametrize("steps", ["5", "5:", "7:5", "a:b", "²:3", "1:99999", "-1:3", "5:5"])
def test_steps_to_profile_are_two(steps):
    with pytest.raises(UserError, match=f"--profile_steps={steps}"):
        parse_steps(steps, [2000, 100])


LAB = """
import jax
from flax import nnx
from budgetflow.engine.models import MLP
class Net(MLP):
    def __call__(self, inputs, **arguments):
        raise RuntimeError("no such layer")
def augment(key, images, *, strength=0.0):
    return images[:, :1]
"""


@pytest.mark.parametrize(
    ("arguments", "environment", "parts"),
    [
        ([], {}, ["--config is missing"]),
        ([f"--config={CONFIGS}/round9.py"], {}, ["did you mean 'round"]),
        ([f"--config={SWEEP}", "--config.data.batch_size=5000"], {}, ["1257 examples"]),
        ([f"--config={SWEEP}", "--config.name=../x"], {}, ["config.name = '../x'"]),
        ([f"--config={SWEEP}", "--config.mesh.data=4000", "--config.mesh.trial=1"], {},
         ["4000 devices", "1024"]),
        ([f"--config={SWEEP}", "--compilation_cache_dir=/dev/null"], {}, ["_dir=/dev/null"]),
        ([f"--config={SWEEP}", "--profile_steps=7:5"], {}, ["7:5", "100:110"]),
        ([f"--config={SWEEP}", "--coordinator_address=x", "--num_processes=2", "--process_id=0"],
         {}, ["--coordinator_address=x", "host:port"]),
        ([f"--config={SWEEP}"], {"JAX_PLATFORMS": "foo"}, ["'foo'", "'cpu'"]),
        ([f"--config={SWEEP}"], {"SLURM_STEP_NUM_TASKS": "x"}, ["SLURM_STEP_NUM_TASKS", "'x'"]),
        ([f"--config={SWEEP}", "--config.model.name=lab.Net", "--config.model.hidden_sizes=8"],
         {}, ["'lab.Net' raised RuntimeError: no such layer", "lab.py:7"]),
        ([f"--config={CONFIGS}/language_model.py", "--config.augmentation={'name': 'lab.augment', "
          "'strength': 1.0}"], {}, ["'lab.augment'"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_process_ends_with_one_line_and_status_2(tmp_path, digits, arguments, environment, parts):
    (tmp_path / "lab.py").write_text(LAB)
    result = subprocess.run(
        [sys.executable, "-m", "budgetflow.launch", *arguments, f"--workdir={tmp_path / 'runs'}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for part in parts:
        assert part in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_traceback_is_shown_where_it_is_asked_for(tmp_path, capsys, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text("1 / 0")
    monkeypatch.setattr(sys, "argv", ["launch", f"--config={path}", "--traceback"])
    monkeypatch.setattr(processes, "exit_at_once", sys.exit)
    with pytest.raises(SystemExit, match="2"):
        run()
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error and "1 / 0" in error
    assert error.splitlines()[-1].startswith("budgetflow: ")
