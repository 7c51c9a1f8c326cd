from conftest import trial_record
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.competing import compete
from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.derived.trials import choose_reruns

METRIC = "validation_error_rate"
SELECTION = Selection(METRIC)


def trial(number, best, **hyperparameters):
    """A trial that starts at 0.5, so that those under it compete."""
    rows = [{"step": 10, METRIC: 0.5}, {"step": 100, METRIC: best}]
    return trial_record(number, Schedule(0.1, 0, 100), rows, hyperparameters=hyperparameters)


def chosen(trials, count):
    return choose_reruns(compete(trials, SELECTION), count)


def test_the_runner_up_comes_first_then_one_of_each_part_of_the_ranks():
    trials = [trial(i, 0.1 + i / 100, lr=i) for i in range(8)]
    # Ranks 2 to 7 in two parts: 2, 3, 4 and 5, 6, 7; the farthest from those chosen of each.
    assert chosen(trials, 3) == (1, 4, 7)
    assert chosen(trials, 1) == (1,)
    assert chosen(trials, 0) == ()
    assert chosen(trials, 100) == tuple(range(1, 8))


def test_of_a_part_the_farthest_in_hyperparameters_is_taken():
    places = [0, 1, 1.1, 1.2, 50, 1.3]
    trials = [trial(i, 0.1 + i / 100, lr=lr, optimizer="sgd") for i, lr in enumerate(places)]
    assert chosen(trials, 2) == (1, 4)
    trials[2] = trial(2, 0.12, lr=1.1, optimizer="adam")
    assert chosen(trials, 2) == (1, 2)


def test_hopeless_trials_are_never_run_again():
    trials = [trial(0, 0.1, lr=1), trial(1, 0.9, lr=9), trial(2, 0.2, lr=2), trial(3, 0.8, lr=5)]
    trials[1].rows[0][METRIC] = trials[3].rows[0][METRIC] = 0.9
    assert chosen(trials, 3) == (2,)


def test_other_seeds_of_a_setting_are_no_settings_of_their_own():
    trials = [trial(i, 0.1 + i / 100, lr=i // 2, seed=i) for i in range(6)]
    assert chosen(trials, 5) == (2, 4)


values = st.one_of(st.floats(0, 10), st.sampled_from(["a", "b", None, True]), st.just((16, 16)))


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.dictionaries(st.sampled_from("ab"), values))),
    st.integers(0, 12),
    st.randoms(use_true_random=False),
)
def test_choices_compete_differ_and_do_not_hang_on_the_order(found, count, random):
    trials = [trial(i, best, **setting) for i, (best, setting) in enumerate(found)]
    numbers = chosen(trials, count)
    competition = compete(trials, SELECTION)
    competing = {t.trial: t.hyperparameters for t, _ in competition.competing}
    assert len(numbers) == len(set(numbers)) <= count
    settings = [competing[n] for n in numbers]
    assert all(settings.count(setting) == 1 for setting in settings)
    assert not competing or competition.competing[0][0].trial not in numbers
    shuffled = random.sample(trials, len(trials))
    assert chosen(shuffled, count) == numbers


def test_without_competitors_there_are_none():
    assert chosen([], 3) == ()
    assert chosen([trial(0, 0.1, lr=1)], 3) == ()
