from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from conftest import assert_identical
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.base.errors import DamagedFileError
from budgetflow.engine.checkpoints import TrialCheckpoints, restore_as_numpy, steps_to_keep
from budgetflow.playbook.common.measurement import Selection


class State(NamedTuple):
    step: jax.Array
    params: dict
    opt_state: tuple


def make_state(value):
    # A model that holds flax's own random number generators has typed keys in its state.
    params = {
        "rngs": jax.random.key(value),
        "layers": {0: {"kernel": jnp.full((3, 2), float(value))}},
        "key": jnp.arange(4.0),
    }
    return State(jnp.int32(value), params, optax.adam(0.1).init(params))


@given(
    values=st.lists(st.sampled_from([0.1, 0.2, 0.3, float("nan")]), min_size=1, max_size=12),
    keep_best=st.integers(1, 3),
    pin=st.integers(1, 12),
)
@settings(deadline=None)
def test_the_best_and_the_pinned_are_kept(values, keep_best, pin):
    rows = [{"step": step, "m": value} for step, value in enumerate(values, start=1)]
    kept = steps_to_keep(rows, Selection("m").cost, keep_best, [pin], len(values))
    assert (pin in kept) or pin > len(values)
    finite = [row for row in rows if np.isfinite(row["m"])]
    for until in (len(values), pin):
        ranked = sorted((r["m"], r["step"]) for r in finite if r["step"] <= until)
        if until <= len(values):
            assert {step for _, step in ranked[:keep_best]} <= kept
    assert len(kept) <= 2 * keep_best + 1
    negated = [{**row, "m": -row["m"]} for row in rows]
    higher = Selection("m", higher_is_better=True)
    assert steps_to_keep(negated, higher.cost, keep_best, [pin], len(values)) == kept


def test_a_save_under_way_ends_with_the_run_and_is_made_again_by_the_next(tmp_path):
    large = State(jnp.int32(1), {"kernel": jnp.ones((8, 2**20))}, ())
    interrupted = TrialCheckpoints(tmp_path)
    interrupted.save({1}, 1, large)
    interrupted.end_writing()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
    again = TrialCheckpoints(tmp_path)
    assert again.steps() == []  # as after a kill
    again.save({1}, 1, large)
    again.finish()
    assert again.steps() == [1]


def test_a_small_save_counts_from_the_next_evaluation_on(tmp_path):
    checkpoints = TrialCheckpoints(tmp_path)
    checkpoints.save({1}, 1, make_state(1))
    checkpoints.hold(2, make_state(2), set())
    assert TrialCheckpoints(tmp_path).steps() == [1]


def test_what_is_saved_comes_back_exactly(tmp_path):
    checkpoints = TrialCheckpoints(tmp_path)
    checkpoints.save({3}, 3, make_state(3))
    checkpoints.finish()
    assert checkpoints.steps() == [3]
    restored = TrialCheckpoints(tmp_path).restore(3, make_state(0))
    assert_identical(restored, make_state(3))


def test_plain_orbax_reads_a_checkpoint(tmp_path):
    checkpoints = TrialCheckpoints(tmp_path, every_seconds=0)
    checkpoints.hold(5, make_state(5), {5})
    checkpoints.finish()
    with ocp.StandardCheckpointer() as plain:
        tree = plain.restore(tmp_path / "checkpoints" / "5")
    assert tree["params"]["layers"]["0"]["kernel"].tolist() == [[5.0, 5.0]] * 3
    numpy_tree = restore_as_numpy(tmp_path, 5)
    assert isinstance(numpy_tree["params"]["key"], np.ndarray)
    assert int(numpy_tree["step"]) == 5


@pytest.mark.parametrize("size", [4, 2**19])
def test_plain_orbax_reads_small_states_and_large_ones(tmp_path, size):
    params = {"kernel": jnp.arange(size, dtype=jnp.float32)}
    state = State(jnp.int32(5), params, optax.adam(0.1).init(params))
    checkpoints = TrialCheckpoints(tmp_path, every_seconds=0)
    checkpoints.hold(5, state, {5})
    checkpoints.finish()
    with ocp.StandardCheckpointer() as plain:
        tree = plain.restore(tmp_path / "checkpoints" / "5")
    assert_identical(tree["params"], params)
    assert_identical(checkpoints.restore(5, jax.tree.map(jnp.zeros_like, state)), state)


def test_held_states_are_written_only_if_they_are_kept(tmp_path):
    checkpoints = TrialCheckpoints(tmp_path)
    for step in (1, 2, 3, 4):
        checkpoints.hold(step, make_state(step), {2})
    assert checkpoints.steps() == []
    checkpoints.save({2}, 4, make_state(4))
    checkpoints.finish()
    assert checkpoints.steps() == [2, 4]
    checkpoints.save({2}, 6, make_state(6))
    checkpoints.finish()
    assert checkpoints.steps() == [2, 6]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "6"]


