import sys

import pytest
from conftest import run

from budgetflow.config import default_config
from budgetflow.errors import ConfigError, UserError
from budgetflow.results.reading import open_study
from budgetflow.studies.kinds import KINDS, parse_study

# A kind of study of the user's own, in one file: a round that is measured at its end alone.
AT_THE_END = """
import dataclasses

from budgetflow.studies.kinds import KINDS

AT_THE_END = dataclasses.replace(
    KINDS["round"], stops=lambda study, plan: [plan.length_steps]
)
"""


@pytest.fixture
def own_kind(tmp_path, monkeypatch):
    """A config of that kind, and the file of the kind."""
    file = tmp_path / "own_kind.py"
    file.write_text(AT_THE_END)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_kind", raising=False)
    config = default_config("own_kind.AT_THE_END")
    config.name = "mine"
    config.max_train_steps = 20
    config.model.hidden_sizes = (8,)
    config.evaluation.evaluations = 4
    return config, file


def test_a_kind_of_ones_own_runs_from_end_to_end(own_kind, tmp_path):
    config, _ = own_kind
    outcome, output = run(config, tmp_path / "runs")
    (trial,) = open_study(tmp_path / "runs" / "mine").trials
    assert [row["step"] for row in trial.record.rows] == [20]
    assert outcome["best_step"] == 20
    assert "mine" in output and (tmp_path / "runs" / "mine" / "report.html").exists()
    assert run(config, tmp_path / "runs")[0] == outcome


def test_another_code_behind_it_is_another_study(own_kind, tmp_path):
    from budgetflow import source_code

    config, file = own_kind
    run(config, tmp_path / "runs")
    file.write_text(AT_THE_END.replace("plan.length_steps]", "10, plan.length_steps]"))
    del sys.modules["own_kind"]
    source_code._digests.cache_clear()
    with pytest.raises(UserError, match=r"the code behind config\.kind \(own_kind\)"):
        run(config, tmp_path / "runs")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("rond", r"config\.kind = 'rond': should be 'lr_sweep', 'round', 'cooldowns' .*'round'"),
        ("math.pi", r"config\.kind = 'math\.pi': 'pi' is of type float, not a Kind"),
        ("no_such_lab.KIND", r"config\.kind = 'no_such_lab\.KIND': there is no module"),
    ],
)
def test_what_is_no_kind_is_refused(kind, message):
    config = default_config(kind)
    config.max_train_steps = 10
    with pytest.raises(ConfigError, match=message):
        parse_study(config)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sections_of_other_kinds_are_refused(kind):
    config = default_config(kind)
    config.max_train_steps = 1000
    config.schedule.decay, config.schedule.decay_fraction = "linear", 0.2
    config.sweep.refine = 1.1
    with pytest.raises(ConfigError, match=r"config\.(schedule|sweep)\..* has no effect"):
        parse_study(config)
