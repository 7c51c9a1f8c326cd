"""What a study has on its devices: each split once, as a dry run says, and nothing at its end."""

import math

import jax
import numpy as np
import pytest
from conftest import small_config
from etils import epath

from budgetflow.studies.run.controller import run_study
from budgetflow.studies.study import resolve, study_memory


def wide(split):
    """Data of many more bytes than a small model."""
    examples = {"train": 2000, "validation": 700, "test": 300}[split]
    rng = np.random.default_rng(examples)
    inputs = rng.normal(size=(examples, 400)).astype(np.float32)
    return {"image": inputs, "label": rng.integers(3, size=examples)}


def study_of(folder, kind="round", **fields):
    fields = {
        "data__name": f"{__name__}.wide",
        "data__test_split": "test",
        "task__num_classes": 3,
        "checkpoints__every_seconds": 1e6,
        **fields,
    }
    return resolve(small_config(kind, **fields), epath.Path(folder) / "study", None)


class Live:
    """The bytes of the arrays that came to the first device since it was made."""

    def __init__(self):
        self.before = {id(array): array for array in jax.live_arrays()}

    def now(self):
        new = [array for array in jax.live_arrays() if id(array) not in self.before]
        here = [array for array in new if jax.devices()[0] in array.sharding.device_set]
        # Not by its shards: to ask for them makes arrays of their own.
        return sum(
            math.prod(array.sharding.shard_shape(array.shape)) * array.itemsize for array in here
        )


KINDS = {
    "in memory": {},
    "streamed": {"data__in_memory_bytes": 0},
    "several trials": {"kind": "lr_sweep", "sweep__learning_rates": (1e-4, 2e-4, 3e-4)},
}


@pytest.mark.slow
@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_what_is_live_is_what_a_dry_run_says_and_ends_with_the_study(tmp_path, fields):
    live = Live()
    study = study_of(tmp_path, model__hidden_sizes=(128,), **fields)
    claimed, seen = study_memory(study.config, study.mesh, study.plans), []
    assert live.now() < 10_000  # planning leaves nothing
    run_study(study, lambda *_: seen.append(live.now()))
    training = claimed.states + claimed.copies + claimed.data
    assert max(seen) == pytest.approx(training, rel=0.01, abs=10_000)
    assert training <= claimed.resident < claimed.peak
    assert live.now() < 10_000


def test_the_test_split_counts_too(tmp_path):
    few, many = (study_of(tmp_path / n, data__test_split=n) for n in ("test", "train"))
    claimed = [study_memory(study.config, study.mesh, study.plans) for study in (few, many)]
    assert claimed[1].at_end - claimed[0].at_end == pytest.approx(1700 * 400 * 4, rel=0.2)


@pytest.mark.parametrize("kind", ["round", "lr_sweep"])
def test_a_study_that_ends_by_an_error_frees_its_devices(tmp_path, kind):
    live, study = Live(), study_of(tmp_path, kind)

    def fail(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as error:
        run_study(study, fail)
    # Even while a notebook holds on to the error, and all frames that it went through.
    assert error.value.__traceback__ is not None
    assert live.now() < 10_000


def test_a_second_study_compiles_nothing_anew(tmp_path):
    first, second = (study_of(tmp_path / n) for n in "ab")
    run_study(first, lambda *_: None)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None
    )
    run_study(second, lambda *_: None)
    assert compiled == []
