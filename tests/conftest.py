import dataclasses
import fcntl
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

# Before TFDS is imported: tests prepare their data in a folder of their own. The workers of a run,
# and processes that tests launch, share it, and in it what they compile.
_IS_FIRST = "BUDGETFLOW_TESTS" not in os.environ
if _IS_FIRST:
    os.environ["BUDGETFLOW_TESTS"] = tempfile.mkdtemp(prefix="budgetflow-data-")
_DATA = os.environ["BUDGETFLOW_TESTS"]
os.environ["TFDS_DATA_DIR"] = os.environ["XDG_CACHE_HOME"] = _DATA
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from hypothesis import settings  # noqa: E402
from rich.console import Console  # noqa: E402

from budgetflow.base.files import read_json  # noqa: E402
from budgetflow.cli.launch import launch, load_chain  # noqa: E402
from budgetflow.config import default_config, load_config_file  # noqa: E402
from budgetflow.config.keys import replace_fields  # noqa: E402
from budgetflow.engine.checkpoints import TrialCheckpoints  # noqa: E402
from budgetflow.engine.data.source import load_dataset  # noqa: E402
from budgetflow.engine.training.device_data import DeviceData  # noqa: E402
from budgetflow.engine.training.mesh import make_mesh, trial_slices  # noqa: E402
from budgetflow.engine.training.trial_run import TrialRun, trial_program  # noqa: E402
from budgetflow.playbook.common.measurement import TrialRecord  # noqa: E402
from budgetflow.playbook.common.shared_steps import Branch  # noqa: E402
from budgetflow.playbook.rounds import policy as rounds  # noqa: E402
from budgetflow.studies.kinds import parse_study  # noqa: E402
from budgetflow.studies.store.trial import read_trials, write_outcome  # noqa: E402

