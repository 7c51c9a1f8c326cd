import sys

import pytest
from conftest import run

from budgetflow.base.errors import ConfigError, UserError
from budgetflow.config import choices, default_config
from budgetflow.playbook.common.outcomes import Outcome, _reader
from budgetflow.results.reading import open_study
from budgetflow.studies.kinds import KINDS, check_follows, parse_study

# A kind of study of the user's own, in one file: a round that is measured at its end alone.
AT_THE_END = """
import dataclasses

from budgetflow.studies.kinds import KINDS

AT_THE_END = dataclasses.replace(
    KINDS["round"], stops=lambda study, plan: [plan.length_steps]
)
"""

# One with a policy, an outcome and a view of its own: of all trials, trained to half of their
# steps, the better half is trained on to the end.
HALVING = """
import dataclasses

from budgetflow.playbook.common.measurement import Add, Advance, Conclude
from budgetflow.playbook.common.outcomes import Outcome
from budgetflow.results.kind_views import VIEWS, View
from budgetflow.studies.kinds import KINDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class HalvingOutcome(Outcome):
    kept: tuple[int, ...]


def decide(study, trials):
    if len(trials) < len(study.plans):
        return Add({n: plan.hyperparameters for n, plan in enumerate(study.plans)})
    half = study.max_train_steps // 2
    if late := tuple(trial.trial for trial in trials if trial.step < half):
        return Advance(late, half)
    ranked = [trial.trial for trial, _ in study.selection.ranked(trials)]
    kept = tuple(ranked[: len(ranked) // 2])
    if early := tuple(n for n in kept if trials[n].step < study.max_train_steps):
        return Advance(early, study.max_train_steps)
    return Conclude(
        HalvingOutcome(
            max_train_steps=study.max_train_steps,
            steps_trained=sum(trial.step for trial in trials),
            best_trial=ranked[0],
            kept=kept,
        )
    )


HALVING = dataclasses.replace(KINDS["round"], decide=decide)
VIEWS[HalvingOutcome] = dataclasses.replace(
    VIEWS[Outcome],
    headline=lambda outcome: f"Kept {len(outcome.kept)}, the best is {outcome.best_trial}.",
    facts=lambda outcome: {"kept": ", ".join(map(str, outcome.kept))},
)
"""

