import pytest
from conftest import small_config

from budgetflow.base.errors import ConfigError
from budgetflow.engine.training.spec import program_spec
from budgetflow.engine.training.tracing import check_parts


def spec_of(digits, **fields):
    config = small_config(**fields)
    spec = program_spec(config, digits, frozenset(), False)
    check_parts(spec, config, frozenset())
    return spec


def test_trials_that_differ_in_numbers_share_a_program(digits):
    varied = frozenset({"regularization.dropout_rate", "augmentation.noise_std"})
    specs = {
        program_spec(small_config(**fields), digits, varied, False)
        for fields in (
            {},
            {"seed": 3, "schedule__base_learning_rate": 0.7, "optimizer__momentum": 0.5},
            {"regularization__dropout_rate": 0.2, "augmentation__noise_std": 0.1},
            {"regularization__weight_decay": 0.1, "max_train_steps": 99},
        )
    }
    assert len(specs) == 1
    assert spec_of(digits, model__hidden_sizes=(8,)) not in specs
    assert spec_of(digits, optimizer__nesterov=True) not in specs


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model__hidden_size": (8,)}, "did you mean 'hidden_sizes'"),
        ({"model__hidden_sizes": (8, "x")}, "config.model.name = 'budgetflow.models.MLP' raised"),
        ({"model__name": "budgetflow.models.MPL"}, "did you mean 'MLP'"),
        ({"model__rngs": 1}, "config.model.rngs is not an option"),
        ({"task__classes": 3}, "did you mean 'num_classes'"),
        ({"task__num_classes": 0.5}, "config.task.name = .*num_classes = 0.5: should be a whole"),
        ({"augmentation__shift": 1.0}, "did you mean 'shift_pixels'"),
        ({"augmentation__name": "optax.sgd"}, "not an option of optax"),
        ({"regularization__stochastic_depth": 0.1}, "stochastic_depth = 0.1: neither"),
        ({"evaluation__selection_metric": "losss"}, "did you mean 'loss'"),
    ],
)
def test_a_name_or_argument_that_does_not_fit_is_refused(digits, fields, message):
    with pytest.raises(ConfigError, match=message):
        spec_of(digits, **fields)
