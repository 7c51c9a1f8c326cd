"""How good are planned rounds? Simulated studies, whose truth is known; nothing is trained.

    .venv/bin/python experiments/round_planning/simulate_rounds.py [--problems N] [--seed N]

budgetflow's planner, policy, derivation, re-runs and verdicts run on random synthetic problems
(simulated_problems.py), by several plans at the same budget. The table says how far the
final choice of each is from the best setting there is, and how often a verdict on whether an
earlier choice held is wrong.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from simulated_problems import DECAY, DECAYS, PRODUCTION_STEPS, Problem, draw_problem
from simulated_studies import NO_OVERRIDES, Result, RoundOfPlan, Verdicted, plan_of, run_rounds

from budgetflow.base.errors import ConfigError
from budgetflow.config import choices
from budgetflow.playbook.derived.search_space import Overrides

BUDGETS = (5, 8, 16, 32)
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Strategy:
    """A way to spend a budget.

    Attributes:
        fields: of the config, that are not at their defaults.
        overrides: what becomes of a hyperparameter instead of what its tag says.
    """

    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    overrides: Overrides = dataclasses.field(default_factory=lambda: NO_OVERRIDES)


DEFAULT = "two rounds (default)"
_CHECKED = {"search__seeds": 3, "search__reruns": 1}
# Not by a field of planned rounds: for the rule that carries a decay over in steps.
_SHARES: Overrides = {DECAY: choices(DECAY, *DECAYS)}
STRATEGIES = {
    "one round": Strategy({"rounds__num_rounds": 1}),
    DEFAULT: Strategy(),
    "three rounds": Strategy({"rounds__num_rounds": 3}),
    "four rounds": Strategy({"rounds__num_rounds": 4}),
    "two, a quarter for the last": Strategy({"rounds__last_round_share": 0.25}),
    "two, three quarters for the last": Strategy({"rounds__last_round_share": 0.75}),
    "two, the first at 5 %": Strategy({"rounds__first_round_fraction": 0.05}),
    "two, the first at 25 %": Strategy({"rounds__first_round_fraction": 0.25}),
    "two, the first at 50 %": Strategy({"rounds__first_round_fraction": 0.5}),
    "two, no re-runs": Strategy({"search__reruns": 0}),
    "two, 3 seeds and 1 re-run": Strategy(_CHECKED),
    "three, 3 seeds and 1 re-run": Strategy({"rounds__num_rounds": 3, **_CHECKED}),
    "two, decay swept in shares of the run": Strategy(overrides=_SHARES),
    "the same, the first at 25 %": Strategy({"rounds__first_round_fraction": 0.25}, _SHARES),
}
# By budget, then by name of the strategy; those whose least trials the budget pays for.
Plans = Mapping[int, Mapping[str, Sequence[RoundOfPlan]]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a problem.

    Attributes:
        problem: the problem.
        regrets: by budget and strategy, how much higher than the lowest possible the true mean loss
            of the final choice is, as a share of it.
        verdicts: by budget and strategy.
    """

    problem: Problem
    regrets: dict[tuple[int, str], float]
    verdicts: dict[tuple[int, str], tuple[Verdicted, ...]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=_positive, default=1000, help="how many (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first problem (0)")
    words = f"in production runs' worth of steps {BUDGETS}"
    parser.add_argument("--budgets", type=_positive, nargs="+", default=BUDGETS, help=words)
    parser.add_argument("--processes", type=_positive, default=1, help="side by side (1)")
    folder = Path(__file__).parent
    parser.add_argument("--out", type=Path, default=folder / "table.md", help="the table's file")
    options = parser.parse_args(arguments)
    if options.seed < 0:
        parser.error(f"--seed = {options.seed}: should be at least 0")
    if not options.out.absolute().parent.is_dir():
        parser.error(f"--out = {options.out}: there is no such folder")
    plans = make_plans(options.budgets)
    if DEFAULT not in plans[min(plans)]:
        parser.error(f"--budgets: {min(plans)} does not pay for two rounds; 5 does")
    outcomes = list(_simulated(plans, options.problems, options.seed, options.processes))
    lines = table(plans, outcomes, options.seed)
    options.out.write_text("\n".join(lines).rstrip() + "\n")
    print(f"wrote {options.out}")


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number}: should be at least 1")
    return number