def test_a_held_state_survives_the_donation_of_its_buffers(tmp_path):
    checkpoints, state = TrialCheckpoints(tmp_path), make_state(1)
    checkpoints.hold(1, state, {1})
    jax.tree.map(lambda array: array.delete(), state)
    checkpoints.save({1}, 2, None)
    checkpoints.finish()
    assert_identical(checkpoints.restore(1, make_state(0)), make_state(1))


def test_the_latest_state_is_saved_where_it_stands_and_once(tmp_path):
    checkpoints = TrialCheckpoints(tmp_path)
    assert not checkpoints.hold(1, make_state(1), set())
    checkpoints.save(set(), 1, make_state(1))
    checkpoints.finish()
    assert checkpoints.steps() == [1]

    def written(folder):
        return {p: p.stat().st_mtime_ns for p in (folder / "checkpoints").rglob("*")}

    before = written(tmp_path)
    for again in (checkpoints, TrialCheckpoints(tmp_path)):
        assert_identical(again.restore(1, make_state(0)), make_state(1))
        again.save(set(), 1, make_state(1))
        again.finish()
        assert written(tmp_path) == before
    # One from which nobody can go on.
    checkpoints.hold(2, make_state(2), {2})
    checkpoints.save({2}, 3, None)
    checkpoints.finish()
    assert checkpoints.steps() == [2]


@pytest.mark.parametrize("size", [16, 2**20, 2**24])
def test_what_is_saved_is_not_what_is_trained_meanwhile(tmp_path, size):
    """Steps take the place of the state that Orbax writes in the background."""
    state = State(jnp.int32(1), {"kernel": jnp.arange(size, dtype=jnp.float32)}, ())
    expected = jax.tree.map(np.array, state)
    train = jax.jit(lambda s: jax.tree.map(lambda a: a * 0 - 1, s), donate_argnums=0)
    for every_seconds in (0, 60):
        checkpoints = TrialCheckpoints(tmp_path / str(every_seconds), every_seconds)
        state = jax.tree.map(jnp.array, expected)
        if not checkpoints.hold(1, state, set()):
            checkpoints.save(set(), 1, state)
        for _ in range(10):
            state = train(state)
        checkpoints.finish()
        assert_identical(checkpoints.restore(1, jax.tree.map(jnp.zeros_like, expected)), expected)


def test_a_checkpoint_without_checksums_does_not_count(tmp_path):
    checkpoints = TrialCheckpoints(tmp_path)
    checkpoints.save({1}, 1, make_state(1))
    checkpoints.finish()
    # As a kill leaves it between Orbax's commit and the checksums.
    (tmp_path / "checkpoints" / "2").mkdir()
    (tmp_path / "checkpoints" / "2" / "rubbish").write_text("x")
    again = TrialCheckpoints(tmp_path)
    assert again.steps() == [1]
    again.save({2}, 2, make_state(2))
    again.finish()
    assert_identical(again.restore(2, make_state(0)), make_state(2))


def test_a_checkpoint_that_is_written_again_does_not_count_until_it_is_complete(
    tmp_path, monkeypatch
):
    checkpoints = TrialCheckpoints(tmp_path)
    checkpoints.save({1}, 1, make_state(1))
    checkpoints.finish()

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    again = TrialCheckpoints(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("orbax.checkpoint.StandardCheckpointer.save", killed)
        with pytest.raises(KeyboardInterrupt):
            again.save({1}, 1, make_state(1))
    assert TrialCheckpoints(tmp_path).steps() == []
    again.save({1}, 1, make_state(1))
    again.finish()
    assert_identical(again.restore(1, make_state(0)), make_state(1))


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_detected_and_named(tmp_path, damage):
    checkpoints = TrialCheckpoints(tmp_path)
    checkpoints.save({1}, 1, make_state(1))
    checkpoints.finish()
    files = [p for p in (tmp_path / "checkpoints" / "1").rglob("*") if p.is_file()]
    victim = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "delete":
        victim.unlink()
    else:
        victim.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    with pytest.raises(DamagedFileError, match=victim.name):
        checkpoints.restore(1, make_state(0))
    with pytest.raises(DamagedFileError, match=victim.name):
        restore_as_numpy(tmp_path, 1)
    with pytest.raises(DamagedFileError, match=victim.name):
        TrialCheckpoints(tmp_path / "other").adopt(tmp_path, [1])


def test_adopted_checkpoints_are_complete_copies(tmp_path):
    source = TrialCheckpoints(tmp_path / "source")
    for step in (1, 2):
        source.hold(step, make_state(step), {1, 2})
    source.save({1, 2}, 2, make_state(2))
    source.finish()
    adopted = TrialCheckpoints(tmp_path / "adopted")
    adopted.adopt(tmp_path / "source", [2])
    assert adopted.steps() == [2]
    assert_identical(adopted.restore(2, make_state(0)), make_state(2))
