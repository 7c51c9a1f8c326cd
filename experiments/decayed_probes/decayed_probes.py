"""Do short decays off their trunks tell which trial is the best one? Trained, then replayed.

    .venv/bin/python experiments/decayed_probes/decayed_probes.py train [--searches 12]
    .venv/bin/python experiments/decayed_probes/decayed_probes.py replay

``train`` runs every trial of every search to its full length with its own decay (the truth, over
three seeds), and off its trunk, at steps that grow by the square root of 2, a decay of a tenth of
the steps so far (a probe) and the end of a complete run of that length. ``replay`` has policies
choose from these: decayed probes, promotion by the undecayed curve, ASHA, PASHA, complete short
runs; each is charged every step that it uses. Three workloads: Fashion-MNIST (pooled to 14 x 14,
20,000 images, an MLP), digits of which every update draws a fifth of the labels anew (an MLP), and
the next character of Python's help topics (a window of 8 characters, embedded).
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
from probe_policy import ProbeSettings, next_step
from probe_searches import DECAY, SEEDS, SPACES, TRIALS, WORKLOADS, train_search

FOLDER = Path(__file__).parent


def train(searches, path):
    """Trains all searches and writes what they measured."""
    found = []
    for number in range(searches):
        for workload in WORKLOADS:
            start = time.perf_counter()
            space = list(SPACES)[number % len(SPACES)]
            found.append(train_search(workload, space, number))
            print(f"{workload} {space} {number}: {time.perf_counter() - start:.0f} s", flush=True)
            path.write_text("[\n" + ",\n".join(map(json.dumps, found)) + "\n]\n")


def by_probes(search, first, noise, what="probe", keep=0.5):
    """The policy of probe_policy, or the same one on undecayed curves: trial, steps."""
    fraction = {"probe": 0.1, "trunk": 1e-9}[what]
    settings = ProbeSettings(
        first_step=search["steps"][first],
        last_step=search["length"],
        decay_fraction=fraction,
        keep=keep,
        seed_noise=noise,
    )
    measured = dict(zip(search["steps"], search[what], strict=True))
    probes, trials = {}, tuple(range(TRIALS))
    while not hasattr(found := next_step(settings, trials, probes), "trial"):
        at = min(measured, key=lambda step: abs(step - found.step))  # but for rounding
        probes[found.step] = dict(enumerate(measured[at]))
    return found.trial, found.steps


def by_complete_runs(search, first, noise):
    """Complete runs of growing length off the trunks, each with a decay of a fifth; halved."""
    going, steps, before = list(range(TRIALS)), 0, 0
    for index in range(first, len(search["steps"]), 2):
        length, costs = search["steps"][index], search["complete"][index]
        trunk = round((1 - DECAY) * length)
        steps += len(going) * (length - before)
        before = trunk
        ranked = sorted(going, key=lambda t: (costs[t], t))
        close = [t for t in ranked if costs[t] - costs[ranked[0]] <= 2 * math.sqrt(2) * noise]
        going = (close or ranked)[: max(1, len(going) // 2)]
        if len(going) == 1:
            break
    return going[0], steps


def by_asha(search, first, eta, patient=False):
    """ASHA (Li et al. 2020), one worker, on undecayed curves; PASHA (Bohdal et al. 2023)."""
    length, steps = search["length"], np.array(search["steps"])
    rungs = []
    at = float(steps[first])
    while at < 0.99 * length:
        rungs.append(int(np.argmin(abs(np.log(steps / at)))))
        at *= eta
    rungs.append(len(steps) - 1)
    results = [{} for _ in rungs]
    top, spent, waiting = (
        (min(1, len(rungs) - 1) if patient else len(rungs) - 1),
        0,
        list(range(TRIALS)),
    )
    while True:
        job = None
        for rung in range(top - 1, -1, -1):
            best = sorted(results[rung], key=lambda t: (results[rung][t], t))
            best = best[: len(best) // eta]
            job = next(((t, rung + 1) for t in best if t not in results[rung + 1]), None)
            if job:
                break
        if job is None and waiting:
            job = waiting.pop(0), 0
        if job is None:
            break
        trial, rung = job
        spent += steps[rungs[rung]] - (steps[rungs[rung - 1]] if rung else 0)
        results[rung][trial] = search["trunk"][rungs[rung]][trial]
        if patient and rung == top < len(rungs) - 1:
            # It goes further where the two highest rungs do not agree on the order.
            both = sorted(results[top], key=results[top].get)
            top += both != sorted(results[top], key=results[top - 1].get)
    last = next(found for found in reversed(results) if found)
    return min(last, key=lambda t: (last[t], t)), int(spent)


METHODS = {
    "decayed probes": lambda s, first, noise: by_probes(s, first, noise),
    "undecayed, halved": lambda s, first, noise: by_probes(s, first, noise, "trunk"),
    "complete runs, halved": by_complete_runs,
    "ASHA, eta 3": lambda s, first, noise: by_asha(s, first, 3),
    "ASHA, eta 4": lambda s, first, noise: by_asha(s, first, 4),
    "PASHA, eta 3": lambda s, first, noise: by_asha(s, first, 3, patient=True),
}
# First checkpoints: a 32nd, a 16th and an eighth of the full length.
FIRSTS = {0: "1/32", 2: "1/16", 4: "1/8"}


def outcome(search, method, first):
    """A method's regret as a share of the best cost, whether the winner was kept, its steps."""
    truths = np.array(search["truth"])
    mean = truths.mean(0)
    usable = np.isfinite(truths).all(0)
    sd = math.sqrt(truths[:, usable].var(0, ddof=1).mean())
    mean = np.where(usable, mean, np.inf)
    # The noise of one seed's cost; that of good trials is about that of the median one.
    good = usable & (mean <= np.median(mean[usable]))
    sd = math.sqrt(truths[:, good].var(0, ddof=1).mean())
    trial, steps = METHODS[method](search, first, sd)
    regret = mean[trial] - mean.min()
    as_good = regret <= 2 * sd * math.sqrt(2 / SEEDS)
    return regret / mean.min(), regret == 0, as_good, steps / (TRIALS * search["length"])


