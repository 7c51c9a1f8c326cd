"""Decayed probes: the policy, and its replay on the searches that were trained."""

import itertools
import math
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(REPOSITORY / "experiments" / "decayed_probes"))
from probe_policy import Probe, ProbeSettings, Winner, checkpoints, next_step


@st.composite
def all_settings(draw):
    first = draw(st.integers(1, 200))
    return ProbeSettings(
        first_step=first,
        last_step=first * draw(st.integers(1, 64)),
        growth=draw(st.floats(1.2, 4.0)),
        decay_fraction=draw(st.floats(0.01, 1.0)),
        keep=draw(st.sampled_from([0.25, 0.5, 1.0])),
        seed_noise=draw(st.sampled_from([0.0, 0.1])),
    )


def run(settings, costs):
    """The policy to its end: costs is (trial, step) -> cost; what it asked for, and the end."""
    probes, asked = {}, []
    while isinstance(found := next_step(settings, tuple(costs), probes), Probe):
        asked.append(found)
        probes[found.step] = {trial: costs[trial](found.step) for trial in found.trials}
    return asked, found


@given(all_settings())
def test_checkpoints_grow_from_the_first_to_the_last_at_most(settings):
    steps = checkpoints(settings)
    assert steps[0] == settings.first_step and steps[-1] <= settings.last_step
    assert all(a < b <= settings.growth * (a + 0.5) + 0.5 for a, b in itertools.pairwise(steps))
    assert settings.growth * (steps[-1] + 0.5) + 0.5 > settings.last_step


@given(all_settings(), st.data())
def test_a_winner_that_leads_at_every_checkpoint_is_kept(settings, data):
    level = {
        trial: data.draw(st.floats(1.0, 2.0)) for trial in range(data.draw(st.integers(1, 12)))
    }
    winner = data.draw(st.sampled_from(sorted(level)))
    level[winner] = 0.5
    costs = {trial: lambda step, c=cost: c + 1 / step for trial, cost in level.items()}
    _, found = run(settings, costs)
    assert found.trial == winner
    others = {*level} - {winner}
    assert {*found.eliminated} == others
    assert found.is_clear  # by 0.5, and the noise is 0.1


@given(all_settings(), st.data())
def test_every_step_of_trunks_and_probes_is_charged(settings, data):
    cost = st.floats(0.0, 1.0) | st.just(math.inf) | st.just(math.nan)
    drawn = {}
    costs = {
        trial: lambda step, t=trial: drawn.setdefault((t, step), data.draw(cost))
        for trial in range(data.draw(st.integers(1, 8)))
    }
    asked, found = run(settings, costs)
    trained = dict.fromkeys(costs, 0)
    probed = 0
    for probe in asked:
        for trial in probe.trials:
            trained[trial] = probe.step
            probed += settings.probe_steps(probe.step)
    assert found.steps == sum(trained.values()) + probed
    # Nobody comes back, fewer go on each time, and everybody who is left behind is named with it.
    for earlier, later in itertools.pairwise(asked):
        assert {*later.trials} < {*earlier.trials} or settings.keep == 1.0
    assert {*found.eliminated} | {found.trial} == {*costs}
    assert all(trained[trial] == step for trial, step in found.eliminated.items())
    assert trained[found.trial] == found.step == max(trained.values())


@given(all_settings(), st.data())
def test_the_numbers_of_trials_do_not_matter(settings, data):
    values = data.draw(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8, unique=True))
    order = data.draw(st.permutations(range(len(values))))
    _, one = run(settings, {n: lambda step, v=v: v for n, v in enumerate(values)})
    _, other = run(settings, {order[n]: lambda step, v=v: v for n, v in enumerate(values)})
    assert order[one.trial] == other.trial and one.steps == other.steps
    assert {order[t]: step for t, step in one.eliminated.items()} == other.eliminated


def test_trials_within_the_noise_go_on_and_the_end_says_that_it_is_not_clear():
    settings = ProbeSettings(10, 40, keep=1.0, seed_noise=0.1, clear=2.0)
    level = {0: 0.50, 1: 0.60, 2: 1.0}  # told apart from 0.283 on
    asked, found = run(settings, {t: lambda step, v=v: v for t, v in level.items()})
    assert [(probe.step, probe.trials) for probe in asked] == [
        (10, (0, 1, 2)),
        (20, (0, 1)),
        (40, (0, 1)),
    ]
    assert found == Winner(0, 40, False, 3 * (10 + 1) + 2 * (10 + 2) + 2 * (20 + 4), {2: 10, 1: 40})
    sure = ProbeSettings(10, 40, keep=1.0, seed_noise=0.01)
    assert run(sure, {t: lambda step, v=v: v for t, v in level.items()})[1] == Winner(
        0, 10, True, 33, {2: 10, 1: 10}
    )


def test_where_all_diverge_one_is_left_all_the_same():
    _, found = run(ProbeSettings(1, 8), {t: lambda step: math.nan for t in range(4)})
    assert found.trial == 0 and not found.is_clear


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"first_step": 0}, "first_step = 0: should be from 1 to last_step = 8"),
        ({"first_step": 9}, "first_step = 9"),
        ({"growth": 1.0}, "growth = 1.0: should be more than 1"),
        ({"decay_fraction": 0.0}, "decay_fraction = 0.0"),
        ({"keep": 1.5}, "keep = 1.5"),
        ({"seed_noise": math.nan}, "seed_noise = nan"),
        ({"clear": -1.0}, "clear = -1.0"),
    ],
)
def test_impossible_settings_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        ProbeSettings(**{"first_step": 1, "last_step": 8, **fields})


def test_somebody_has_to_be_there():
    with pytest.raises(ValueError, match="no trial"):
        next_step(ProbeSettings(1, 8), (), {})


def test_the_replay_gives_the_table_that_is_shown(tmp_path):
    folder = REPOSITORY / "experiments" / "decayed_probes"
    shutil.copy(folder / "searches.json", tmp_path)
    command = [sys.executable, "experiments/decayed_probes/decayed_probes.py", "replay"]
    command.append(f"--file={tmp_path / 'searches.json'}")
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    assert (tmp_path / "table.md").read_text() == (folder / "table.md").read_text()
    assert (tmp_path / "regret.png").exists()
