"""Charts of studies: what they hold, and the files that they become."""

import dataclasses
import json
import struct
import xml.etree.ElementTree
from pathlib import Path

import pytest

import budgetflow
from budgetflow.base.errors import UserError
from budgetflow.results import figures
from budgetflow.results.reading import open_study
from budgetflow.results.report.panels.trials import explosion_limit

ALL = (
    *(figures.steps_to_fit, figures.steps_of_both_sides, figures.best_steps, figures.lengths),
    *(figures.hyperparameters, figures.forecast, figures.schedules, figures.curves),
)


def views(chart):
    """The panels of a chart by their titles."""
    return {view["title"]["text"]: view for view in chart.spec["concat"] if "title" in view}


def rows(view):
    """The rows of its own that a panel draws."""
    return view["data"]["values"]


def test_charts_hold_what_was_measured(completed_workdir):
    sweep = open_study(completed_workdir / "lr_sweep")
    first, last = views(figures.steps_to_fit(sweep)).values()
    points = {(row["rate"], row["step"]) for row in rows(first)}
    rate = float(f"{sweep.outcome['best_learning_rate']:.4g}")
    assert (rate, sweep.outcome["max_train_steps"]) in points
    assert len(rows(last)) == len(sweep.trials)

    round2 = open_study(completed_workdir / "round2")
    (schedule,) = views(figures.schedules(round2)).values()
    ends = {row["what"]: row["step"] for row in rows(schedule)}
    assert set(ends) == {"carried over", "the earlier round's", "stretched in proportion"}
    length = round2.outcome["max_train_steps"] - 1
    assert ends["carried over"] == ends["stretched in proportion"] == length
    sums = {what: sum(r["rate"] for r in rows(schedule) if r["what"] == what) for what in ends}
    assert sums["stretched in proportion"] < sums["carried over"]
    # Outcomes of the first version have nothing to compare with.
    del round2.outcome["transfer"]["stretched"]
    (schedule,) = views(figures.schedules(round2)).values()
    assert "stretched in proportion" not in {row["what"] for row in rows(schedule)}
    trials = figures.best_steps(round2).spec["datasets"]["trials"]
    assert {row["trial"]: row["best_step"] for row in trials} == {
        trial.record.trial: trial.record.best_step for trial in round2.trials
    }
    assert len(views(figures.curves(round2))) == 2 * len(round2.outcome["best_validation"])


@pytest.mark.parametrize("draw", [figures.curves, figures.best_steps, figures.steps_to_fit])
def test_a_chart_is_saved_as_a_picture_or_a_page(completed_workdir, tmp_path, draw):
    study = "lr_sweep" if draw is figures.steps_to_fit else "round1"
    chart = draw(open_study(completed_workdir / study))
    for ending in ("png", "svg", "pdf", "html", "PNG"):
        chart.save(tmp_path / f"chart.{ending}")
    png = (tmp_path / "chart.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and (tmp_path / "chart.PNG").read_bytes() == png
    width, height = struct.unpack(">II", png[16:24])
    assert width > 2 * figures.NARROW and height > 2 * figures.HEIGHT
    svg = (tmp_path / "chart.svg").read_text()
    assert xml.etree.ElementTree.fromstring(svg).tag.endswith("svg")
    (title, *_) = views(chart)
    # No colour is left to a style sheet that a file does not have.
    assert title in svg and "#0072b2" in svg and "var(--" not in svg
    assert "best trial" in svg or "the answer" in svg
    assert (tmp_path / "chart.pdf").read_bytes().startswith(b"%PDF-")
    page = (tmp_path / "chart.html").read_text()
    # Everything is in it: no script is loaded from elsewhere.
    assert title in page and "vegaEmbed" in page and "<script src=" not in page
    with pytest.raises(UserError, match=r"chart.gif: a chart is saved as .png, .svg, .pdf or"):
        chart.save(tmp_path / "chart.gif")


def test_a_notebook_shows_a_chart_in_its_size(completed_workdir):
    png, size = figures.schedules(open_study(completed_workdir / "round2"))._repr_png_()
    assert struct.unpack(">II", png[16:24]) == (2 * size["width"], 2 * size["height"])
    assert figures.WIDE < size["width"] < 1.2 * figures.WIDE


def test_a_study_under_way_is_drawn(workdir):
    for name in ("lr_sweep", "round1"):
        (workdir / name / "outcome.json").unlink()
        study = open_study(workdir / name)
        nothing = dataclasses.replace(study)
        nothing.__dict__["trials"] = []
        assert views(figures.curves(study))
        for draw in ALL:
            draw(study)._repr_png_()
            # Of a study that has measured nothing, it is said.
            assert "nothing to draw" in json.dumps(draw(nothing).spec)


def with_rows(study, number, **values):
    """A study with other values in all measurements of one trial."""
    changed = dataclasses.replace(study)
    trials = list(study.trials)
    rows = tuple({**row, **values} for row in trials[number].record.rows)
    record = dataclasses.replace(trials[number].record, rows=rows)
    trials[number] = dataclasses.replace(trials[number], record=record)
    changed.__dict__["trials"] = trials
    return changed


def losses(trials):
    return [[row["train_loss"] for row in trial.record.rows] for trial in trials]


def test_an_explosion_does_not_hide_the_other_trials(completed_workdir):
    for name in ("lr_sweep", "round1"):
        study = open_study(completed_workdir / name)
        assert explosion_limit(losses(study.trials)) is None
        loss = views(figures.curves(with_rows(study, 0, train_loss=2e22)))["train loss"]
        assert '"domain": [0' in json.dumps(loss) and "e+22" not in json.dumps(loss)
        assert loss["title"]["subtitle"] == ["✕: 1 leave this axis here."]
    exploded = with_rows(open_study(completed_workdir / "lr_sweep"), 0, train_loss=1e34)
    loss = views(figures.steps_to_fit(exploded))["Last training loss"]
    (axis,) = (part["encoding"]["y"] for part in loss["layer"] if "y" in part["encoding"])
    assert axis["scale"]["domain"][1] < 100
    # A metric whose best trial is far better than most is no explosion.
    low = with_rows(exploded, 1, train_loss=1e-9)
    assert explosion_limit(losses(low.trials[1:])) is None


def test_trials_that_do_not_compete_are_told_apart(completed_workdir):
    round1 = open_study(completed_workdir / "round1")
    best = round1.outcome["best_trial"]
    numbers = [trial.record.trial for trial in round1.trials]
    hopeless = [n for n in numbers if n % 3 == 0 and n != best]
    competing = [n for n in numbers if n not in hopeless]
    round1.outcome["best_step_diagnosis"] |= {
        "hopeless_trials": hopeless,
        "competing_trials": competing,
    }
    chart = figures.best_steps(round1)
    groups = {row["trial"]: row["group"] for row in chart.spec["datasets"]["trials"]}
    assert [n for n, group in sorted(groups.items()) if group == "other"] == hopeless
    assert groups[best] == "best"
    text = json.dumps(chart.spec, ensure_ascii=False)
    for words in ("does not compete for the best result", "first 10 %", "last 25 %", "best trial"):
        assert words in text


def test_a_chart_holds_nothing_that_is_slow_to_draw_or_for_the_mouse(completed_workdir):
    text = json.dumps(figures.curves(open_study(completed_workdir / "round1")).spec["concat"])
    assert '"opacity": {' not in text and '"opacity": 0,' not in text and "brush" not in text
    assert '"strokeOpacity": {' in text


def test_nothing_needs_matplotlib():
    package = Path(budgetflow.__file__).parent
    assert not [path for path in package.rglob("*.py") if "matplotlib" in path.read_text()]
