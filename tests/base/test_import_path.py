import functools

import pytest
from flax import nnx

from budgetflow.base.errors import ConfigError
from budgetflow.base.import_path import (
    check_arguments,
    import_object,
    is_import_path,
    keyword_names,
)


class Module(nnx.Module):
    def __init__(self, width, *, depth=2, rngs):
        pass


def takes_anything(first, **rest):
    pass


def takes_one(first, second):
    pass


class Callable:
    def __call__(self, first):
        pass


def test_import_paths_are_told_from_data_set_names():
    assert is_import_path("my_lab.models.ResNet")
    for name in ("digits", "mnist:3.0.1", "glue/cola:1.0.0", "a.", ".a", "1.x"):
        assert not is_import_path(name)


def test_an_object_is_found_by_its_path():
    assert import_object("budgetflow.errors.ConfigError", "config.x") is ConfigError


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("budgetflow.errors.ConfigErorr", "config.x = .*: budgetflow.errors has no.*'ConfigError'"),
        ("budgetflow.no_such_module.X", "there is no module .budgetflow.no_such_module"),
        ("plain", "not an import path"),
    ],
)
def test_a_wrong_path_is_refused(path, message):
    with pytest.raises(ConfigError, match=message):
        import_object(path, "config.x")


def test_a_modules_arguments_are_its_constructors():
    assert keyword_names(Module) == {"width", "depth", "rngs"}
    check_arguments(Module, {"depth"}, "config.model", {"width", "rngs"})
    check_arguments(takes_anything, {"first", "more"}, "config.model", set())


@pytest.mark.parametrize("function", [functools.partial(takes_one, second=1), Callable()])
def test_what_has_no_name_of_its_own_is_named_too(function):
    with pytest.raises(ConfigError, match=f"is not an option of {__name__}.(takes_one|Callable)"):
        check_arguments(function, {"third"}, "config.x", {"first", "second"})


@pytest.mark.parametrize(
    ("given", "provided", "message"),
    [
        ({"dept"}, {"width", "rngs"}, "config.model.dept is not.*did you mean 'depth'"),
        ({"rngs"}, {"width", "rngs"}, "config.model.rngs is not an option"),
        (set(), {"rngs"}, "config.model.width is missing"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(given, provided, message):
    with pytest.raises(ConfigError, match=message):
        check_arguments(Module, given, "config.model", provided)