# A round that puts sentences of its own before the evidence: one quotes the diagnosis word for
# word, one begins with words in capitals, and one is a warning without them.
QUOTING = """
import dataclasses

from budgetflow.playbook.common.measurement import Conclude
from budgetflow.playbook.common.reasons import Reason
from budgetflow.playbook.rounds import policy
from budgetflow.studies.kinds import KINDS
from budgetflow.studies.kinds.forecasts import with_forecast
from budgetflow.studies.kinds.round import settings


def decide(study, trials):
    decision = policy.decide(settings(study), trials, policy.outcome)
    if not isinstance(decision, Conclude):
        return decision
    found = decision.outcome
    own = (found.best_step_diagnosis.means, "MNIST was not used.", Reason("Beware.", loud=True))
    found = dataclasses.replace(found, reasons=(*own, *found.reasons))
    return Conclude(with_forecast(study, trials, found))


QUOTING = dataclasses.replace(KINDS["round"], decide=decide)
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


def test_a_kind_with_a_policy_an_outcome_and_a_view_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "halving.py").write_text(HALVING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "halving", raising=False)
    config = default_config("halving.HALVING")
    config.name = "mine"
    config.max_train_steps = 20
    config.model.hidden_sizes = (8,)
    config.evaluation.evaluations = 4
    config.search.method = "grid"
    config.search.space = (choices("schedule.base_learning_rate", 1e-4, 0.1, 0.05, 1e-3),)
    outcome, output = run(config, tmp_path / "runs")
    assert outcome["kind"] == "halving.HalvingOutcome"
    assert outcome["kept"] == [1, 2] or outcome["kept"] == [2, 1]
    assert outcome["steps_trained"] == 2 * 10 + 2 * 20
    assert f"mine: Kept 2, the best is {outcome['best_trial']}." in output
    study = open_study(tmp_path / "runs" / "mine")
    assert isinstance(study.found, sys.modules["halving"].HalvingOutcome)
    assert study.found.to_json() == outcome
    statuses = [trial.record.status for trial in study.trials]
    assert statuses == ["stopped", "complete", "complete", "stopped"]
    report = (study.folder / "report.html").read_text()
    assert "<dt>kept</dt><dd>" in report and "Training and validation" in report
    assert run(config, tmp_path / "runs")[0] == outcome
    # Where its code is not at hand, the outcome says what any outcome says.
    monkeypatch.setitem(sys.modules, "halving", None)
    _reader.cache_clear()
    assert type(study.found) is Outcome
    assert study.found.best_trial == outcome["best_trial"]
    _reader.cache_clear()


def test_sentences_of_a_kind_of_ones_own_are_neither_replaced_nor_shouted(tmp_path, monkeypatch):
    (tmp_path / "quoting.py").write_text(QUOTING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "quoting", raising=False)
    config = default_config("quoting.QUOTING")
    config.name = "mine"
    config.max_train_steps = 20
    config.model.hidden_sizes = (8,)
    config.evaluation.evaluations = 4
    outcome, _ = run(config, tmp_path / "runs")
    quoted, *others = outcome["reasons"]
    means = outcome["best_step_diagnosis"]["means"]
    assert means.startswith(f"{quoted} ") and others.count(means) == 1 and quoted not in others
    study = open_study(tmp_path / "runs" / "mine")
    assert [reason.text for reason in study.found.reasons if reason.loud] == ["Beware."]
    assert study.found.to_json() == outcome
    report = (study.folder / "report.html").read_text()
    assert '<li class="loud">Beware.</li>' in report and "<li>MNIST was not used.</li>" in report


def test_trials_added_before_those_that_they_could_continue_train_all_steps(tmp_path, monkeypatch):
    (tmp_path / "halving.py").write_text(HALVING)
    monkeypatch.syspath_prepend(tmp_path)
    outcomes = {}
    for decays in (("linear", "cosine"), ("cosine",)):
        monkeypatch.delitem(sys.modules, "halving", raising=False)
        config = default_config("halving.HALVING")
        config.name = "_".join(decays)
        config.max_train_steps = 20
        config.model.hidden_sizes = (8,)
        config.evaluation.evaluations = 4
        config.schedule.decay_fraction = 0.25
        config.search.method = "grid"
        config.search.space = (choices("schedule.decay", *decays),)
        run(config, tmp_path / "runs")
        *_, last = open_study(tmp_path / "runs" / config.name).trials
        assert last.record.reused_from is None
        outcomes[decays] = [row for row in last.record.rows if row["step"] <= 10]
    shared, alone = outcomes.values()
    assert len(shared) == 2 and shared == alone


def test_another_code_behind_it_is_another_study(own_kind, tmp_path):
    from budgetflow.base import source_code

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
        ("rond", r"config\.kind = 'rond': should be 'lr_sweep', 'round', 'rounds', .*'round'"),
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


def test_kinds_of_ones_own_import_from_where_they_once_did():
    from budgetflow.playbook import measurement, outcomes
    from budgetflow.studies.kind import Kind
    from budgetflow.studies.kinds.lr_sweep import LR_SWEEP

    assert LR_SWEEP is KINDS["lr_sweep"] and isinstance(LR_SWEEP, Kind)
    assert outcomes.Outcome is Outcome and measurement.Conclude.__name__ == "Conclude"


def test_a_round_is_derived_from_a_kind_of_ones_own_that_is_a_round(tmp_path, monkeypatch):
    (tmp_path / "own_kinds.py").write_text(AT_THE_END)
    monkeypatch.syspath_prepend(str(tmp_path))
    earlier, later = default_config("round"), default_config("round")
    earlier.kind, earlier.name, earlier.max_train_steps = "own_kinds.AT_THE_END", "earlier", 10
    later.builds_on, later.name, later.search.derive = "earlier.py", "later", True
    later.max_train_steps = 20
    check_follows(parse_study(later), parse_study(earlier))
    earlier.kind = "cooldowns"
    with pytest.raises(ConfigError, match=r"search\.derive: earlier, .* is no round"):
        check_follows(parse_study(later), parse_study(earlier))
