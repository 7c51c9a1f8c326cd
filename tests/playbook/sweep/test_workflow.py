import pytest

from budgetflow.playbook.sweep.words import workflow


@pytest.mark.parametrize(
    ("found", "stated", "sentence"),
    [
        (
            "not_compute_bound",
            None,
            "The workload is not compute-bound: tune in one round of this length or more "
            "(config.kind = 'round'), and let its best steps say whether the length is right.",
        ),
        (
            "compute_bound",
            "compute_bound",
            "The workload is compute-bound: tune in rounds of growing length, the last as long as "
            "you can wait for (config.kind = 'rounds').",
        ),
        (
            "undecided",
            None,
            "The workload is undecided: settle that first, or state it with config.regime.",
        ),
        (
            "undecided",
            "compute_bound",
            "The config states that the workload is compute-bound, which holds over what the sweep "
            "shows (undecided): tune in rounds of growing length, the last as long as you can wait "
            "for (config.kind = 'rounds').",
        ),
    ],
)
def test_what_follows(found, stated, sentence):
    assert workflow(found, stated) == sentence
