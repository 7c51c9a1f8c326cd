"""In what a study differs from the one that its folder was begun with, and how that is said."""

import json

import pytest
from conftest import run, small_config
from test_fingerprint import OTHER, changed

from budgetflow.config import default_config
from budgetflow.config.fields import Changes
from budgetflow.config.keys import replace_fields
from budgetflow.config.schema import part, to_json
from budgetflow.engine.data.source import load_dataset
from budgetflow.studies.store.keys import (
    REMOVED,
    as_begun,
    dependencies,
    differing_fields,
    fields_in_words,
    fingerprint,
)
from budgetflow.studies.study import study_dataset


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        (("train[:1200]", "validation"), "data.train_split, what config.data.train_split holds"),
        (("train", "test"), "data.validation_split, what config.data.validation_split holds"),
    ],
)
def test_differences_are_named_for_people(splits, words):
    base = small_config()
    other = replace_fields(
        base, dict(zip(("data.train_split", "data.validation_split"), splits, strict=True))
    )
    found = [dependencies(c, study_dataset(c), Changes.OUTCOME) for c in (base, other)]
    assert fields_in_words(sorted(differing_fields(*found), reverse=True)) == words
    names = [
        "budgetflow.source",
        "code.model.name.my_lab.layers",
        "code.kind.budgetflow",
        "settings",
    ]
    assert fields_in_words(names) == (
        "budgetflow's code, the code behind config.model.name (my_lab.layers), settings of JAX and "
        "XLA"
    )


def without(found_on, field):
    """What a study is found on, as a version recorded it that had no such field."""
    section, _, name = field.partition(".")
    if not name:
        return {key: value for key, value in found_on.items() if key != field}
    return {**found_on, section: without(found_on[section], name)}


def with_field(found_on, field, value):
    section, _, name = field.partition(".")
    return {**found_on, section: {**found_on[section], name: value}}


def is_as_begun(found_on, before, builds_on=None):
    """Whether a study is the one of a folder, its code aside."""
    before = {**before, "budgetflow": {"version": "0.0.9", "source": "0123"}}
    known = {"fingerprint": fingerprint(before, builds_on), "found_on": before}
    begun = as_begun(found_on, known, builds_on)
    assert (begun == before) == (fingerprint(begun, builds_on) == known["fingerprint"])
    return begun == before


@pytest.fixture(scope="module")
def found_on():
    config = small_config(optimizer__momentum=0.5, evaluation__evaluations=7)
    return dependencies(config, study_dataset(config), Changes.OUTCOME)


def test_a_study_as_it_was_begun_differs_in_nothing_but_code(found_on, tmp_path):
    assert is_as_begun(found_on, found_on) and is_as_begun(found_on, found_on, "another")
    counted = part(small_config(), Changes.OUTCOME)
    data = study_dataset(small_config())
    base = dependencies(small_config(), data, Changes.OUTCOME)
    for name in OTHER:
        other = dependencies(changed(name, tmp_path), data, Changes.OUTCOME)
        same = part(changed(name, tmp_path), Changes.OUTCOME) == counted
        assert is_as_begun(other, base) == is_as_begun(base, other) == same, name


@pytest.mark.parametrize(
    "field",
    ["precision", "schedule.power", "schedule.final_learning_rate", "sweep", "cooldowns"],
)
def test_a_field_that_was_added_since_counts_unless_it_is_at_its_default(found_on, field):
    assert is_as_begun(found_on, without(found_on, field))
    # This one is not at its default.
    assert not is_as_begun(found_on, without(found_on, "evaluation.evaluations"))


@pytest.mark.parametrize("field", ["optimizer.nesterov", "regularization.weight_decay"])
def test_an_argument_that_was_left_out_is_not_the_default_of_a_config(found_on, field):
    assert not is_as_begun(found_on, without(found_on, field))
    assert not is_as_begun(without(found_on, field), found_on)


def test_a_field_that_was_taken_out_counts_unless_it_had_no_effect(found_on, monkeypatch):
    monkeypatch.setitem(REMOVED, "evaluation.gone", 3)
    monkeypatch.setitem(REMOVED, "a_section.gone", None)
    for field in ("evaluation.gone", "evaluation.unknown"):
        for value in (3, 4, None):
            same = (field, value) == ("evaluation.gone", 3)
            assert is_as_begun(found_on, with_field(found_on, field, value)) == same
    assert is_as_begun(without(found_on, "mesh"), {**found_on, "mesh": {"vmap_trials": 1}})
    assert not is_as_begun(without(found_on, "mesh"), {**found_on, "mesh": {"vmap_trials": 2}})
    assert is_as_begun(found_on, with_field(found_on, "sweep.stop_hopeless", False))
    assert not is_as_begun(found_on, with_field(found_on, "sweep.stop_hopeless", True))


def test_differing_fields_are_named_in_full():
    first, second = to_json(small_config()), to_json(small_config(seed=2, optimizer__momentum=0.5))
    assert differing_fields(first, second) == ["optimizer.momentum", "seed"]
    assert json.loads(json.dumps(first)) == first
    assert differing_fields({"a": None, "b": None}, {"b": None}) == ["a"]


def test_a_data_set_whose_content_changed_is_another_one(tmp_path):
    config = default_config("round")
    config.name, config.max_train_steps = "own", 10
    config.data.name = f"{__name__}.Numbers"
    config.data.input_key, config.data.target_key = "x", "y"
    config.data.batch_size = 4
    config.model.hidden_sizes = (4,)
    config.evaluation.evaluations = 2
    run(config, tmp_path)
    assert "nothing was trained" in run(config, tmp_path)[1]
    load_dataset.cache_clear()
    study_dataset.__globals__["_dataset"].cache_clear()
    Numbers.shift = 1
    try:
        with pytest.raises(Exception, match=r"they differ in what config.data.train_split holds"):
            run(config, tmp_path)
    finally:
        Numbers.shift = 0
        load_dataset.cache_clear()
        study_dataset.__globals__["_dataset"].cache_clear()


class Numbers:
    num_classes = 3
    shift = 0

    def __init__(self, split):
        self.offset = {"train": 0, "validation": 1}[split]

    def __len__(self):
        return 12

    def __getitem__(self, index):
        label = (index + self.shift * (self.offset == 0)) % 3
        return {"x": [float(index), float(self.offset)], "y": label}
