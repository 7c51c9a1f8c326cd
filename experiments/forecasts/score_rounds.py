"""How good are the forecasts of rounds, on budgetflow's own workloads? Four times the steps.

    .venv/bin/python experiments/forecasts/score_rounds.py --workdir=PATH digits diabetes
    .venv/bin/python experiments/forecasts/score_rounds.py --workdir=PATH --seeds=1 characters

Each seed is two rounds in a workdir of its own, so that no forecast is widened by another's
receipt. Writes a table into experiments/forecasts/rounds.md, or where --output says, of all that
the workdir holds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

import budgetflow
from budgetflow.config import choices, default_config, load_config_file, log_uniform
from budgetflow.playbook.common.outcomes import RoundOutcome
from budgetflow.playbook.forecasts.words import with_ends

CONFIGS = Path(__file__).parents[2] / "configs"


def digits() -> ConfigDict:
    """An MLP on the digits: 200 and 800 steps."""
    config = default_config("rounds")
    config.name = "digits"
    config.rounds.production_steps = 800
    config.rounds.budget_steps = 4800
    config.augmentation.shift_pixels = 1.0
    config.schedule.decay = "linear"
    config.schedule.decay_fraction = 0.2
    config.schedule.warmup_steps = 10
    config.search.space = (
        log_uniform("schedule.base_learning_rate", 0.01, 0.3),
        choices("schedule.decay_fraction", 0.1, 0.2, 0.4),
    )
    return config


def noisy_digits() -> ConfigDict:
    """A narrow MLP on the digits, with dropout and noise, that never fits: 200 and 800 steps."""
    config = digits()
    config.model.hidden_sizes = (16,)
    config.regularization.dropout_rate = 0.2
    config.augmentation.noise_std = 0.05
    return config


def diabetes() -> ConfigDict:
    """A regression of 309 patients: 100 and 400 steps."""
    config = load_config_file(CONFIGS / "regression_rounds.py")
    config.rounds.production_steps = 400
    config.rounds.budget_steps = 4000
    config.search.seeds = 1
    return config


def characters() -> ConfigDict:
    """The character model of configs/lm_rounds.py: 80 and 320 steps."""
    config = load_config_file(CONFIGS / "lm_rounds.py")
    config.rounds.production_steps = 320
    config.rounds.budget_steps = 4480
    return config


WORKLOADS: dict[str, Callable[[], ConfigDict]] = {
    "digits": digits,
    "noisy_digits": noisy_digits,
    "diabetes": diabetes,
    "characters": characters,
}


def run(workload: str, seed: int, workdir: Path) -> None:
    """Runs the two rounds of a workload with a seed; what is complete is not run again."""
    config = WORKLOADS[workload]()
    config.rounds.first_round_fraction = 0.25
    config.seed = seed
    budgetflow.launch(config, workdir=str(workdir / workload / str(seed)), quiet=True)


def rows(workdir: Path) -> Iterator[tuple[str, bool | None, str]]:
    """The workload, whether the forecast held, and the table's row, of each seed in a workdir."""
    for folder in sorted(workdir.glob("*/*"), key=lambda path: (path.parent.name, int(path.name))):
        studies = budgetflow.open_studies(folder)
        first = next(study for name, study in studies.items() if name.endswith("_round1"))
        last = next(study for study in studies.values() if study is not first)
        before, after = first.found, last.found
        assert isinstance(before, RoundOutcome) and isinstance(after, RoundOutcome)
        assert before.forecast is not None
        run = before.forecast.at(after.max_train_steps)
        assert run is not None
        head = f"| {folder.parent.name} | {folder.name} "
        if not after.receipts:
            loss = last.best_trial.record.rows[-1]["validation_loss"]
            why = run.cannot_tell or "not the same setting"
            yield folder.parent.name, None, f"{head}| none: {why} | ({loss:.4g}) | | | | |"
            continue
        (receipt,) = after.receipts
        metric = "-"
        if receipt.metric_expected is not None and receipt.metric_came is not None:
            metric = f"{with_ends(receipt.metric_expected)}: {receipt.metric_came:.4g}"
        held = "yes" if receipt.inside else "**no**"
        cells = (with_ends(receipt.loss), f"{receipt.came:.4g}", f"{receipt.error:+.1%}", held)
        yield (
            folder.parent.name,
            receipt.inside,
            f"{head}| {' | '.join(cells)} | {receipt.needed:.2g} | {metric} |",
        )


def table(workdir: Path) -> Iterator[str]:
    """All forecasts in a workdir beside what came, and how often they held."""
    yield "<!-- Written by experiments/forecasts/score_rounds.py. -->"
    yield ""
    yield "| | seed | forecast of the loss | came | off | inside | width needed | metric: came |"
    yield "| --- | ---: | --- | ---: | ---: | --- | ---: | --- |"
    found = list(rows(workdir))
    yield from (row for _, _, row in found)
    yield ""
    for workload in dict.fromkeys(name for name, _, _ in found):
        held = [inside for name, inside, _ in found if name == workload]
        told = [inside for inside in held if inside is not None]
        yield f"- {workload}: {sum(told)} of {len(told)} inside, {len(held) - len(told)} not told."


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the rounds and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", choices=[*WORKLOADS, []])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).with_name("rounds.md"),
    )
    options = parser.parse_args(arguments)
    for workload in options.workloads:
        for seed in range(options.seeds):
            run(workload, seed, options.workdir)
    options.output.write_text("\n".join(table(options.workdir)) + "\n")


if __name__ == "__main__":
    main()
