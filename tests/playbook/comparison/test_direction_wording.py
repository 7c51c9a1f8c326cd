"""Whole sentences about departures, from facts made by hand."""

from budgetflow.playbook.comparison.direction import Varied, directions
from budgetflow.playbook.comparison.words import departures

NOISE = {
    "regularization.dropout_rate": (0.0, Varied((0.0, 0.4))),
    "augmentation.shift_pixels": (0.0, 1.0),
    "data.batch_size": (256, 64),
}


def test_more_noise_and_the_factor_that_stands_for_it():
    (sentence,) = departures(directions(NOISE), "lr_sweep", 4.0)
    assert sentence == (
        "The answer of lr_sweep was found on another configuration. Here "
        "regularization.dropout_rate = 0 to 0.4 instead of 0, augmentation.shift_pixels = 1 "
        "instead of 0 and data.batch_size = 64 instead of 256 bring more gradient noise or "
        "regularization, so more steps are needed: config.max_train_steps_factor = 4 stands for "
        "that, unmeasured (config.kind = 'comparison' measures it)."
    )


def test_no_factor_is_no_allowance():
    (sentence,) = departures(directions({"data.batch_size": (256, 64)}), "lr_sweep", 1.0)
    assert sentence == (
        "The answer of lr_sweep was found on another configuration. Here data.batch_size = 64 "
        "instead of 256 brings more gradient noise or regularization, so more steps are needed: "
        "config.max_train_steps_factor = 1 makes no allowance for that; how much is unmeasured "
        "(config.kind = 'comparison' measures it)."
    )


def test_fewer_and_either():
    changed = {
        "data.batch_size": (64, 256),
        "schedule.decay": ("none", Varied(("cosine", "linear"))),
        "optimizer.momentum": (0.9, Varied((0.8, 0.98))),
        "seed": (0, 1),
    }
    assert list(departures(directions(changed), "lr_sweep", 4.0)) == [
        "config.data.batch_size = 256 instead of 64 makes gradients less noisy than in lr_sweep, "
        "so fewer steps may do; the longer run is the safe side.",
        "config.schedule.decay = cosine or linear instead of none and optimizer.momentum = 0.8 to "
        "0.98 instead of 0.9 can push the number of steps either way from the answer of lr_sweep: "
        "a better schedule needs fewer steps, a worse one more; a better optimizer needs fewer "
        "steps, a worse one more.",
    ]


def test_nothing_to_say():
    assert list(departures(directions({"seed": (0, 1)}), "lr_sweep", 1.0)) == []
