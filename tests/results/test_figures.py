import dataclasses

from budgetflow.results import figures
from budgetflow.results.reading import open_study


def test_figures_show_what_was_measured(completed_workdir):
    sweep = open_study(completed_workdir / "lr_sweep")
    left, right = figures.steps_to_fit(sweep).axes
    points = {tuple(p) for line in left.lines for p in zip(*line.get_data(), strict=True)}
    assert (sweep.outcome["best_learning_rate"], sweep.outcome["max_train_steps"]) in points
    assert sum(len(line.get_xdata()) for line in right.lines[:-2]) == len(sweep.trials)

    round2 = open_study(completed_workdir / "round2")
    (axes,) = figures.schedules(round2).axes
    stretched, after, before = (line.get_ydata() for line in axes.lines)
    assert len(after) == 4 * len(before) == round2.outcome["max_train_steps"]
    assert len(stretched) == len(after) and stretched.sum() < after.sum()
    # Outcomes of the first version have nothing to compare with.
    del round2.outcome["transfer"]["stretched"]
    assert len(figures.schedules(round2).axes[0].lines) == 2
    (axes,) = figures.best_steps(round2).axes
    steps = sorted(line.get_xdata()[0] for line in axes.lines)
    assert steps == sorted(trial.record.best_step for trial in round2.trials)
    assert len(figures.curves(round2).axes) == 2 * len(round2.outcome["best_validation"])


def test_a_study_under_way_is_drawn(workdir):
    for name in ("lr_sweep", "round1"):
        (workdir / name / "outcome.json").unlink()
        study = open_study(workdir / name)
        nothing = dataclasses.replace(study)
        nothing.__dict__["trials"] = []
        if name == "lr_sweep":
            figures.steps_to_fit(study)
        for draw in (figures.best_steps, figures.lengths, figures.schedules, figures.curves):
            draw(study)
            draw(nothing)
    figures.steps_to_fit(nothing)


def with_rows(study, number, **values):
    """A study with other values in all measurements of one trial."""
    changed = dataclasses.replace(study)
    trials = list(study.trials)
    rows = tuple({**row, **values} for row in trials[number].record.rows)
    record = dataclasses.replace(trials[number].record, rows=rows)
    trials[number] = dataclasses.replace(trials[number], record=record)
    changed.__dict__["trials"] = trials
    return changed


def test_an_explosion_does_not_hide_the_other_trials(completed_workdir):
    for name in ("lr_sweep", "round1"):
        study = open_study(completed_workdir / name)
        assert figures.explosion_limit(study.trials, "train_loss") is None
        exploded = with_rows(study, 0, train_loss=2e22)
        drawn = figures.curves(exploded).axes
        (loss,) = [axes for axes in drawn if axes.get_title("left") == "train loss"]
        assert loss.get_ylim()[1] < 100
        told = [f"off this axis: 1 of {len(study.trials)} trials"]
        assert [text.get_text() for text in loss.texts] == told
    exploded = with_rows(open_study(completed_workdir / "lr_sweep"), 0, train_loss=1e34)
    assert figures.steps_to_fit(exploded).axes[1].get_ylim()[1] < 100
    # A metric whose best trial is far better than most is no explosion.
    low = with_rows(exploded, 1, train_loss=1e-9)
    assert figures.explosion_limit(low.trials[1:], "train_loss") is None


def test_trials_keep_their_numbers_beside_diverged_ones(completed_workdir):
    study = open_study(completed_workdir / "round1")
    trials = study.trials * 4
    for number, trial in enumerate(trials):
        status = "diverged" if number % 5 == 0 else "complete"
        record = dataclasses.replace(trial.record, trial=number, status=status)
        trials[number] = dataclasses.replace(trial, record=record)
    study.__dict__["trials"] = trials
    (axes,) = figures.best_steps(study).axes
    shown = [line.get_ydata()[0] for line in axes.lines]
    assert shown == [n for n in range(64) if n % 5]


def test_trials_that_do_not_compete_are_grey(completed_workdir):
    round1 = open_study(completed_workdir / "round1")
    diagnosis = round1.outcome["best_step_diagnosis"]
    best = round1.outcome["best_trial"]
    hopeless = [n for n in range(16) if n % 3 == 0 and n != best]
    for marked in (hopeless, None):
        diagnosis["hopeless_trials"] = marked
        if marked is None:  # outcomes of the first versions
            del diagnosis["hopeless_trials"]
        (axes,) = (figure := figures.best_steps(round1)).axes
        grey = [line.get_ydata()[0] for line in axes.lines if line.get_color() == figures.GREY]
        assert grey == (marked or [])
        labels = [text.get_text() for text in figure.legends[0].texts]
        assert len(labels) == len(set(labels))
        assert ("does not compete" in labels) is bool(marked)
        assert {"first 10 %", "last 25 %", "best trial"} <= set(labels)
