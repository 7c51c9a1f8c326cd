"""How good are forecasts, on curves that others measured and this code was not made on?

    .venv/bin/python experiments/forecasts/score_forecasts.py --curves=PATH pretraining
    .venv/bin/python experiments/forecasts/score_forecasts.py --curves=PATH laws
    .venv/bin/python experiments/forecasts/score_forecasts.py configurations
    .venv/bin/python experiments/forecasts/score_forecasts.py --curves=PATH trials

PATH is a folder as experiments/forecasts/README.md describes it. Each writes a table, named after
it, into experiments/forecasts, or into what --output names.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from forecast_curves import configurations, pretraining_curve, tuning_trials

from budgetflow.playbook.forecasts.expected import CannotTell, wider_after
from budgetflow.playbook.forecasts.laws import LAWS
from budgetflow.playbook.forecasts.loss_forecast import Curve, FittedLaw, fit

SHORT = (
    *("constant_24000", "cosine_24000", "wsd_20000_24000", "wsdld_20000_24000"),
    *("wsdcon_3", "wsdcon_9", "wsdcon_18"),
)
# What is asked for, from which step on: the constant run shares its first steps with short ones.
LONG = {"cosine_72000": 0, "constant_72000": 24_000}
PLOTTED = ("constant_24000", "cosine_24000", "wsd_20000_24000")
SIZES = ("25M", "100M")
MODEL_SIZES = 8
# Configurations speak for each other within this factor of the learning rate.
NEAR = 2.0


@dataclasses.dataclass(frozen=True)
class Score:
    """How one curve's forecast turned out.

    Attributes:
        group: of the table's rows.
        what: was forecast, from what.
        law: that it followed.
        error: at the end, relative.
        mean_error: over the evaluations, without sign, relative.
        inside: of each evaluation, whether the interval held it.
        width: half the interval at the end, relative.
        needed: of each evaluation, how many times as wide the interval had to be.
        reason: why there was none, or None.
    """

    group: str
    what: str
    law: str = ""
    error: float = 0.0
    mean_error: float = 0.0
    inside: tuple[bool, ...] = ()
    width: float = 0.0
    needed: tuple[float, ...] = ()
    reason: str | None = None


def score(
    group: str,
    what: str,
    law: FittedLaw | CannotTell,
    learning_rates: np.ndarray,
    steps: np.ndarray,
    losses: np.ndarray,
) -> Score:
    """The forecasts of a run at some steps beside the losses that came."""
    expected = law if isinstance(law, CannotTell) else law.forecast(learning_rates, steps)
    if isinstance(expected, CannotTell):
        return Score(group, what, reason=expected.reason)
    assert isinstance(law, FittedLaw)
    loss, low, high = np.array([dataclasses.astuple(each) for each in expected]).T
    errors = loss / losses - 1
    return Score(
        group,
        what,
        law=law.law,
        error=float(errors[-1]),
        mean_error=float(np.mean(np.abs(errors))),
        inside=tuple(((low <= losses) & (losses <= high)).tolist()),
        width=float(high[-1] / low[-1] - 1) / 2,
        needed=tuple(e.width_needed(came) for e, came in zip(expected, losses, strict=True)),
    )


def pretraining(folder: Path, laws: Sequence[str] = tuple(LAWS), every: int = 1) -> Iterator[Score]:
    """The 72,000-step runs from every three of the runs of 24,000 steps or fewer.

    ``every``: 5 for a fifth of the threes.
    """
    for size in SIZES:
        files = folder / "multi_power_law" / size
        curves = {name: pretraining_curve(files / f"{name}.csv") for name in (*SHORT, *LONG)}
        for three in [*itertools.combinations(SHORT, 3)][::every]:
            law = fit([curves[name] for name in three], laws)
            for name, start in LONG.items():
                run = curves[name]
                asked, what = run.steps > start, f"{name} from {', '.join(three)}"
                measured = run.steps[asked], run.losses[asked]
                yield score(f"{size} {name}", what, law, run.learning_rates, *measured)


def left_out_configurations(limit: int) -> Iterator[Score]:
    """The last loss of scan-bench's test configurations, from its training ones of like size."""
    train, test = configurations("train"), configurations("test")
    edges = np.quantile([size for size, _ in train], np.linspace(0, 1, MODEL_SIZES + 1))[1:-1]
    for group in range(MODEL_SIZES):
        known = [curve for size, curve in train if np.digitize(size, edges) == group]
        asked = [curve for size, curve in test if np.digitize(size, edges) == group]
        low, high = (edges[max(group - 1, 0)], edges[min(group, len(edges) - 1)])
        name = f"{low / 1e6:.0f} to {high / 1e6:.0f} M parameters"
        if group in (0, MODEL_SIZES - 1):
            name = f"up to {high / 1e6:.0f} M" if group == 0 else f"over {low / 1e6:.0f} M"
        for curve in asked[:limit]:
            rate = curve.learning_rates.max()
            near = [c for c in known if 1 / NEAR < c.learning_rates.max() / rate < NEAR]
            end = curve.steps[-1:], curve.losses[-1:]
            yield score(name, "a configuration", fit(near), curve.learning_rates, *end)


def trials(folder: Path) -> Iterator[Score]:
    """The last error of AlgoPerf's trials from their first halves, learning rates not known."""
    for workload, study, steps, errors in tuning_trials(folder / "algoperf_tuning_trials.jsonl.gz"):
        half = steps <= steps[-1] / 2
        rates = np.ones(steps[-1])
        law = fit([Curve(rates, steps[half], errors[half])])
        yield score(workload, study, law, rates, steps[-1:], errors[-1:])


