"""Every field that a search space may vary has the tag that the playbook gives it."""

import dataclasses

import pytest

from budgetflow.config.schedule import ScheduleConfig
from budgetflow.config.schema import StudyConfig
from budgetflow.config.search_space import TAGS
from budgetflow.config.searchable import SEARCHABLE
from budgetflow.playbook.derived.transfer_tags import default_tag, regularizes

WARMUP = {
    "warmup_steps",
    "warmup_fraction",
    "warmup_start_learning_rate",
    "warmup_start_learning_rate_fraction",
}
OTHER_SCHEDULE = {
    "base_learning_rate",
    "decay",
    "decay_steps",
    "decay_fraction",
    "final_learning_rate",
    "final_learning_rate_fraction",
    "final_steps",
    "power",
    "timescale_steps",
    "drop_steps",
    "drop_fractions",
    "drop_factor",
    "boundary_steps",
    "boundary_fractions",
    "boundary_factors",
    "function",
}


def test_every_field_of_a_schedule_is_warmup_or_unlikely_to_transfer():
    assert {field.name for field in dataclasses.fields(ScheduleConfig)} == WARMUP | OTHER_SCHEDULE
    assert {default_tag(f"schedule.{name}") for name in WARMUP} == {"very_likely"}
    assert {default_tag(f"schedule.{name}") for name in OTHER_SCHEDULE} == {"unlikely"}


def test_every_section_that_may_vary_has_a_tag():
    tags = {section: default_tag(f"{section}.anything") for section in SEARCHABLE}
    assert tags == {
        "schedule": "unlikely",
        "optimizer": "might",
        "regularization": "might",
        "augmentation": "might",
        "model": "likely",
    }


def test_the_arguments_of_the_default_sections_have_the_tag_of_their_section():
    config = StudyConfig(kind="round")
    for section in SEARCHABLE[1:]:
        for name in getattr(config, section):
            assert default_tag(f"{section}.{name}") == default_tag(f"{section}.anything")


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("init", "very_likely"),
        ("initializer", "very_likely"),
        ("initialisation", "very_likely"),
        ("init_scale", "very_likely"),
        ("kernel_init", "very_likely"),
        ("embedding_init_std", "very_likely"),
        ("depth", "likely"),
        ("finite_width", "likely"),
        ("infinity", "likely"),
        ("dropout_rate", "might"),
        ("stochastic_depth", "might"),
    ],
)
def test_an_argument_of_a_model_is_initialisation_architecture_or_regularization(name, tag):
    assert default_tag(f"model.{name}") == tag


@pytest.mark.parametrize(
    "field",
    [
        "task.label_count",
        "precision",
        "ema_decay",
        "weight_decay_mask",
        "clip_gradient_norm",
        "optimizer.init_accumulator_value",
        "data.batch_size",
        "gradient_accumulation",
        "nobody_knows",
    ],
)
def test_what_the_playbook_leaves_out_might_transfer(field):
    assert default_tag(field) == "might"


def test_tags_are_ordered_by_how_likely_they_are():
    assert TAGS == ("very_likely", "likely", "might", "unlikely")


def test_regularization_is_known_in_every_section():
    fields = ["regularization.anything", "optimizer.weight_decay", "model.dropout_rate"]
    assert all(map(regularizes, fields))
    assert not any(map(regularizes, ["model.depth", "augmentation.noise_std", "optimizer.b1"]))
