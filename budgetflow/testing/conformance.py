"""What a decay, a task, a data set or a kind of study has to do, as checks of one's own parts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import config_dict

from budgetflow.engine.data.records import Columns
from budgetflow.engine.metrics import as_metric
from budgetflow.engine.schedules import Schedule, common_prefix_steps
from budgetflow.playbook.common.measurement import OVER
from budgetflow.playbook.common.outcomes import from_json
from budgetflow.playbook.common.transfer import NoTransferRuleError, transfer
from budgetflow.playbook.rounds.best_step import shortened
from budgetflow.studies.kinds import parse_study
from budgetflow.studies.store.trial import read_trials
from budgetflow.studies.study import resolve
from budgetflow.testing.simulation import Law, quadratic, run_simulated_study


def check_decay(schedule: Schedule, may_rise: bool = False) -> None:
    """Checks a schedule with a decay, and its rules for a longer and for a shorter run.

    Args:
        schedule: any that has the decay; check several.
        may_rise: whether its learning rate may rise after warmup.

    Raises:
        AssertionError: something is wrong; the message says what.
    """
    base, rates = schedule.base_learning_rate, schedule.learning_rates()
    slack = 1e-6 * base
    _hold(len(rates) == schedule.total_steps, "there is not one learning rate for each step")
    _hold(bool((rates >= 0).all() and (rates <= base + slack).all()), "a rate is not in [0, base]")
    warmup, after_warmup = np.split(rates, [schedule.warmup_steps])
    _hold(bool((np.diff(warmup) >= 0).all()), "the learning rate falls in warmup")
    if len(warmup):
        _hold(warmup[0] == np.float32(schedule.warmup_start_learning_rate), "warmup starts amiss")
    constant = after_warmup[: schedule.constant_steps]
    _hold(bool((constant == np.float32(base)).all()), "the constant period is not at the base")
    if not may_rise:
        _hold(bool((np.diff(after_warmup) <= slack).all()), "the learning rate rises after warmup")
    if schedule.family.has_end:
        end = schedule.final_learning_rate
        held = rates[schedule.total_steps - schedule.final_steps :]
        _hold(after_warmup.min(initial=base) >= end - slack, "a rate is below the final one")
        _hold(np.allclose(held, end, rtol=0, atol=slack), "the final learning rate is not held")
    _is_its_own_record(schedule)
    _is_lengthened(schedule)
    for length in {1, schedule.total_steps // 2, schedule.total_steps} - {0}:
        if schedule.family.shortens is None:
            _refuses(shortened, schedule, length)
        else:
            found = shortened(schedule, length).total_steps
            _hold(found == length, f"shortened to {length} steps, it has {found}")


def _is_its_own_record(schedule: Schedule) -> None:
    written = json.dumps(schedule.to_dict(), allow_nan=False)
    again = Schedule(**json.loads(written))
    _hold(again == schedule and hash(again) == hash(schedule), "JSON gives another schedule back")


def _is_lengthened(schedule: Schedule) -> None:
    rule = schedule.family.lengthen(schedule)
    _hold(bool(rule.words), "its rule for a longer run is not put in words")
    length = schedule.total_steps + 100
    if rule.grows is None:
        _refuses(transfer, schedule, length)
        return
    after = transfer(schedule, length).after
    _hold(after.total_steps == length, f"carried over to {length} steps, it has another length")
    grown = dataclasses.replace(
        schedule, **{rule.grows: getattr(schedule, rule.grows) + length - schedule.total_steps}
    )
    _hold(after == grown, f"carried over, more than {rule.grows} changes")
    shared = common_prefix_steps(schedule, after)
    _hold(shared >= schedule.decay_start_step, "carried over, it begins otherwise")
    twice = transfer(after, length + 50).after
    _hold(twice == transfer(schedule, length + 50).after, "lengthened twice, it is another one")
    same = transfer(schedule, schedule.total_steps).after
    _hold(same == schedule, "carried over to its own length, it changes")


def _refuses(change: Callable[[Schedule, int], Any], schedule: Schedule, length: int) -> None:
    with contextlib.suppress(NoTransferRuleError):
        change(schedule, length)
        raise AssertionError(f"{schedule.decay} has no rule, and {change.__name__} makes one up")


def check_task(task: Any, outputs: Any, batch: dict[str, Any]) -> None:
    """Checks a task on some examples.

    Args:
        task: see :mod:`budgetflow.engine.tasks`.
        outputs: what a model returns for them, finite: [examples, …].
        batch: ``targets``, and ``inputs`` if the task reads them: [examples, …]; two examples or
            more, as different as they can be.

    Raises:
        AssertionError: something is wrong; the message says what.
    """
    count = len(jax.tree.leaves(batch["targets"])[0])
    _hold(count >= 2, "a check takes two examples or more")
    loss = jax.jit(lambda outputs: _per_example(task.loss(outputs, batch), "loss", count))
    values = loss(outputs)
    _hold(bool(jnp.isfinite(values).all()), "the loss of finite outputs is not finite")
    gradient = jax.grad(lambda outputs: as_metric(task.loss(outputs, batch)).sums()[0])(outputs)
    finite = all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
    _hold(finite, "the gradient of the loss is not finite")
    if not getattr(task, "compares_examples", False):
        _is_of_each_example(task, outputs, batch, values)
    metrics = task.metrics(outputs, batch)
    _hold(isinstance(metrics, dict) and bool(metrics), "metrics returns no dict of metrics")
    for name, value in metrics.items():
        _per_example(value, f"metrics()[{name!r}]", count)
    if hasattr(task, "fitted"):
        fitted = task.fitted(outputs, batch)
        _hold(fitted.shape == (count,) and fitted.dtype == bool, "fitted is not bool [examples]")
        undefined = jax.tree.map(lambda array: jnp.full_like(array, jnp.nan), outputs)
        _hold(not task.fitted(undefined, batch).any(), "an output that is NaN counts as fitted")
    _hold(task.num_outputs(10) >= 1, "num_outputs is below 1")


def _per_example(value: Any, name: str, count: int) -> jax.Array:
    """The totals of a metric, [examples]."""
    metric = as_metric(value)
    shapes = (metric.total.shape, metric.weight.shape)
    _hold(shapes == ((count,),) * 2, f"{name} has shape {shapes[0]}; one figure for each example")
    _hold(jnp.issubdtype(metric.total.dtype, jnp.floating), f"{name} is not of floats")
    return metric.total


def _is_of_each_example(task: Any, outputs: Any, batch: dict[str, Any], values: Any) -> None:
    last, of_last = (jax.tree.map(lambda array: array[-1:], tree) for tree in (outputs, batch))
    alone = as_metric(task.loss(last, of_last)).total
    _hold(
        np.allclose(alone, values[-1:], rtol=1e-4, atol=1e-6),
        "the loss of an example depends on the others; compares_examples = True says so",
    )


def check_data_set(
    open_split: Callable[[str], Any],
    splits: Sequence[str] = ("train", "validation"),
    most_examples: int = 1000,
) -> None:
    """Checks a data set of one's own: what ``config.data.name`` is the import path of.

    Args:
        open_split: the function.
        splits: the names that it knows.
        most_examples: of each split, at most so many are looked at.

    Raises:
        AssertionError: something is wrong; the message says what.
    """
    form: Any = None
    for name in splits:
        source, again = open_split(name), open_split(name)
        if isinstance(source, dict):  # of arrays
            sizes = {len(array) for array in source.values()}
            _hold(len(sizes) == 1, f"the arrays of {name!r} have different lengths")
            source, again = Columns(source), Columns(again)
        _hold(len(source) > 0, f"{name!r} holds no example")
        for number in range(min(len(source), most_examples)):
            example = source[number]
            where = f"example {number} of {name!r}"
            arrays = jax.tree.map(np.asarray, example)
            found = jax.tree.map(lambda array: (array.shape, array.dtype.str), arrays)
            form = form or found
            _hold(found == form, f"{where} has another form than the first: {found}, not {form}")
            for array, same in zip(*map(jax.tree.leaves, (arrays, again[number])), strict=True):
                whole = array.dtype.kind != "f" or bool(np.isfinite(array).all())
                _hold(whole, f"{where} holds NaN or an infinity")
                _hold(np.array_equal(array, same), f"{where} is another one each time")


def check_kind(
    config: config_dict.ConfigDict, workdir: epath.PathLike, law: Law = quadratic
) -> None:
    """Checks a kind of study on simulated trials: that it ends, and what a kill does to it.

    Args:
        config: of a study of that kind, with a few trials.
        workdir: an empty folder.
        law: what its trials measure.

    Raises:
        AssertionError: something is wrong; the message says what.
    """
    parsed, folder = parse_study(config), epath.Path(workdir)
    whole, killed = (
        resolve(parsed, folder / name / parsed.name, earlier=None) for name in ("whole", "killed")
    )
    outcome = run_simulated_study(whole, law)
    records = read_trials(whole.folder)
    _hold(from_json(outcome).to_json() == outcome, "the outcome is another one, read from JSON")
    _hold(
        whole.kind.decide(whole, records) == whole.kind.decide(whole, records),
        "of the same records, decide makes another decision each time",
    )
    _hold(len(records) > 1, "a check takes two trials or more")
    _hold(all(record.status in OVER for record in records), "a trial is left under way")
    for _ in records:  # killed once a trial is over, again and again
        with contextlib.suppress(KeyboardInterrupt):
            run_simulated_study(killed, law, stop_after=1)
    resumed = run_simulated_study(killed, law)
    differing = sorted(k for k in {*resumed, *outcome} if resumed.get(k) != outcome.get(k))
    _hold(not differing, f"killed and gone on with, it finds another {', '.join(differing)}")


def _hold(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