def make_plans(budgets: Sequence[int]) -> Plans:
    """The plans of all strategies for budgets in production runs' worth of steps."""
    plans: dict[int, dict[str, Sequence[RoundOfPlan]]] = {budget: {} for budget in budgets}
    for budget in budgets:
        for name, strategy in STRATEGIES.items():
            try:
                plans[budget][name] = plan_of(budget * PRODUCTION_STEPS, **strategy.fields)
            except ConfigError:
                continue  # what is left out has no figures in the table
    return plans


def simulate(plans: Plans, seed: int) -> Outcome:
    """Runs all plans on one random problem."""
    problem = draw_problem(np.random.default_rng(seed))
    results: dict[tuple[int, str], Result] = {
        (budget, name): run_rounds(problem, told, seed, STRATEGIES[name].overrides)
        for budget, of_budget in plans.items()
        for name, told in of_budget.items()
    }
    return Outcome(
        problem,
        {key: result.cost / problem.best_cost - 1 for key, result in results.items()},
        {key: result.verdicts for key, result in results.items()},
    )


def _simulated(plans: Plans, problems: int, seed: int, processes: int) -> Iterator[Outcome]:
    """The outcomes of problems, with a line now and then."""
    began = time.monotonic()
    seeds = range(seed, seed + problems)
    with concurrent.futures.ProcessPoolExecutor(processes) as pool:
        done = pool.map(simulate, [plans] * problems, seeds, chunksize=5)
        for count, outcome in enumerate(done, start=1):
            yield outcome
            if count % max(1, problems // 20) == 0:
                print(f"{count} of {problems}: {time.monotonic() - began:.0f} s", flush=True)


def table(plans: Plans, outcomes: Sequence[Outcome], seed: int) -> list[str]:
    """The tables, in Markdown."""
    last = seed + len(outcomes) - 1
    lines = [f"<!-- Written by simulate_rounds.py: problems {seed} to {last}. -->"]
    for budget, of_budget in plans.items():
        lines += ["", f"## A budget of {budget} production runs", ""]
        lines += _regret_table(budget, of_budget, outcomes)
    largest = max(plans)
    lines += ["", f"## Median regret on parts of the problems, {largest} production runs", ""]
    lines += _parts_table(largest, plans[largest], outcomes)
    return [*lines, "", "## Did it hold?", "", *_verdict_table(plans, outcomes)]


def _regret_table(
    budget: int, of_budget: Mapping[str, Sequence[RoundOfPlan]], outcomes: Sequence[Outcome]
) -> Iterator[str]:
    regrets = np.array([[o.regrets[budget, name] for name in of_budget] for o in outcomes])
    lowest = regrets == regrets.min(axis=1, keepdims=True)
    best = (lowest / lowest.sum(axis=1, keepdims=True)).mean(axis=0)
    default = list(of_budget).index(DEFAULT)
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(outcomes), size=(RESAMPLES, len(outcomes)))
    medians = np.stack([np.median(regrets[rows], axis=0) for rows in drawn])
    low, high = np.quantile(medians - medians[:, [default]], [0.025, 0.975], axis=0)
    yield (
        "| | steps x trials | regret: median | quartiles | 9 in 10 below | best of all "
        "| median minus default's (95 %) | better : worse than default |"
    )
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for column, (name, told) in enumerate(of_budget.items()):
        each = regrets[:, column]
        first, median, third, ninth = np.quantile(each, [0.25, 0.5, 0.75, 0.9])
        versus, than_default = "", ""
        if column != default:
            difference = median - np.median(regrets[:, default])
            versus = f"{_points(difference)} ({_points(low[column])} to {_points(high[column])})"
            better, worse = each < regrets[:, default], each > regrets[:, default]
            than_default = f"{better.mean():.0%} : {worse.mean():.0%}"
        yield (
            f"| {name} | {_in_words(told)} | {median:.1%} | {first:.1%} to {third:.1%} "
            f"| {ninth:.1%} | {best[column]:.0%} | {versus} | {than_default} |"
        )


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def _in_words(told: Sequence[RoundOfPlan]) -> str:
    """Each round's length and trials."""
    first, *later = told
    trials = [(r.length, r.points + r.seeds * (1 + r.reruns)) for r in later]
    return ", ".join(f"{length} x {n}" for length, n in [(first.length, first.points), *trials])


