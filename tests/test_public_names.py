"""What budgetflow promises: names that programs, configs and folders of users hold."""

import importlib
import inspect

import pytest

# A module, and its public names; of functions with their parameters.
PUBLIC = {
    "budgetflow": {
        "StudyDifference": None,
        "StudyResult": None,
        "TrialResult": None,
        "__version__": None,
        "compare_studies": "studies",
        "launch": "config workdir quiet",
        "open_studies": "workdir",
        "open_study": "path",
    },
    "budgetflow.config": {
        "StudyConfig": None,
        "building_on": "path kind",
        "choices": "name values tag",
        "default_config": "kind",
        "load_config_file": "path",
        "log_grid": "low high points",
        "log_uniform": "name low high tag",
        "parse_config": "config",
        "uniform": "name low high tag",
    },
    "budgetflow.errors": dict.fromkeys(
        ["ConfigError", "DamagedFileError", "StoppedError", "UserError"]
    ),
    "budgetflow.metrics": {"Metric": None, "as_metric": None},
    "budgetflow.models": dict.fromkeys(["ConvNet", "MLP", "ResNet", "Transformer"]),
    "budgetflow.models.conv": {"ConvNet": None},
    "budgetflow.models.dropout": {"dropout": None},
    "budgetflow.models.mlp": {"MLP": None},
    "budgetflow.models.resnet": dict.fromkeys(["NormedConvolution", "ResNet", "ResidualBlock"]),
    "budgetflow.models.transformer": {"Block": None, "Transformer": None},
    "budgetflow.schedules": {"Schedule": None, "common_prefix_steps": None},
    "budgetflow.studies.search_space": {
        "choices": "name values tag",
        "log_grid": "low high points",
        "log_uniform": "name low high tag",
        "uniform": "name low high tag",
    },
    "budgetflow.tasks": dict.fromkeys(["Classification", "LanguageModeling", "Regression"]),
    "budgetflow.data.augment": {"augment_images": None},
    "budgetflow.data.diabetes": {"diabetes": None},
    "budgetflow.data.digits": {"Digits": None},
    "budgetflow.data.fashion_mnist": {"LabelledImages": None, "fashion_mnist": None},
    "budgetflow.data.text": {"CharacterSequences": None, "pydoc_topics": None},
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_module_offers_what_it_promises_and_nothing_else(name):
    module = importlib.import_module(name)
    assert set(module.__all__) == set(PUBLIC[name])
    for each, parameters in PUBLIC[name].items():
        if parameters is not None:
            signature = inspect.signature(getattr(module, each))
            assert " ".join(signature.parameters) == parameters
