"""The real races of this experiment: what is trained, and to which step.

    python -m experiments.racing_with_proof.races experiments/racing_with_proof/curves.json.gz

Trains every learning rate of each race to half as many steps again as the first fit took, nobody
set aside, and records what a race would have seen: so any policy can be replayed on the curves.
Races that the file holds already stay.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from budgetflow.cli.launch import launch
from budgetflow.config import default_config, log_grid
from budgetflow.engine.data.text import CharacterSequences, pydoc_topics
from budgetflow.playbook.common.measurement import PARTIAL, Advance, Conclude, Decision, TrialRecord
from budgetflow.playbook.common.outcomes import Outcome
from budgetflow.playbook.sweep.race import lockstep_grid
from budgetflow.studies.kinds import parse_study
from budgetflow.studies.kinds.sweep import LR_SWEEP
from budgetflow.studies.store.trial import read_trials
from budgetflow.studies.study import Study

# How far trials are trained beyond the first fit.
BEYOND = 1.5


def to_the_end(study: Study, trials: Sequence[TrialRecord]) -> Decision:
    """Every trial to 1.5 times the steps of the first fit, in lockstep."""
    if not trials:
        return LR_SWEEP.decide(study, trials)
    first = min((t.fitted_at_step for t in trials if t.fitted_at_step), default=None)
    end = study.max_train_steps
    end = end if first is None else min(end, BEYOND * first)
    grid = lockstep_grid(study.max_train_steps)
    going = [t for t in trials if t.step < end and not t.diverged]
    if going:
        last = min(t.step for t in going)
        numbers = tuple(t.trial for t in going if t.step == last)
        return Advance(numbers, min(step for step in grid if step > last))
    trained = sum(trial.step for trial in trials)
    return Conclude(Outcome(max_train_steps=first, best_trial=0, steps_trained=trained))


TO_THE_END = dataclasses.replace(LR_SWEEP, decide=to_the_end, gives_length=False)


def first_topics(split: str) -> CharacterSequences:
    """The first 12,800 characters of the help topics, which a small model can learn by heart."""
    found = pydoc_topics(split)
    return CharacterSequences(found._codes[:12_801], found.num_classes)


def base(name: str, steps: int, rates: tuple[float, ...], optimizer: dict[str, Any]) -> Any:
    """A sweep of the digits, to be changed."""
    config = default_config("lr_sweep")
    config.kind = "experiments.racing_with_proof.races.TO_THE_END"
    config.name, config.max_train_steps = name, steps
    config.sweep.learning_rates, config.optimizer = rates, optimizer
    config.data.batch_size = 64
    config.checkpoints.every_seconds = 1e6
    return config


SGD, ADAM = {"name": "sgd", "momentum": 0.9}, {"name": "adam"}


def digits_mlp_sgd() -> Any:
    config = base("digits_mlp_sgd", 2000, log_grid(0.01, 1.0, 9), SGD)
    config.model = {"name": "budgetflow.models.MLP", "hidden_sizes": (128, 128)}
    return config


def digits_mlp_adam() -> Any:
    config = base("digits_mlp_adam", 2000, log_grid(3e-4, 0.1, 9), ADAM)
    config.model = {"name": "budgetflow.models.MLP", "hidden_sizes": (64, 64)}
    return config


def fashion(name: str, steps: int, rates: tuple[float, ...], optimizer: dict[str, Any]) -> Any:
    config = base(name, steps, rates, optimizer)
    config.data.name = "budgetflow.data.fashion_mnist.fashion_mnist"
    config.data.train_split = "train[:1000]"
    config.data.validation_split = "validation[:100]"
    return config


def fashion_mlp_sgd() -> Any:
    config = fashion("fashion_mlp_sgd", 2000, log_grid(0.003, 0.3, 7), SGD)
    config.model = {"name": "budgetflow.models.MLP", "hidden_sizes": (128, 128)}
    return config


def fashion_mlp_plain_sgd() -> Any:
    optimizer = {"name": "sgd", "momentum": 0.0}
    config = fashion("fashion_mlp_plain_sgd", 4000, log_grid(0.03, 3.0, 7), optimizer)
    config.model = {"name": "budgetflow.models.MLP", "hidden_sizes": (128, 128)}
    return config


def digits_conv_adam() -> Any:
    config = base("digits_conv_adam", 1000, log_grid(3e-4, 0.1, 6), ADAM)
    config.model = {"name": "budgetflow.models.ConvNet", "channels": (8, 16)}
    return config


def fashion_conv_adam() -> Any:
    config = fashion("fashion_conv_adam", 1000, log_grid(3e-4, 0.03, 7), ADAM)
    config.model = {"name": "experiments.lr_sweep_benchmark.model.StridedConvNet"}
    return config


def text_transformer_adam() -> Any:
    config = base("text_transformer_adam", 600, log_grid(1e-3, 0.1, 6), ADAM)
    config.data.name = "experiments.racing_with_proof.races.first_topics"
    config.data.input_key, config.data.target_key = "inputs", "targets"
    config.data.batch_size = 16
    config.model = {"name": "budgetflow.models.Transformer", "width": 32, "depth": 1, "heads": 2}
    config.task.name = "budgetflow.tasks.LanguageModeling"
    config.evaluation.selection_metric = "loss"
    config.evaluation.train_examples = 200
    config.sweep.fitted_train_loss = 2.2
    return config


# How many seeds of each: one where a race takes minutes.
WORKLOADS: dict[Callable[[], Any], int] = {
    digits_mlp_sgd: 5,
    digits_mlp_adam: 5,
    fashion_mlp_sgd: 5,
    fashion_mlp_plain_sgd: 5,
    fashion_conv_adam: 1,
    digits_conv_adam: 5,
    text_transformer_adam: 5,
}


def curve(trial: TrialRecord) -> dict[str, Any]:
    """What a trial showed, as JSON values."""
    keys = ("step", "train_loss", PARTIAL)
    return {
        "rate": trial.base_learning_rate,
        "rows": [[row.get(key) for key in keys] for row in trial.rows],
        "bracket": trial.fitted_at_step_bracket,
        "diverged": trial.diverged,
    }


def main() -> None:
    path = Path(sys.argv[1])
    races = json.loads(gzip.decompress(path.read_bytes())) if path.exists() else []
    known = {(race["name"], race["seed"]) for race in races}
    with tempfile.TemporaryDirectory() as folder:
        for make, seeds in WORKLOADS.items():
            for seed in range(seeds):
                if (make.__name__, seed) in known:
                    continue
                started, config = time.perf_counter(), make()
                config.seed, config.name = seed, f"{config.name}_{seed}"
                outcome = launch([parse_study(config)], folder, False, Console(quiet=True))
                trials = [curve(t) for t in read_trials(Path(folder) / config.name)]
                races.append(
                    {"name": make.__name__, "seed": seed, "n": config.max_train_steps}
                    | {"trials": trials}
                )
                fits = {t["rate"]: t["bracket"][1] for t in trials if t["bracket"]}
                seconds = time.perf_counter() - started
                print(config.name, outcome["max_train_steps"], fits, f"{seconds:.1f} s", flush=True)
                path.write_bytes(gzip.compress(json.dumps(races).encode(), mtime=0))


if __name__ == "__main__":
    main()
