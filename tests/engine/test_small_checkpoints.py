from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import tensorstore

from budgetflow.engine import small_checkpoints
from budgetflow.engine.checkpoints import _save_at_once
from budgetflow.engine.small_checkpoints import TIMES, UNFINISHED, save


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(small_checkpoints, "_templates", {})


def state(seed, optimizer, **others):
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "layers": [{"kernel": jax.random.normal(k, (5, 4)), "bias": jnp.zeros(4)} for k in keys],
        "scale": jnp.float32(seed),
    }
    opt_state = optimizer.init(params)
    return {"step": jnp.int32(seed), "params": params, "opt_state": opt_state, **others}


STATES = {
    "sgd": lambda seed: state(seed, optax.sgd(0.1)),
    "momentum": lambda seed: state(seed, optax.sgd(0.1, momentum=0.9), ema_params=None),
    "adam": lambda seed: state(seed, optax.chain(optax.clip(1.0), optax.adamw(0.1)), more={}),
    "injected": lambda seed: state(seed, optax.inject_hyperparams(optax.sgd)(0.1)),
    "random keys": lambda seed: state(seed, optax.sgd(0.1), rngs={"d": jax.random.key(seed)}),
    "half": lambda seed: {"a": jnp.full((3, 3), seed, jnp.bfloat16), "b": jnp.full(2, seed, bool)},
    "odd names": lambda seed: {"a.b": {"c": jnp.ones(2)}, "a": {"b.c/d": jnp.full(2, seed)}},
}


def content(path, root):
    """The files and arrays of a checkpoint, wherever it lies, but for times."""
    files = {
        name: found.replace(str(root).encode(), b"ROOT")
        for name, found in small_checkpoints._files(path).items()
        if name != TIMES
    }
    return files, small_checkpoints._arrays_in(path)


@pytest.mark.parametrize("name", ["my study", "50%20#1?a=b&c", "größe", 'it\'s "so"', "gs:x"])
def test_a_folder_may_be_named_as_anyone_likes(name, tmp_path):
    trees = [STATES["half"](seed) for seed in range(3)]
    assert counted_saves(trees, tmp_path / name) == 1
    with ocp.PyTreeCheckpointer() as checkpointer:
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), trees[2])
        found = checkpointer.restore(tmp_path / name / "2", restore_args=arguments)
    np.testing.assert_array_equal(found["a"], trees[2]["a"])


@pytest.mark.parametrize("name", STATES)
def test_every_checkpoint_is_the_one_that_orbax_writes(name, tmp_path):
    by_orbax = tmp_path / "orbax"
    for number, seed in enumerate([3, 0, 1]):  # zeros, too, are written
        tree = STATES[name](seed)
        save(tmp_path / str(number), tree, _save_at_once)
        _save_at_once(by_orbax / str(number), tree)
        expected = content(by_orbax / str(number), by_orbax)
        assert content(tmp_path / str(number), tmp_path) == expected
        # Few files: each takes the disk its time.
        assert number == 0 or len([*(tmp_path / str(number)).rglob("*")]) <= 10
        with ocp.StandardCheckpointer() as plain:
            restored = plain.restore(tmp_path / str(number))
            again = plain.restore(by_orbax / str(number))
        assert jax.tree.structure(restored) == jax.tree.structure(again)
        for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(again), strict=True):
            assert a.dtype == b.dtype
            if not jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
                assert np.array_equal(a, b)


def counted_saves(trees, folder):
    """How many of the checkpoints Orbax writes."""
    calls = []

    def save_by_orbax(path, tree):
        calls.append(path)
        _save_at_once(path, tree)

    for number, tree in enumerate(trees):
        save(Path(folder) / str(number), tree, save_by_orbax)
    return len(calls)


def test_orbax_writes_the_first_of_each_structure(tmp_path):
    assert counted_saves([STATES["adam"](seed) for seed in range(4)], tmp_path / "same") == 1
    of_another_shape = [{"a": jnp.ones(n)} for n in (2, 3, 3, 2)]
    assert counted_saves(of_another_shape, tmp_path / "shapes") == 2
    of_another_type = [{"b": jnp.ones(2, t)} for t in ("int32", "float32", "int32")]
    assert counted_saves(of_another_type, tmp_path / "types") == 2
    devices = jax.devices()[:2]
    elsewhere = [{"c": jax.device_put(jnp.ones(2), device)} for device in 2 * devices]
    assert counted_saves(elsewhere, tmp_path / "devices") == len(devices)


@pytest.mark.parametrize("change", ["content", "missing", "more"])
def test_where_it_would_not_be_written_alike_orbax_writes_all(change, tmp_path):
    calls = []

    def another_version(path, tree):
        calls.append(path)
        _save_at_once(path, tree)
        arrays = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{path}/"}).result()
        if change == "content":
            arrays["a/0"] = b"other" + arrays["a/0"]
        elif change == "missing":
            del arrays["a/.zarray"]
        else:
            arrays["a/1"] = b""

    for number in range(3):
        save(tmp_path / str(number), {"a": jnp.ones(4)}, another_version)
    assert len(calls) == 3


def test_what_a_kill_left_is_no_checkpoint_and_in_nobodys_way(tmp_path):
    tree = STATES["sgd"](1)
    save(tmp_path / "1", tree, _save_at_once)
    (tmp_path / f"2{UNFINISHED}" / "params.scale").mkdir(parents=True)
    (tmp_path / f"2{UNFINISHED}" / "rubbish").write_text("x")
    save(tmp_path / "2", tree, _save_at_once)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    assert content(tmp_path / "2", tmp_path / "2") == content(tmp_path / "1", tmp_path / "1")
