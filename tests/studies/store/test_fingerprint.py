"""Every field of the schema is in the keys, or is shown to change nothing."""

import dataclasses
import typing

import jax
import pytest
from conftest import (
    assert_as_from_scratch,
    assert_identical,
    run,
    small_config,
    start_trial,
    write_chain,
)

from budgetflow.config import StudyConfig, choices, parse_config
from budgetflow.config.fields import Changes, changing
from budgetflow.config.keys import replace_fields
from budgetflow.config.schedule import resolve_schedule
from budgetflow.config.schema import part, to_json
from budgetflow.engine.training.mesh import make_mesh
from budgetflow.studies.store.keys import (
    dependencies,
    differing_fields,
    fields_in_words,
    fingerprint,
    measurement_key,
    state_key,
)
from budgetflow.studies.store.trial import read_trials
from budgetflow.studies.study import study_dataset

# Another value for every field of the schema.
OTHER = {
    "kind": "lr_sweep",
    "name": "other",
    "description": "what it is for",
    "builds_on": "/elsewhere/first.py",
    "seed": 1,
    "max_train_steps": 40,
    "max_train_steps_factor": 2.0,
    "data.name": "budgetflow.data.fashion_mnist.fashion_mnist",
    "data.data_dir": "another folder",
    "data.train_split": "train[:900]",
    "data.validation_split": "test",
    "data.test_split": "test",
    "data.input_key": "image",
    "data.target_key": "label",
    "data.transform": "test_fingerprint.as_it_is",
    "data.scale_uint8": True,
    "data.batch_size": 32,
    "data.in_memory_bytes": 0,
    "model": {"name": "budgetflow.models.MLP", "hidden_sizes": (8,)},
    "task": {"name": "budgetflow.tasks.Classification", "num_classes": 12},
    "optimizer": {"name": "sgd", "momentum": 0.5, "nesterov": False},
    "regularization": {"weight_decay": 0.1, "dropout_rate": 0.0, "label_smoothing": 0.0},
    "augmentation": {"name": "budgetflow.data.augment.augment_images", "shift_pixels": 1.0},
    "schedule.base_learning_rate": 0.2,
    "schedule.warmup_steps": 3,
    "schedule.warmup_fraction": 0.2,
    "schedule.warmup_start_learning_rate": 0.01,
    "schedule.warmup_start_learning_rate_fraction": 0.1,
    "schedule.decay": "linear",
    "schedule.decay_steps": 7,
    "schedule.decay_fraction": 0.5,
    "schedule.final_learning_rate": 0.01,
    "schedule.final_learning_rate_fraction": 0.1,
    "schedule.final_steps": 2,
    "schedule.power": 2.0,
    "schedule.timescale_steps": 5,
    "schedule.drop_steps": (20,),
    "schedule.drop_fractions": (0.5,),
    "schedule.drop_factor": 0.5,
    "schedule.boundary_steps": (20,),
    "schedule.boundary_fractions": (0.5,),
    "schedule.boundary_factors": (0.5,),
    "schedule.function": "test_fingerprint.held",
    "precision": "bfloat16",
    "gradient_accumulation": 2,
    "ema_decay": 0.9,
    "weight_decay_mask": "matrices",
    "clip_gradient_norm": 1.0,
    "trackers": ("tensorboard",),
    "ray.cpus": 2.0,
    "ray.gpus": 1.0,
    "ray.resources": (("TPU", 4.0),),
    "ray.hosts": 2,
    "mesh.trial": 1,
    "mesh.data": 1,
    "mesh.fsdp": -1,
    "mesh.min_sharded_size": 4,
    "evaluation.evaluations": 3,
    "evaluation.batch_size": 100,
    "evaluation.train_examples": 77,
    "evaluation.whole_in_races": True,
    "evaluation.selection_metric": "loss",
    "checkpoints.keep_best": 3,
    "checkpoints.every_seconds": 0.0,
    "sweep.learning_rates": (0.1, 0.2),
    "sweep.max_extensions": 2,
    "sweep.refine": 1.5,
    "sweep.seeds": 2,
    "sweep.fitted_train_loss": 0.5,
    "search.method": "random",
    "search.trials": 3,
    "search.space": (choices("optimizer.momentum", 0.1, 0.2),),
    "search.promote_trials": 1,
    "search.derive": True,
    "search.carry": (("optimizer.momentum", "pinned"),),
    "search.reruns": 1,
    "search.seeds": 3,
    "transfer.warn_below": 0.3,
    "transfer.refuse_below": 0.1,
    "cooldowns.length_fractions": (0.5, 1.0),
    "rounds.production_steps": 100,
    "rounds.budget_steps": 1000,
    "rounds.budget_examples": 1000,
    "rounds.budget_flops": 1e9,
    "rounds.budget_hours": 1.0,
    "rounds.num_rounds": 3,
    "rounds.first_round_fraction": 0.2,
    "rounds.last_round_share": 0.4,
    "regime": "compute_bound",
    "ideas": {"wider": {"model": {"hidden_sizes": (32,)}}},
    "comparison.changes": (("data.batch_size", 32),),
    "comparison.seeds": 4,
    "comparison.train_loss": 0.5,
    "comparison.learning_rates": (0.1, 0.2),
    "comparison.refine": 1.5,
}