def _parts_table(
    budget: int, of_budget: Mapping[str, Sequence[RoundOfPlan]], outcomes: Sequence[Outcome]
) -> Iterator[str]:
    problems = [outcome.problem for outcome in outcomes]
    noise = np.array([problem.noise for problem in problems])
    kinds = np.array([problem.kind for problem in problems])
    moves = np.array([abs(problem.weight_decay_drift) for problem in problems])
    model_moves = np.array([any(problem.offset_drifts) for problem in problems])
    parts = {
        "noisy quadratic": kinds == "NoisyQuadratic",
        "annealed power law": kinds == "AnnealedPowerLaw",
        "less noise": noise < np.median(noise),
        "more noise": noise >= np.median(noise),
        "weight decay moves less": moves < np.median(moves),
        "moves more": moves >= np.median(moves),
        "models keep their order": ~model_moves,
        "may not": model_moves,
    }
    parts = {name: chosen for name, chosen in parts.items() if chosen.any()}
    yield "| | " + " | ".join(f"{n} ({chosen.sum()})" for n, chosen in parts.items()) + " |"
    yield "| --- |" + " ---: |" * len(parts)
    for name in of_budget:
        regrets = np.array([outcome.regrets[budget, name] for outcome in outcomes])
        medians = [f"{np.median(regrets[chosen]):.1%}" for chosen in parts.values()]
        yield f"| {name} | " + " | ".join(medians) + " |"


def _verdict_table(plans: Plans, outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield (
        "| production runs | | verdicts | truly the best run again | held | did not hold "
        "| confident and wrong (95 %) | of the confident |"
    )
    yield "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for budget, of_budget in plans.items():
        seeded = [name for name, told in of_budget.items() if told[-1].seeds > 1]
        others = [name for name in of_budget if name not in seeded]
        for title, names in [*((n, [n]) for n in seeded), ("all with one seed", others)]:
            verdicts = [v for o in outcomes for name in names for v in o.verdicts[budget, name]]
            yield f"| {budget} | {title} | {_verdicts_in_words(verdicts)} |"


def _verdicts_in_words(verdicts: Sequence[Verdicted]) -> str:
    """The columns of the table of verdicts, from the third on."""
    count = len(verdicts)
    if not count:
        return "0 | | | | |"
    said = collections.Counter(v.verdict for v in verdicts)
    best, wrong = sum(v.truly_best for v in verdicts), sum(map(is_wrong, verdicts))
    confident = said["held"] + said["did_not_hold"]
    low, high = _exact_interval(wrong, count)
    columns = [
        f"{count}",
        f"{best / count:.0%}",
        f"{said['held'] / count:.0%}",
        f"{said['did_not_hold'] / count:.0%}",
        f"{wrong / count:.1%} ({low:.1%} to {high:.1%})",
        f"{wrong / confident:.1%}" if confident else "",
    ]
    return " | ".join(columns)


def is_wrong(verdict: Verdicted) -> bool:
    """Whether a verdict is confident and not the truth."""
    said = {"held": True, "did_not_hold": False}
    return verdict.verdict in said and said[verdict.verdict] != verdict.truly_best


def _exact_interval(count: int, total: int) -> tuple[float, float]:
    """The exact 95 % interval of a binomial's probability (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    low = beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return float(low), float(high)


if __name__ == "__main__":
    main()