def with_receipts(scores: Iterable[Score]) -> Iterator[Score]:
    """The same forecasts, widened by what those of the workload's other repetitions needed."""
    told = [one for one in scores if one.reason is None]
    for one in told:
        others = [o for o in told if o.group == one.group and o.what != one.what]
        wider = wider_after([needed for other in others for needed in other.needed])
        yield dataclasses.replace(
            one,
            inside=tuple(needed <= wider for needed in one.needed),
            needed=tuple(needed / wider for needed in one.needed),
            width=one.width * wider,
        )


def table(scores: Iterable[Score]) -> Iterator[str]:
    """Rows of figures by group, and then why there were no forecasts."""
    groups: dict[str, list[Score]] = collections.defaultdict(list)
    for one in scores:
        groups[one.group].append(one)
        groups["**all**"].append(one)
    heads = (
        *("forecasts", "none", "median error at the end", "90 % of errors under", "mean error"),
        *("coverage", "coverage at the end", "median half width", "width needed for 90 %"),
    )
    yield "| | " + " | ".join(heads) + " |"
    yield "| --- |" + " ---: |" * 9
    for name in sorted(groups, key=lambda name: name == "**all**"):
        told = [one for one in groups[name] if one.reason is None]
        none = len(groups[name]) - len(told)
        if not told:
            yield f"| {name} | 0 | {none} |" + " |" * 7
            continue
        ends = np.abs([one.error for one in told])
        cells = [
            *(f"{np.median(ends):.2%}", f"{np.quantile(ends, 0.9):.2%}"),
            f"{np.median([one.mean_error for one in told]):.2%}",
            f"{np.mean([np.mean(one.inside) for one in told]):.0%}",
            f"{np.mean([one.inside[-1] for one in told]):.0%}",
            f"{np.median([one.width for one in told]):.2%}",
            f"{np.quantile(np.concatenate([one.needed for one in told]), 0.9):.2f}",
        ]
        yield f"| {name} | {len(told)} | {none} | " + " | ".join(cells) + " |"
    reasons = collections.Counter(
        one.reason.split(":")[0] for one in groups["**all**"] if one.reason is not None
    )
    laws = collections.Counter(one.law for one in groups["**all**"] if one.reason is None)
    yield ""
    yield "Laws: " + ", ".join(f"{name} {count}" for name, count in laws.most_common()) + "."
    for reason, count in reasons.most_common():
        yield f"- {count} times none: {reason}"


def each(scores: Iterable[Score]) -> Iterator[str]:
    """One row for each forecast."""
    yield "| | from | law | error at the end | mean error | coverage | half width |"
    yield "| --- | --- | --- |" + " ---: |" * 4
    for one in scores:
        what = one.what.split(" from ")[-1]
        if one.reason is not None:
            yield f"| {one.group} | {what} | none: {one.reason} | | | | |"
            continue
        yield (
            f"| {one.group} | {what} | {one.law} | {one.error:+.2%} | {one.mean_error:.2%} "
            f"| {np.mean(one.inside):.0%} | {one.width:.2%} |"
        )


def plot(folder: Path, path: Path) -> None:
    """The 72,000-step cosines and what three shorter runs say of them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(SIZES), figsize=(10, 4))
    for panel, size in zip(panels, SIZES, strict=True):
        files = folder / "multi_power_law" / size
        for name in PLOTTED:
            curve = pretraining_curve(files / f"{name}.csv")
            panel.plot(curve.steps, curve.losses, linewidth=0.8, label=f"{name}, fitted")
        target = pretraining_curve(files / "cosine_72000.csv")
        curves = [pretraining_curve(files / f"{name}.csv") for name in PLOTTED]
        law = fit(curves)
        assert isinstance(law, FittedLaw)
        expected = law.forecast(target.learning_rates, target.steps)
        panel.plot(target.steps, target.losses, "k", linewidth=0.8, label="cosine_72000, measured")
        if not isinstance(expected, CannotTell):
            bounds = ([e.low for e in expected], [e.high for e in expected])
            panel.plot(target.steps, [e.value for e in expected], "r--", label="forecast, 90 %")
            panel.fill_between(target.steps, *bounds, color="r", alpha=0.2, linewidth=0)
        lowest = float(target.losses.min())
        panel.set(xlabel="step", title=f"{size} parameters", ylim=(0.98 * lowest, 1.15 * lowest))
    panels[0].set_ylabel("loss")
    panels[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    """Scores forecasts on one of the data and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=("pretraining", "laws", "configurations", "trials"))
    parser.add_argument("--curves", type=Path, help="the folder of curves")
    parser.add_argument("--limit", type=int, default=15, help="configurations asked of each size")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args(arguments)
    if options.data != "configurations" and options.curves is None:
        parser.error(f"{options.data} needs --curves")
    began = time.monotonic()
    lines: list[str] = ["<!-- Written by experiments/forecasts/score_forecasts.py. -->"]
    if options.data == "laws":
        scores = []
        for law in LAWS:
            alone = list(pretraining(options.curves, [law], every=5))
            lines += ["", f"## By the law `{law}` alone", "", *table(alone)]
            scores += alone
    elif options.data == "pretraining":
        scores = list(pretraining(options.curves))
        plot(options.curves, options.output / "pretraining.png")
    elif options.data == "configurations":
        scores = list(left_out_configurations(options.limit))
    else:
        scores = list(trials(options.curves))
    if options.data != "laws":
        lines += ["", *table(scores)]
    if options.data == "pretraining":
        lines += ["", "## Each forecast", "", *each(scores)]
    if options.data == "trials":
        lines += ["", "## Widened by receipts", "", *table(with_receipts(scores))]
    path = options.output / f"{options.data}.md"
    path.write_text("\n".join(lines) + "\n")
    print(f"{path}: {len(scores)} forecasts in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