def as_it_is(record):
    return record


def held(step):
    return 0.1 + 0.0 * step


def fields_of(schema, prefix=""):
    for field in dataclasses.fields(schema):
        kind = typing.get_type_hints(schema)[field.name]
        if dataclasses.is_dataclass(kind):
            yield from fields_of(kind, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def changed(name, tmp_path):
    value = str(tmp_path) if name == "data.data_dir" else OTHER[name]
    return replace_fields(small_config(), {name: value})


def keys(config):
    """The keys of a trial's states and measurements, and its learning rates."""
    dataset, mesh = study_dataset(config), make_mesh(config.mesh, 1)
    try:
        schedule = resolve_schedule(config.schedule, config.max_train_steps)
    except Exception:  # such as a power without its decay: the field itself tells
        schedule = config.schedule
    states = state_key(config, dataset, frozenset(), mesh, False)
    return states, measurement_key(config, dataset), schedule


def test_another_value_is_known_for_every_field_of_the_schema():
    assert {*OTHER} == {*fields_of(StudyConfig)}


@pytest.mark.parametrize("name", sorted({*OTHER} - {"data.name"}))
def test_a_field_is_in_the_keys_or_changes_no_bit(name, digits, tmp_path):
    base, other = small_config(), changed(name, tmp_path)
    (states, measured, schedule), (other_states, other_measured, other_schedule) = map(
        keys, (base, other)
    )
    if states != other_states or schedule != other_schedule:
        return
    runs = [
        start_trial(study_dataset(config), config, schedule, checks_fit=False)
        for config in (base, other)
    ]
    rows = [run.advance(5).row for run in runs]
    assert_identical(runs[0].state, runs[1].state)
    if measured == other_measured:
        assert rows[0] == rows[1]


def test_what_changes_states_is_in_their_key_and_what_cannot_is_not(tmp_path):
    base, *_ = keys(small_config())
    known_by_states = {name for name in OTHER if keys_differ(name, base, tmp_path)}
    assert known_by_states >= {
        "seed", "data.name", "data.train_split", "data.batch_size", "data.transform", "model",
        "task", "optimizer", "regularization", "augmentation", "precision",
        "gradient_accumulation", "ema_decay", "schedule.function",
    }  # fmt: skip
    for harmless in ("name", "data.data_dir", "evaluation.evaluations", "search.trials"):
        assert harmless not in known_by_states


def keys_differ(name, base, tmp_path):
    config = changed(name, tmp_path)
    if name == "data.name":  # named only: its files may not be there
        return part_differs(name)
    return keys(config)[0] != base


def part_differs(name):
    parts = [
        changing(Changes.STATES, StudyConfig, to_json(config))
        for config in (small_config(), replace_fields(small_config(), {name: OTHER[name]}))
    ]
    return parts[0] != parts[1]


def test_an_unmarked_field_counts_for_everything():
    @dataclasses.dataclass(frozen=True)
    class Section:
        new: int = 0
        speed: typing.Annotated[int, Changes.NOTHING] = 0

    @dataclasses.dataclass(frozen=True)
    class Schema:
        section: Section = Section()
        searched: typing.Annotated[Section, Changes.OUTCOME] = Section()

    for local in (Section, Schema):
        local.__module__ = __name__
    globals().update(Section=Section, Schema=Schema)
    values = dataclasses.asdict(Schema())
    assert changing(Changes.STATES, Schema, values) == {"section": {"new": 0}}
    assert changing(Changes.OUTCOME, Schema, values) == {
        "section": {"new": 0}, "searched": {"new": 0},
    }  # fmt: skip
    assert changing(Changes.NOTHING, Schema, values) == values


def test_marks_hold_within_tuples_of_sections_too():
    @dataclasses.dataclass(frozen=True)
    class Section:
        new: int = 0
        speed: typing.Annotated[int, Changes.NOTHING] = 0

    @dataclasses.dataclass(frozen=True)
    class Schema:
        sections: tuple[Section, ...] = ()
        marked: typing.Annotated[tuple[Section, ...], Changes.OUTCOME] = ()
        numbers: tuple[int, ...] = (1, 2)

    values = dataclasses.asdict(Schema((Section(), Section(1)), (Section(2),)))
    expected = {"sections": [{"new": 0}, {"new": 1}], "numbers": (1, 2)}
    assert changing(Changes.STATES, Schema, values) == expected
    assert changing(Changes.OUTCOME, Schema, values) == {**expected, "marked": [{"new": 2}]}


def test_a_tag_of_a_dimension_is_in_the_config_and_changes_no_result():
    """So that a folder from before there were tags can be gone on with, tagged or not."""
    plain, tagged = (
        replace_fields(
            small_config(), {"search.space": (choices("optimizer.momentum", 0.1, 0.2, tag=tag),)}
        )
        for tag in (None, "unlikely")
    )
    assert to_json(tagged)["search"]["space"][0]["tag"] == "unlikely"
    dataset = study_dataset(plain)
    found_on = [dependencies(config, dataset, Changes.OUTCOME) for config in (plain, tagged)]
    assert found_on[0] == found_on[1]
    before = part(plain, Changes.OUTCOME)["search"]["space"]
    assert [*before[0]] == ["name", "distribution", "values", "low", "high"]


def test_the_fingerprint_follows_what_can_change_a_result(tmp_path):
    base = small_config()
    data = study_dataset(base)

    def fingerprint_of(config, builds_on=None):
        return fingerprint(dependencies(config, data, Changes.OUTCOME), builds_on)

    known = fingerprint_of(base)
    assert known == fingerprint_of(small_config())
    assert known != fingerprint_of(base, "another")
    harmless = {"name", "builds_on", "max_train_steps_factor", "data.data_dir", "mesh.trial",
                "mesh.data", "mesh.fsdp", "mesh.min_sharded_size",
                "checkpoints.keep_best", "checkpoints.every_seconds",
                "transfer.refuse_below", "description", "trackers"}  # fmt: skip
    # The rounds of a plan have their lengths and their trials from it.
    harmless |= {name for name in OTHER if name.startswith(("rounds.", "ray."))}
    for name in OTHER:
        same = fingerprint_of(changed(name, tmp_path)) == known
        assert same == (name in harmless), name


def test_states_made_under_another_setting_of_jax_are_others():
    as_usual = keys(small_config())[0]
    with jax.default_matmul_precision("float32"):
        precise = keys(small_config())[0]
    names = differing_fields(as_usual, precise)
    assert fields_in_words(names) == "settings of JAX and XLA"
    assert differing_fields(precise, precise | {"settings": {}}) == [
        "settings.jax_default_matmul_precision"
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"data.validation_split": "test"},
        {"evaluation.train_examples": 99},
        {"evaluation.evaluations": 4},
        {"evaluation.selection_metric": "loss"},
    ],
)
def test_states_that_were_measured_otherwise_are_measured_anew(tmp_path, fields):
    config = write_chain(tmp_path, None, fields)
    outcome, _ = run(config, tmp_path)
    assert outcome["steps_reused"] == 50
    (trial,) = read_trials(tmp_path / "second")
    # Rows begin where the states do, each as the run from scratch has it.
    assert trial.rows[0]["step"] == 50 and trial.best_step >= 50
    parsed = parse_config(config)
    assert_as_from_scratch(tmp_path / "second", parsed, study_dataset(parsed))
    (said,) = [
        reason for reason in outcome["reasons"] if "measured" in reason or "no meas" in reason
    ]
    assert next(iter(fields)) in said and "from step 50 on" in said


def test_states_that_were_measured_alike_bring_their_measurements(studies, chain):
    outcome, _ = run(chain[1], studies)
    (trial,) = read_trials(studies / "second")
    assert outcome["steps_reused"] == 50 and trial.rows[0]["step"] == 10
    assert trial.measured_anew_because is None