jax.config.update("jax_compilation_cache_dir", os.path.join(_DATA, "budgetflow"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# The same examples each time, so that a change is judged by what it changes;
# HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("explore")
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

REPOSITORY = Path(__file__).parents[1]
# What one file of tests has made, others may use: from test_step import CONV.
sys.path[1:1] = sorted({str(path.parent) for path in Path(__file__).parent.rglob("test_*.py")})


@pytest.fixture
def disk(tmp_path):
    """A small disk, and what sets its options anew."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True).returncode == 0

    if shutil.which("mount") is None or not mount("size=3m"):
        pytest.skip("only root can mount a disk")
    yield folder, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", "-l", str(folder)], check=True)


def blocks(workdir):
    """What a folder takes of a disk, in bytes."""
    return sum(4096 * (1 + -(-path.stat().st_size // 4096)) for path in workdir.rglob("*"))


def mirrored(trials, key):
    """The same trials by a metric of which higher is better: its values negated."""
    return [
        dataclasses.replace(
            trial, rows=[{**row, key: -row[key]} if key in row else row for row in trial.rows]
        )
        for trial in trials
    ]


class PlannedTrial(NamedTuple):
    """What a policy knows of a trial before it runs."""

    hyperparameters: dict
    length_steps: int
    branch: Branch | None = None


def trial_record(number, schedule, rows=(), steps_reused=0, **fields):
    """A trial at its last measurement, complete unless told otherwise."""
    reused_from = {"study": "another", "trial": 0, "step": steps_reused} if steps_reused else None
    fields = {"status": "complete", "step": rows[-1]["step"] if rows else 0, **fields}
    return TrialRecord(
        trial=number,
        hyperparameters=fields.pop("hyperparameters", {}),
        schedule=schedule,
        seed=0,
        max_train_steps=schedule.total_steps,
        rows=tuple(rows),
        reused_from=reused_from,
        **fields,
    )


def diagnose(trials, max_train_steps, selection):
    """The best-step diagnosis of some trials, as JSON values."""
    settings = rounds.RoundSettings((), max_train_steps, selection)
    return rounds.outcome(settings, trials).to_json()["best_step_diagnosis"]


# The longest first, so that none of them is left to run alone at the end.
LONGEST = (
    "test_processes.py", "test_eight_devices.py", "test_controller.py", "test_interrupted.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_sessionfinish():
    if _IS_FIRST:
        shutil.rmtree(_DATA, ignore_errors=True)


@pytest.fixture(scope="session")
def digits():
    return load_dataset("digits", "train", "validation", "test")


@pytest.fixture(scope="session")
def streamed_digits():
    return load_dataset("digits", "train", "validation", "test", in_memory_bytes=0)


@pytest.fixture(scope="session")
def completed_workdir(tmp_path_factory, worker_id):
    """The three digits studies, run once; copy the folder before changing anything in it."""
    folder = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        folder = folder.parent  # that of all workers
    workdir = folder / "completed"
    with open(folder / "completed.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (workdir / "output.txt").exists():
            config = load_config_file(REPOSITORY / "configs" / "round2.py")
            output = io.StringIO()
            launch(load_chain(config), str(workdir), False, Console(file=output, width=120))
            # Last, so that another worker takes over nothing that is half done.
            (workdir / "output.txt").write_text(output.getvalue())
    return workdir


@pytest.fixture
def workdir(completed_workdir, tmp_path):
    """A copy of the completed studies, to change."""
    return shutil.copytree(completed_workdir, tmp_path / "runs")


def small_config(kind="round", **fields):
    """A config of a small model and short runs, parsed; fields are dotted with "__" for "."."""
    config = default_config(kind)
    config.name = "small"
    config.max_train_steps = 30
    config.model.hidden_sizes = (16,)
    config.evaluation.evaluations = 5
    set_fields(config, fields)
    return parse_study(config)


def set_fields(config, fields):
    """Sets fields of a ConfigDict, new ones too; their names are dotted with "__" for "."."""
    for name, value in fields.items():
        section = config
        *path, last = name.split("__")
        for part in path:
            section = section[part]
        with section.unlocked():
            section[last] = value


def start_trial(dataset, config, schedule, varied=frozenset(), checks_fit=False, position=0):
    """A trial at step 0, on a slice of its config's mesh."""
    mesh = trial_slices(make_mesh(config.mesh))[position]
    program = trial_program(config, dataset, varied, checks_fit, mesh)
    return TrialRun(config, schedule, DeviceData(dataset), program)


def assert_identical(first, second):
    """Two trees of arrays, equal bit for bit."""

    def compare(a, b):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)

    jax.tree.map(compare, first, second)


def run(config, workdir, dry_run=False, same_results=False):
    """Launches a ConfigDict in this process; its outcome and what it printed."""
    output = io.StringIO()
    console = Console(file=output, width=120)
    outcome = launch(load_chain(config), str(workdir), dry_run, console, same_results=same_results)
    return outcome, output.getvalue()


def edited_config(file, /, **fields):
    """One of the configs that ship, with dotted fields ("__" for ".") changed."""
    config = load_config_file(REPOSITORY / "configs" / f"{file}.py")
    for field, value in fields.items():
        config.update_from_flattened_dict({field.replace("__", "."): value})
    return config


FIRST = """
from budgetflow.config import choices, default_config


def get_config():
    config = default_config("round")
    config.max_train_steps = 60
    config.model.hidden_sizes = (16,)
    config.regularization.dropout_rate = 0.2
    config.augmentation.shift_pixels = 1.0
    config.augmentation.noise_std = 0.05
    config.schedule.warmup_steps = 5
    config.schedule.decay = "linear"
    config.search.method = "grid"
    config.search.space = (choices("schedule.decay_steps", 30, 10, 20),)
    config.evaluation.evaluations = 6
    config.update_from_flattened_dict({fields!r})
    return config
"""
SECOND = """
from budgetflow.config import building_on


def get_config():
    config = building_on({first!r}, "round")
    config.max_train_steps = 120
    config.search.promote_trials = 1
    config.update_from_flattened_dict({fields!r})
    return config
"""


def write_chain(folder, first=None, second=None):
    """Configs of two rounds; the second one's path."""
    paths = [folder / name for name in ("first.py", "second.py")]
    for path, text, fields in zip(paths, (FIRST, SECOND), (first, second), strict=True):
        text = text.replace("{first!r}", repr(str(paths[0])))
        path.write_text(text.replace("{fields!r}", repr(fields or {})))
    return load_config_file(paths[1])


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    """The folder of a first round that is complete, and the config of a second."""
    folder = tmp_path_factory.mktemp("chain")
    config = write_chain(folder)
    run(load_config_file(folder / "first.py"), folder)
    return folder, config


@pytest.fixture
def studies(chain, tmp_path):
    """A copy of the first round's folder, to go on from."""
    shutil.copytree(chain[0] / "first", tmp_path / "first")
    return tmp_path


def conclude_again(folder):
    """Vouches for a study's records as they are, as if its outcome had been made from them."""
    outcome = read_json(folder / "outcome.json")
    (folder / "outcome.json").unlink()
    write_outcome(folder, outcome, read_trials(folder))


def assert_as_from_scratch(folder, config, dataset):
    """Every trial of a study is the one from scratch: its measurements and its last state."""
    for record in read_trials(folder):
        values = {k: v for k, v in record.hyperparameters.items() if not k.startswith("schedule.")}
        varied = frozenset(record.hyperparameters)
        scratch = start_trial(dataset, replace_fields(config, values), record.schedule, varied)
        assert [scratch.advance(row["step"]).row for row in record.rows] == list(record.rows)
        checkpoints = TrialCheckpoints(folder / "trials" / f"{record.trial:04d}")
        restored = checkpoints.restore(record.max_train_steps, scratch.state)
        assert_identical(restored, scratch.state)
