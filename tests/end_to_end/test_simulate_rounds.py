"""Simulated studies: the surfaces, the chain of decisions on them, and the documented command."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.derived.earlier_choice import ALPHA

FOLDER = Path(__file__).parents[2] / "experiments" / "round_planning"
sys.path.insert(0, str(FOLDER))

import simulate_rounds  # noqa: E402
from simulated_problems import (  # noqa: E402
    MODEL,
    MODELS,
    PRODUCTION_STEPS,
    WEIGHT_DECAY,
    AnnealedPowerLaw,
    NoisyQuadratic,
    draw_problem,
    evaluation_steps,
    linear_rates,
)
from simulated_studies import plan_of, run_rounds  # noqa: E402

SURFACES = (NoisyQuadratic, AnnealedPowerLaw)


def generator(seed=0):
    return np.random.default_rng(seed)


def test_linear_rates_are_those_of_schedules():
    schedules = [Schedule(0.3, 0, 30, 10, "linear"), Schedule(2.0, 0, 0, 40, "linear")]
    expected = [schedule.learning_rates() for schedule in schedules]
    np.testing.assert_allclose(linear_rates([0.3, 2.0], [10, 40], 40), expected, rtol=1e-6)


def test_the_noisy_quadratic_is_the_mean_of_many_runs():
    surface = NoisyQuadratic(np.array([1.0, 0.1]), np.array([1.0, 4.0]), noise=0.3, floor=0.2)
    rates = linear_rates([0.5], [20], 40)
    rng = generator()
    theta = np.sqrt(surface.start) * rng.normal(size=(200_000, 2))
    losses = []
    for rate in rates[0]:
        gradient = surface.curvatures * theta
        gradient += np.sqrt(surface.noise * surface.curvatures) * rng.normal(size=theta.shape)
        theta = theta - rate * gradient
        losses.append(0.2 + np.mean(theta**2 @ surface.curvatures) / 2)
    found = surface.losses(rates, np.arange(1, 41))
    np.testing.assert_allclose(found[0], losses, rtol=0.01)


def test_the_power_law_is_the_published_one_for_a_single_peak():
    law = AnnealedPowerLaw(0.7, 0.5, 1.0, noise=0.4, memory=0.9, floor=0.5)
    (rates,) = linear_rates([0.8], [25], 50)
    s2 = 0.0
    for i in range(1, 50):
        s2 += sum((rates[k - 1] - rates[k]) * 0.9 ** (i - k) for k in range(1, i + 1))
    s1 = 1.0 + sum(rates) / (1 + 0.8**2)
    expected = (0.5 + 0.4 * 0.8) + 0.7 * s1**-0.5 - 0.4 * (1 - 0.9) * s2
    assert law.losses(rates[None], np.array([50]))[0, 0] == pytest.approx(expected)


@pytest.mark.parametrize("surface", SURFACES)
def test_too_high_a_rate_diverges_and_too_low_a_one_is_slow(surface):
    drawn = surface.draw(generator())
    rates = linear_rates([1e-4, 0.3, 4.0], [40, 40, 40], 400)
    low, good, high = drawn.losses(rates, evaluation_steps(400))[:, -1]
    assert good < low < math.inf
    assert high == math.inf


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("seed", range(5))
def test_no_setting_is_better_than_the_oracle(surface, seed):
    problem = draw_problem(generator(seed), surface)
    rng = generator(seed + 100)
    settings, schedules = [], []
    for _ in range(500):
        decay = round(PRODUCTION_STEPS * 10 ** rng.uniform(-2, 0))
        rate = problem.space[0].value_at(rng.random())
        schedules.append(Schedule(rate, 0, PRODUCTION_STEPS - decay, decay, "linear"))
        model = MODELS[int(np.argmin(problem.offsets))]
        settings.append({MODEL: model, WEIGHT_DECAY: problem.weight_decay})
    costs = problem.means(settings, schedules).min(axis=1)
    lowest = problem.best_cost
    assert lowest * 0.999 < costs.min() < 1.05 * lowest
    others = [s | {MODEL: MODELS[int(np.argmax(problem.offsets))]} for s in settings]
    worse = problem.means(others, schedules).min(axis=1)
    assert (worse[costs < math.inf] > costs[costs < math.inf]).all()


@pytest.mark.parametrize(("drift", "best_at_tenth"), [(0.0, 0.01), (-1.0, 0.1), (0.3, 0.01 / 2)])
def test_the_best_weight_decay_goes_with_a_power_of_the_length(drift, best_at_tenth):
    problem = draw_problem(generator(), weight_decay=0.01, weight_decay_drift=drift)
    problem = dataclasses.replace(problem, weight_decay_matters=0.1)
    schedules = [Schedule(0.1, 0, 32, 8, "linear")] * 3
    values = [best_at_tenth / 3, best_at_tenth, best_at_tenth * 3]
    low, best, high = problem.means([{MODEL: (32,), WEIGHT_DECAY: v} for v in values], schedules)
    assert (best < low).all() and (best < high).all()


def test_a_plan_is_that_of_planned_rounds_at_their_defaults():
    first, last = plan_of(16 * PRODUCTION_STEPS)
    assert (first.length, last.length) == (PRODUCTION_STEPS // 10, PRODUCTION_STEPS)
    assert (last.reruns, last.seeds) == (2, 1)
    trials = last.points + last.seeds * (1 + last.reruns)
    assert first.points * first.length + trials * last.length <= 16 * PRODUCTION_STEPS
    (only,) = plan_of(16 * PRODUCTION_STEPS, rounds__num_rounds=1)
    assert (only.length, only.points) == (PRODUCTION_STEPS, 16)


def test_without_noise_more_trials_at_full_length_are_never_worse():
    problem = draw_problem(generator(), noise=0.0)
    costs = [
        run_rounds(problem, plan_of(n * PRODUCTION_STEPS, rounds__num_rounds=1), 0).cost
        for n in (4, 16, 64)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < costs[0]
    assert costs[-1] >= 0.999 * problem.best_cost


def test_a_round_of_which_every_trial_diverges_has_no_choice():
    problem = draw_problem(generator(), NoisyQuadratic)
    surface = dataclasses.replace(problem.surface, curvatures=1e7 * problem.surface.curvatures)
    problem = dataclasses.replace(problem, surface=surface)
    found = run_rounds(problem, plan_of(5 * PRODUCTION_STEPS), 0)
    assert found.cost == math.inf
    assert found.verdicts == ()


KEEPS = {"offset_drifts": (0.0, 0.0, 0.0), "weight_decay_drift": 0.0}
# What becomes of the ranking from the first round to the last: attributes, and whether much of it
# can be told.
TRUTHS = {
    "holds": (KEEPS | {"noise": 1e-4, "offsets": (0.0, 0.3, 0.5)}, True),
    "flips": (
        {"noise": 1e-4, "offsets": (0.3, 0.0, 0.3), "offset_drifts": (0.6, 0.0, 0.6)},
        True,
    ),
    "drowned": ({"noise": 0.3}, False),
    "anything": ({}, True),
}


@pytest.mark.parametrize("luck_kept", [0.0, 0.8])
@pytest.mark.parametrize("truth", TRUTHS)
def test_confident_verdicts_are_wrong_less_often_than_stated(truth, luck_kept):
    """Over the whole chain: plan, rounds, derivation, re-runs, verdict."""
    told = plan_of(12 * PRODUCTION_STEPS, search__seeds=3, search__reruns=2)
    fixed, can_be_told = TRUTHS[truth]
    verdicts = []
    for seed in range(150):
        problem = draw_problem(generator(seed), luck_kept=luck_kept, **fixed)
        verdicts += run_rounds(problem, told, seed).verdicts
    assert len(verdicts) > 100
    wrong = sum(map(simulate_rounds.is_wrong, verdicts))
    assert wrong <= ALPHA * len(verdicts)
    confident = sum(v.verdict != "cannot_tell" for v in verdicts)
    assert (confident > len(verdicts) / 2) == can_be_told
    # The cases are what they are called.
    best = sum(v.truly_best for v in verdicts) / len(verdicts)
    assert best < 0.5 if truth == "flips" else True


def test_with_one_seed_nothing_is_said():
    told = plan_of(8 * PRODUCTION_STEPS)
    for seed in range(20):
        (verdict,) = run_rounds(draw_problem(generator(seed)), told, seed).verdicts
        assert verdict.verdict == "cannot_tell"


def rows_of(text, heading):
    """The rows of the table under a heading, by their first cell."""
    (section,) = (part for part in text.split("\n## ") if part.startswith(heading))
    cells = [
        [c.strip() for c in line.split("|")[1:-1]] for line in section.splitlines() if "|" in line
    ]
    return {row[0]: row[1:] for row in cells[2:]}


def test_the_command_writes_the_table(tmp_path):
    out = tmp_path / "table.md"
    command = [sys.executable, FOLDER / "simulate_rounds.py", "--problems=6", f"--out={out}"]
    done = subprocess.run(
        [*command, "--seed=3", "--budgets", "5", "16"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "6 of 6" in done.stdout
    text = out.read_text()
    assert "problems 3 to 8" in text
    rows = rows_of(text, "A budget of 16 production runs")
    assert list(rows) == list(simulate_rounds.STRATEGIES)
    assert rows["one round"][0] == "400 x 16"
    plans = simulate_rounds.make_plans([16])
    outcomes = [simulate_rounds.simulate(plans, seed) for seed in range(3, 9)]
    regrets = [outcome.regrets[16, "one round"] for outcome in outcomes]
    assert rows["one round"][1] == f"{np.median(regrets):.1%}"
    assert sum(float(row[4].rstrip("%")) for row in rows.values()) == pytest.approx(100, abs=7)
    assert "four rounds" not in rows_of(text, "A budget of 5 production runs")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--problems=0"], "should be at least 1"),
        (["--seed=-1"], "--seed = -1: should be at least 0"),
        (["--out=/nowhere/table.md"], "no such folder"),
        (["--budgets", "2"], "2 does not pay for two rounds; 5 does"),
    ],
)
def test_arguments_that_cannot_be(arguments, message, capsys):
    with pytest.raises(SystemExit):
        simulate_rounds.main(arguments)
    assert message in capsys.readouterr().err
