"""What budgetflow's decisions would have said on AlgoPerf's tuning trials.

    .venv/bin/python experiments/replayed_trials/replay.py --curves=PATH

PATH is a file of trials as README.md describes it. Writes table.md, or what --output names.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from calibration import (
    MIN_TRIALS,
    Forecast,
    Race,
    forecasts,
    moves_noise,
    races,
    recalibrated,
    robust_sd,
    seeds_noise,
    with_repetitions,
)
from preferences import WHOLE_SETTING, Preference, preferences
from trials import Study, read_studies

from budgetflow.playbook.common.competing import compete
from budgetflow.playbook.common.rank_correlation import RankCorrelation, rank_correlation
from budgetflow.playbook.rounds.best_step import diagnose

FRACTIONS = (0.10, 0.25, 0.50)
# Of the stated probabilities; those from 0.7 to 0.9 are the ones said to be "80 %".
BINS = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)
VERDICTS = ("too_long", "too_short", "about_right", "undecided")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", required=True, help="the file of trials, .jsonl.gz")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "table.md")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    studies = read_studies(options.curves)
    lines = [*_data(studies), *_diagnoses(studies), *_leaders(studies)]
    lines += [*_reliability(studies), *_held(studies), *_preferences(studies)]
    options.output.write_text("\n".join(lines).rstrip() + "\n")
    print(f"{options.output}: {len(studies)} studies in {time.monotonic() - began:.0f} s")


def _data(studies: Sequence[Study]) -> Iterator[str]:
    complete = sum(len(study.trials) for study in studies)
    censored = sum(study.censored for study in studies)
    pools = {study.pool for study in studies}
    yield "<!-- Written by replay.py. -->"
    yield (
        f"{len(studies)} studies in {len(pools)} pools of repetitions; {complete} complete trials, "
        f"{censored} censored ones left out."
    )


def _diagnoses(studies: Sequence[Study]) -> Iterator[str]:
    yield from ("", "## The best-step diagnosis of each study", "")
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for study in studies:
        verdict = diagnose(compete(study.trials, study.selection), study.length).verdict
        counts[study.submission][verdict] += 1
        counts["**all**"][verdict] += 1
    rows = [
        (name, str(sum(found.values())), *(str(found[v]) for v in VERDICTS))
        for name, found in sorted(counts.items(), key=lambda item: (item[0] == "**all**", item[0]))
    ]
    yield from _table(("submission", "studies", *VERDICTS), rows)


def _leaders(studies: Sequence[Study]) -> Iterator[str]:
    yield from ("", "## How often the leader ends first", "")
    rows = []
    for fewest, fraction in itertools.product((MIN_TRIALS, MIN_TRIALS + 1), FRACTIONS):
        found = [race for race in races(studies, fraction) if len(race.numbers) >= fewest]
        if not found:
            continue
        sizes = np.array([len(race.numbers) for race in found])
        taus = [tau.tau for tau in map(_tau, found) if tau]
        rows.append(
            (
                f"{fraction:.0%}",
                _share(sum(race.leader_ends_first for race in found), len(found)),
                f"{np.mean(1 / sizes):.0%}",
                f"{sizes.mean():.1f} ({fewest} or more)",
                f"{np.mean(taus):.2f}" if taus else "-",
                f"{seeds_noise(found)(found[0]):.2%}",
                f"{np.median([robust_sd(race.moves) for race in found]):.2%}",
                f"{np.median([race.spread for race in found]):.2%}",
            )
        )
    columns = ("of the run", "ends first", "by chance", "trials a study", "tau-b")
    yield from _table((*columns, "seeds", "moves", "apart"), rows)


def _tau(race: Race) -> RankCorrelation | None:
    """How well the early order of a study's trials agrees with the order of their ends."""
    return rank_correlation([(cost,) for cost in race.early], [(cost,) for cost in race.end])


def _reliability(studies: Sequence[Study]) -> Iterator[str]:
    yield from ("", "## Is the stated probability that the leader ends first calibrated?", "")
    rows = []
    for fraction in FRACTIONS:
        found = races(studies, fraction)
        if len({race.study.family for race in found}) < 2:
            continue
        moves = forecasts(found, moves_noise)
        for name, said in (
            ("seeds", forecasts(found, seeds_noise)),
            ("moves", moves),
            ("recalibrated", recalibrated(moves)),
        ):
            rows.append((f"{fraction:.0%}", name, *_calibration(said)))
    bins = [f"{low:.0%} to {high:.0%}" for low, high in itertools.pairwise(BINS)]
    columns = ("of the run", "noise", "said", "came", "Brier", "Brier of the share", *bins)
    yield from _table(columns, rows)


def _calibration(said: Sequence[Forecast]) -> Iterator[str]:
    """Means, scores, and in each bin what was said on average and how often it came."""
    probabilities = np.array([forecast.said for forecast in said])
    came = np.array([forecast.came for forecast in said], float)
    yield f"{probabilities.mean():.0%}"
    yield f"{came.mean():.0%}"
    yield f"{np.mean((probabilities - came) ** 2):.3f}"
    yield f"{came.mean() * (1 - came.mean()):.3f}"
    for low, high in itertools.pairwise(BINS):
        inside = (probabilities >= low) & ((probabilities < high) | (high == 1))
        if not inside.any():
            yield "-"
            continue
        yield f"{probabilities[inside].mean():.0%}: {_share(int(came[inside].sum()), inside.sum())}"


def _held(studies: Sequence[Study]) -> Iterator[str]:
    yield from ("", "## What `held` says, checked by other repetitions", "")
    rows = []
    for fraction, judged in itertools.product(FRACTIONS, ((0, 1), (0, 1, 2))):
        checked = tuple(r for r in range(5) if r not in judged)
        found = with_repetitions(races(studies, fraction), judged, checked)
        held = [best for facts, best, _ in found if facts.verdict == "held"]
        did_not = [better for facts, _, better in found if facts.verdict == "did_not_hold"]
        rows.append(
            (
                f"{fraction:.0%}",
                str(len(judged)),
                str(len(found)),
                _share(sum(held), len(held)),
                _share(sum(did_not), len(did_not)),
                str(len(found) - len(held) - len(did_not)),
            )
        )
    columns = ("of the run", "seeds", "pools", "held: confirmed", "did not hold: confirmed")
    yield from _table((*columns, "cannot tell"), rows)


def _preferences(studies: Sequence[Study]) -> Iterator[str]:
    yield from ("", "## Which preferred values move from 25 % of the run to its end", "")
    rows = [
        (
            field,
            str(len(row.submissions)),
            _share(row.same, row.pools),
            f"{row.by_chance / row.pools:.0%}",
            *(("-", "-") if field == WHOLE_SETTING else (str(row.up), str(row.down))),
        )
        for field, row in sorted(preferences(studies, 0.25).items(), key=_more_than_chance)
    ]
    yield from _table(("hyperparameter", "submissions", "same", "by chance", "up", "down"), rows)


def _more_than_chance(item: tuple[str, Preference]) -> float:
    """Sorts those first that stay more often than by chance."""
    _, row = item
    return (row.by_chance - row.same) / row.pools


def _share(count: int, total: int) -> str:
    """A share with its counts and 95 % interval (Clopper and Pearson's, exact)."""
    if not total:
        return "none"
    from scipy.stats import binomtest

    interval = binomtest(int(count), int(total)).proportion_ci(0.95)
    return f"{count}/{total} = {count / total:.0%} ({interval.low:.0%} to {interval.high:.0%})"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"| --- |{' ---: |' * (len(columns) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    main()