def replay(path):
    """Replays all methods; writes tables, with how they differ from decayed probes, and a plot."""
    searches = json.loads(path.read_text())
    rng = np.random.default_rng(0)
    lines = []
    for workload in (*WORKLOADS, None):
        chosen = [s for s in searches if workload in (None, s["workload"])]
        lines += [f"**{workload or 'all'}**, {len(chosen)} searches", ""]
        lines.append("| method | first | steps | winner | as good | regret | more than probes |")
        lines.append("| --- | --- | ---: | ---: | ---: | ---: | --- |")
        for first, name in FIRSTS.items():
            probes = np.array([outcome(s, "decayed probes", first) for s in chosen])
            for method in METHODS:
                found = np.array([outcome(s, method, first) for s in chosen])
                regret, best, as_good, steps = found.mean(0)
                apart = found[:, 0] - probes[:, 0]
                drawn = rng.choice(apart, (4000, len(apart))).mean(1)
                low, high = np.quantile(drawn, (0.05, 0.95))
                cells = [method, name, f"{steps:.1%}", f"{best:.0%}", f"{as_good:.0%}"]
                cells += [f"{regret:.2%}", f"{apart.mean():+.2%} ({low:+.2%} to {high:+.2%})"]
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    path.with_name("table.md").write_text("\n".join(lines))
    plot(searches, path.with_name("regret.png"))
    print("\n".join(lines))


def plot(searches, path):
    """Mean regret over mean steps, a panel a workload, a line a method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, len(WORKLOADS) + 1)
    for axes, workload in zip(panels, (*WORKLOADS, None), strict=True):
        chosen = [s for s in searches if workload in (None, s["workload"])]
        for number, method in enumerate(METHODS):
            found = [
                np.mean([outcome(s, method, first) for s in chosen], axis=0) for first in FIRSTS
            ]
            regret, steps = [each[0] for each in found], [each[3] for each in found]
            width = 2.5 if number == 0 else 1.2
            axes.plot(steps, np.maximum(regret, 1e-4), "o-", lw=width, label=method)
        axes.set(title=workload or "all", xlabel="steps, of all to the end", yscale="log")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("regret, of the best cost")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.savefig(path, dpi=100)


def main():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "replay"))
    parser.add_argument("--searches", type=int, default=12, help="of each workload")
    parser.add_argument("--file", type=Path, default=FOLDER / "searches.json")
    arguments = parser.parse_args()
    if arguments.what == "train":
        arguments.file.parent.mkdir(exist_ok=True)
        train(arguments.searches, arguments.file)
    else:
        replay(arguments.file)


if __name__ == "__main__":
    main()
