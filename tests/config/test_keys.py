import dataclasses

import pytest

from budgetflow.config.keys import leaves, replace_fields, value_of


@dataclasses.dataclass(frozen=True)
class Section:
    warmup_steps: int = 0
    decay: str = "none"


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 0
    schedule: Section = Section()
    model: dict = dataclasses.field(default_factory=lambda: {"name": "mlp", "width": 8})


def test_replace_fields_reaches_fields_sections_and_dicts():
    config = Config()
    changed = replace_fields(
        config,
        {
            "seed": 3,
            "schedule.warmup_steps": 5,
            "schedule.decay": "linear",
            "model.width": 16,
            "model.depth": 2,
        },
    )
    assert changed == Config(3, Section(5, "linear"), {"name": "mlp", "width": 16, "depth": 2})
    assert config == Config()


def test_replace_fields_without_values_is_the_same_config():
    assert replace_fields(Config(seed=4), {}) == Config(seed=4)


def test_replace_fields_does_not_invent_fields():
    with pytest.raises(TypeError):
        replace_fields(Config(), {"schedule.warmpu_steps": 5})


def test_the_value_of_a_key_is_that_of_its_field_section_or_argument():
    config = Config(seed=4)
    assert value_of(config, "seed") == 4
    assert value_of(config, "schedule") == Section()
    assert value_of(config, "schedule.decay") == "none"
    assert value_of(config, "model.width") == 8
    assert value_of(config, "model.dropout_rate") == 0.0


def test_the_leaves_of_a_section_are_its_fields_by_their_dotted_names():
    config = Config()
    assert dict(leaves("schedule", config.schedule)) == {
        "schedule.warmup_steps": 0,
        "schedule.decay": "none",
    }
    assert dict(leaves("seed", config.seed)) == {"seed": 0}
