"""Receipts, and how a study begins with them and adds its own."""

import dataclasses
import json
import threading

import pytest
from etils import epath
from test_study_forecast import KEY, LINEAR, SELECTION, trial

from budgetflow.base.files import finite
from budgetflow.playbook.common.transfer import transfer
from budgetflow.playbook.forecasts.expected import Expected
from budgetflow.playbook.forecasts.scored import Receipt, receipts_from, scored, widening
from budgetflow.playbook.forecasts.study_forecast import LOSS, study_forecast
from budgetflow.playbook.forecasts.words import coverage, receipt_rows, receipt_sentence
from budgetflow.studies.store.forecast_ledger import LEDGER, read_ledger
from budgetflow.studies.store.receipts import (
    begin_with_receipts,
    begun_with,
    by_name,
    keep_receipts,
)

LONGER = transfer(LINEAR, 4000).after
SHORT = [trial(0)]
SAID = study_forecast(SHORT, SELECTION, [4000, 20_000])


def same(theirs, ours):
    return theirs.reuse_key == ours.reuse_key


def score(*trials, said=SAID):
    names = {"study": "first", "fingerprint": "abc", "scored_by": "second"}
    return scored(said, SHORT[0], trials, SELECTION, same, **names)


def test_a_forecast_is_scored_by_the_run_that_it_was_of():
    receipt = score(trial(7, LONGER))
    run, came = SAID.at(4000), trial(7, LONGER).rows[-1]
    assert (receipt.scored_trial, receipt.trial, receipt.length_steps) == (7, 0, 4000)
    assert receipt.came == came[LOSS] and receipt.loss == run.loss
    assert receipt.error == pytest.approx(run.loss.value / came[LOSS] - 1)
    assert receipt.inside and receipt.needed < 1
    assert receipt.metric_came == came["validation_error_rate"] and receipt.metric_inside


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_forecast_that_was_wrong_is_outside_and_widens_the_next(factor):
    receipt = score(trial(7, LONGER, lambda step, loss: factor * loss))
    assert not receipt.inside and receipt.needed > 1
    assert receipt.metric_inside == (
        receipt.metric_expected.low <= receipt.metric_came <= receipt.metric_expected.high
    )
    assert (receipt.error > 0) == (factor < 1)
    assert widening([receipt]) == receipt.needed
    again = study_forecast(SHORT, SELECTION, [4000], widening([receipt])).at(4000).loss
    assert (again.low if factor < 1 else again.high) == pytest.approx(receipt.came)


def test_a_run_that_diverged_counts_as_missed_and_widens_nothing():
    ended = dataclasses.replace(trial(7, LONGER), status="diverged")
    receipt = score(dataclasses.replace(ended, rows=ended.rows[:3]))
    assert receipt.diverged and not receipt.inside
    assert widening([receipt]) == widening([])
    assert "trial 7, which it is of, DIVERGED" in receipt_sentence(receipt)
    assert receipt_rows([receipt])[0][3:] == ("diverged", "-", "no", "-")
    kept = json.loads(json.dumps(finite(dataclasses.asdict(receipt))))
    (again,) = receipts_from([kept])
    assert again.diverged and repr(again) == repr(receipt)
    assert coverage([receipt, score(trial(7, LONGER))]).startswith("1 of 2 forecasts")


def test_what_an_interval_needed_counts_from_before_it_was_widened():
    came = trial(7, LONGER, lambda step, loss: 0.9 * loss)
    narrow = score(came)
    wide = score(came, said=study_forecast(SHORT, SELECTION, [4000], 4.0))
    assert wide.needed == pytest.approx(narrow.needed / 4)
    assert widening([wide]) == pytest.approx(widening([narrow]))
    assert widening([]) == 1.0


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (trial(1, LONGER, reuse_key={**KEY, "seed": 1}), "none of these trials"),
        (trial(1, dataclasses.replace(LONGER, base_learning_rate=0.2)), "none of these trials"),
        (trial(1, LONGER, lambda step, loss: float("nan")), "no loss above 0"),
        (trial(1, transfer(LINEAR, 20_000).after), "times the longest"),
    ],
)
def test_only_like_is_scored_with_like(other, why):
    assert why in score(other)


def test_a_length_that_was_not_forecast_is_not_scored():
    assert score(trial(1, transfer(LINEAR, 6000).after)) is None


def receipt(study="first", **fields):
    values = {
        "study": study,
        "fingerprint": "abc",
        "trial": 0,
        "length_steps": 400,
        "scored_by": "second",
        "scored_trial": 1,
        "level": 0.9,
        "wider": 1.0,
        "loss": Expected(1.5, 1.4, 1.6),
        "came": 1.7,
        "error": -0.1,
        "inside": False,
        "needed": 2.0,
        **fields,
    }
    return Receipt(**values)


class Found:
    """An outcome with receipts."""

    def __new__(cls, *receipts):
        from test_round_wording import ROUND

        return dataclasses.replace(ROUND, receipts=receipts)


def test_receipts_come_back_from_the_ledger_and_none_twice(tmp_path):
    folder = epath.Path(tmp_path) / "second"
    keep_receipts(folder, Found(receipt()))
    keep_receipts(folder, Found(receipt()))
    keep_receipts(folder, Found(receipt("third")))
    found = receipts_from(read_ledger(epath.Path(tmp_path)).rows)
    assert found == (receipt(), receipt("third"))
    assert list(by_name(found)) == [r.name for r in found]
    assert [path.name for path in tmp_path.iterdir()] == [LEDGER]


def test_two_studies_that_end_at_once_lose_no_line(tmp_path):
    folder = epath.Path(tmp_path) / "second"
    names = [f"study{n}" for n in range(6)]
    threads = [
        threading.Thread(target=keep_receipts, args=(folder, Found(receipt(name))))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = read_ledger(epath.Path(tmp_path)).rows
    assert sorted(row["study"] for row in rows) == names


def test_a_study_goes_on_with_the_receipts_that_it_began_with(tmp_path):
    workdir, folder = epath.Path(tmp_path), epath.Path(tmp_path) / "study"
    begin_with_receipts(folder)
    assert begun_with(folder).receipts == ()
    keep_receipts(folder, Found(receipt()))
    assert begun_with(folder).receipts == ()  # that came meanwhile
    begin_with_receipts(folder)
    assert begun_with(folder).receipts == (receipt(),)
    (workdir / LEDGER).write_text("damaged\n")
    assert begun_with(folder).receipts == (receipt(),)
    begin_with_receipts(folder)
    begun = begun_with(folder)
    assert not begun.receipts and "line 1" in begun.damaged[0]


def test_receipts_of_a_later_version_can_be_read():
    row = {**json.loads(json.dumps(dataclasses.asdict(receipt()))), "added_later": 1}
    assert receipts_from([row]) == (receipt(),)
