"""All that can be configured, with its defaults, its ranges, and what each field can change.

The dataclasses below, and :class:`budgetflow.config.schedule.ScheduleConfig`, are the one list of
what can be configured. Their field names are the keys of a config, their defaults its defaults.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from budgetflow.base.files import json_text
from budgetflow.config.fields import (
    CHECKED,
    OWN,
    AxisSize,
    Bytes,
    Changes,
    DecayRate,
    Flag,
    Fraction,
    Name,
    Option,
    Positive,
    Rate,
    Ratio,
    Seed,
    Seeds,
    Steps,
    Strength,
    Text,
    changing,
)
from budgetflow.config.schedule import ScheduleConfig
from budgetflow.config.search_space import MAX_TRIALS, Action, Dimension, points

# Of a search space, where the config does not say how many.
DEFAULT_TRIALS = 16

SomeTexts = Annotated[tuple[Text, ...], Field(min_length=1)]


@dataclass(frozen=True, config=CHECKED)
class DataConfig:
    """The data set; see :func:`budgetflow.engine.data.source.load_dataset`.

    ``scale_uint8`` says whether uint8 inputs are pixels, which are scaled to [0, 1], or numbers
    that mean something else, such as tokens; a model can say so itself, by a class attribute.
    ``test_split`` is evaluated once, for the study's best checkpoint; leave it out of every study
    but the one that yields the final model.
    """

    name: Text = "digits"
    # What is read from there is in the digest of the data.
    data_dir: Annotated[Text | None, Changes.NOTHING] = None
    train_split: Text = "train"
    validation_split: Annotated[Text, Changes.MEASUREMENTS] = "validation"
    test_split: Annotated[Text | None, Changes.OUTCOME] = None
    input_key: Text | SomeTexts | None = None
    target_key: Text | SomeTexts | None = None
    transform: Text | None = None
    scale_uint8: Flag | None = None
    batch_size: Positive = 64
    # A sweep finds the exact step in memory, a bracket where data is streamed.
    in_memory_bytes: Annotated[Bytes, Changes.OUTCOME] = 2**30


@dataclass(frozen=True, config=CHECKED)
class EvaluationConfig:
    """When and how trials are evaluated.

    Attributes:
        evaluations: evaluations of each trial, evenly spaced, the last at its last step.
        batch_size: examples evaluated at once, which changes speed and the order of sums; None for
            as many as are fast, see :mod:`budgetflow.engine.training.evaluation_size`.
        train_examples: how many training examples to evaluate on (the first ones).
        whole_in_races: whether trials that race to a perfect fit are evaluated in full every time;
            else, before they fit or end, on a few training examples, for their order (at the steps
            whose figures the outcome reads, on all ``train_examples``), and on no validation split.
        selection_metric: the validation metric that picks checkpoints and trials; lower is better,
            unless the task says otherwise.
    """

    evaluations: Positive = 40
    batch_size: Positive | None = None
    train_examples: Positive = 10_000
    whole_in_races: Flag = False
    selection_metric: Text = "error_rate"


@dataclass(frozen=True, config=CHECKED)
class CheckpointConfig:
    """How many of a trial's best checkpoints stay, and how often a running trial is saved."""

    keep_best: Positive = 1
    every_seconds: Strength = 60.0


@dataclass(frozen=True, config=CHECKED)
class MeshConfig:
    """How the devices are laid out; see :mod:`budgetflow.engine.training.mesh`.

    Changes speed and the order of sums, and no result beyond that.

    Attributes:
        trial: how many trials run at the same time, each on an equal share of the devices. By
            default as many as there are devices and trials for; on the CPU, where virtual devices
            share its cores, as many as are fastest (:mod:`budgetflow.studies.run.strategy`).
        data: how many parts each batch is cut into, each for devices of its own.
        fsdp: how many parts parameters and optimizer state are cut into; each batch is cut into as
            many once more. The product of trial, data and fsdp is the number of devices. A size of
            -1 stands for what the others leave; how several share it, see
            :func:`budgetflow.engine.training.mesh.mesh_sizes`.
        min_sharded_size: arrays of fewer elements are copied to every device instead of cut.
    """

    trial: AxisSize = -1
    data: AxisSize = -1
    fsdp: AxisSize = 1
    min_sharded_size: Positive = 2**16


@dataclass(frozen=True, config=CHECKED)
class SweepConfig:
    """The learning-rate sweep.

    Attributes:
        learning_rates: its first grid.
        max_extensions: how many learning rates it may add outside the grid.
        refine: the spacing to end with: learning rates are added halfway (geometrically) between
            the best and its neighbours until these are no more than this ratio apart, as in 1.1.
            A wide grid and this find what a fine grid finds, with far fewer trials.
        seeds: how many seeds to run it with: the first one (``config.seed``) over the whole grid,
            each further one as a race of its own around the first one's best. The answer is the
            median of theirs. It may be raised when the sweep has run, which then adds races.
        fitted_train_loss: for a task whose examples are never all right: the training loss under
            which the training set counts as fitted. It is looked at with every evaluation, on
            ``config.evaluation.train_examples``; so the answer is a bracket, not a step.
    """

    learning_rates: tuple[Rate, ...] = (0.001, 0.003162, 0.01, 0.03162, 0.1, 0.3162, 1.0)
    max_extensions: Annotated[int, Field(ge=0, le=64, strict=True)] = 8
    refine: Ratio | None = None
    seeds: Seeds = 1
    fitted_train_loss: Rate | None = None


@dataclass(frozen=True, config=CHECKED)
class SearchConfig:
    """The trials of a round: points of a search space, or the best trials of the round before.

    Attributes:
        method: "halton", "random" or "grid".
        trials: number of points, 16 if not set; "grid" takes every combination instead. It may be
            raised when a study has run, which then adds trials to it.
        space: the dimensions, made by ``choices``, ``uniform`` and ``log_uniform``; with ``tag=``
            each can say how likely its best value is to transfer to a longer run.
        promote_trials: instead of a search space, continue this many of the best trials of the
            round that this study builds on, each with its hyperparameters and base learning rate.
            Their schedules are carried over to the new length
            (:func:`budgetflow.playbook.common.transfer.transfer`); or, where ``config.schedule`` is
            set, have its shape instead, with the trial's own warmup unless that is set too.
        derive: instead of a search space, one derived from what the round that this study builds on
            has found and from how likely each hyperparameter is to carry over
            (:func:`budgetflow.playbook.derived.search_space.derive`). The trials are that round's
            best setting, ``reruns`` others of it, which show whether its choice holds, and
            ``trials`` points of the derived space (none if not set). Dimensions in ``space`` take
            the place of derived ones.
        carry: with ``derive``: pairs of a hyperparameter and what becomes of it instead of what its
            tag says: "pinned", "winner_only", "narrowed" or "swept".
        reruns: with ``derive``: how many of the earlier round's other settings are run again.
        seeds: with how many seeds, from ``config.seed`` on, to run what is compared with each
            other: the best setting and the re-runs, ideas and their baseline.
    """

    method: Literal["halton", "random", "grid"] = "halton"
    trials: Annotated[int, Field(gt=0, le=MAX_TRIALS, strict=True)] | None = None
    space: tuple[Dimension, ...] = ()
    promote_trials: Annotated[int, Field(ge=0, le=MAX_TRIALS, strict=True)] = 0
    derive: Flag = False
    carry: tuple[tuple[Text, Action], ...] = ()
    reruns: Annotated[int, Field(ge=0, le=100, strict=True)] = 2
    seeds: Seeds = 1

    def points(self, seed: int) -> list[dict[str, Any]]:
        """The hyperparameters of each trial; see :func:`budgetflow.config.search_space.points`."""
        return points(self.space, self.method, self.trials or DEFAULT_TRIALS, seed)


@dataclass(frozen=True, config=CHECKED)
class TransferConfig:
    """What to do where a longer run spends its extra steps at too small a learning rate.

    That is measured by their mean learning rate, relative to the base learning rate: 1 is the most,
    and a cosine to zero has 0.5.

    Attributes:
        warn_below: plan and outcome warn if it is less than this; 0 for never.
        refuse_below: the study is refused if it is less than this; 0 for never.
    """

    warn_below: Fraction = 0.4
    refuse_below: Annotated[Fraction, Changes.NOTHING] = 0.0


@dataclass(frozen=True, config=CHECKED)
class CooldownsConfig:
    """What shorter runs would have given: decays that branch off one run at several lengths.

    Attributes:
        length_fractions: the lengths, as fractions of ``max_train_steps``, ascending to 1.
    """

    length_fractions: tuple[Fraction, ...] = (0.25, 0.5, 1.0)


@dataclass(frozen=True, config=CHECKED)
class RoundsConfig:
    """Rounds of growing length within a budget; see :mod:`budgetflow.playbook.budget.planner`.

    One of the budgets is given. It pays for every step of every trial, as if none were taken over
    from another one.

    Attributes:
        production_steps: the length of the last round's trials.
        budget_steps, budget_examples, budget_flops, budget_hours: in updates; in training examples;
            in floating-point operations of the compiled step; in hours of a trial at a time on the
            devices at hand.
        num_rounds: how many; the playbook's two by default.
        first_round_fraction: the first round's length as a fraction of ``production_steps``; those
            between grow by equal factors.
        last_round_share: of the budget, kept for the last round.
    """

    production_steps: Steps | None = None
    budget_steps: Annotated[int, Field(gt=0, le=10**15, strict=True)] | None = None
    budget_examples: Annotated[int, Field(gt=0, le=10**18, strict=True)] | None = None
    budget_flops: Rate | None = None
    budget_hours: Rate | None = None
    num_rounds: Annotated[int, Field(gt=0, le=10, strict=True)] = 2
    first_round_fraction: Fraction = 0.1
    last_round_share: Fraction = 0.5


@dataclass(frozen=True, config=CHECKED)
class ComparisonConfig:
    """What a change of the config does to the number of steps.

    Attributes:
        changes: pairs of a field and its value with the change, as (("data.batch_size", 32),). What
            may differ: the batch size, model, optimizer, regularization, augmentation, and how
            gradients and parameters are computed; not data or task, which a study's trials share.
            Another ``name`` of a model, optimizer or augmentation drops that section's arguments.
        seeds: how many to compare over; fewer than 3 give no factor. It may be raised when the
            comparison has run, which then adds races; but whoever raises it until the interval
            leaves 1 will see it leave 1 too often.
        train_loss: the training loss to reach, in evaluation mode; None for a perfect fit. It is
            looked at with every evaluation, on ``config.evaluation.train_examples``.
        learning_rates, refine: the grid of constant learning rates, and the spacing to refine it
            to, as of a sweep; each side races at its own best.
    """

    changes: tuple[tuple[Text, Option], ...] = ()
    seeds: Seeds = 3
    train_loss: Rate | None = None
    learning_rates: tuple[Rate, ...] = SweepConfig.learning_rates
    refine: Ratio | None = 1.8


@dataclass(frozen=True, config=CHECKED)
class RayConfig:
    """What each trial needs of a Ray cluster's nodes; for ``--ray``.

    Attributes:
        cpus, gpus: how many of either, of each host.
        resources: of the cluster's own kinds, as (("TPU", 4),), of each host.
        hosts: how many nodes form one trial, joined by ``jax.distributed``.
    """

    cpus: Strength = 1.0
    gpus: Strength = 0.0
    resources: tuple[tuple[Text, Rate], ...] = ()
    hosts: Positive = 1


@dataclass(frozen=True, config=CHECKED)
class StudyConfig:
    """One study. Use :func:`default_config` or :func:`building_on` in a config file.

    What a field can change is marked where it is defined: see
    :class:`budgetflow.config.fields.Changes`. A field without a mark changes everything.

    Attributes:
        kind: "lr_sweep" (which finds the steps to a perfect fit), "round" (trials of one length),
            "rounds" (several of growing length, within a budget), "cooldowns" (each point of the
            search space at several lengths, which share their steps up to the decay) or
            "comparison" (what a change does to the number of steps); or the import path of a
            :class:`budgetflow.studies.kinds.kind.Kind` of your own.
        name: the study's folder; the config file's name if not set.
        description: what it is for, in your own words; its report shows it.
        builds_on: path of the config whose study comes first.
        seed: of the data order, the initialisation and all random numbers of every trial.
        max_train_steps: the updates of every trial. A round that builds on another study may leave
            it out: ``max_train_steps_factor`` times that study's answer or length.
        regime: which kind of workload it is, if you know: "not_compute_bound" (it can be trained to
            a perfect fit) or "compute_bound". It holds over what a sweep finds.
        model, task, optimizer, augmentation: an import path (or optax's name) under ``name``, and
            the arguments it takes.
        regularization: strengths, 0 for off; the sweep switches them and the augmentation off.
        precision: "float32", or "bfloat16" to compute in it while parameters, optimizer state and
            loss stay float32.
        gradient_accumulation: how many parts of each batch to compute the gradient of one after
            the other, to save memory; the update is that of the whole batch.
        weight_decay_mask: which parameters ``regularization.weight_decay`` applies to: "all" (or
            those that an optimizer of your own chooses), or "matrices", the arrays of two or more
            dimensions that are not named "bias": neither biases nor scales of normalisation.
        clip_gradient_norm: the most that the norm of a batch's gradient (all arrays taken as one
            vector) may be; a longer one is scaled down to it, before all else. None for no limit.
        ema_decay: of an exponential moving average of the parameters, which is what is evaluated
            then instead of the parameters themselves; 0 for none.
        ideas: named changes of the config, such as ``{"wider": {"model": {"hidden_sizes": (256,
            )}}}``, that a round compares with itself without them; see
            :mod:`budgetflow.playbook.derived.ideas`.
        trackers: where trials are written to besides: "tensorboard" (event files in the study's
            folder), "wandb" (Weights & Biases; offline unless WANDB_MODE says otherwise), or both;
            see :mod:`budgetflow.results.tracking`.
    """

    kind: Annotated[Text, Changes.OUTCOME, OWN]
    name: Annotated[Name, Changes.NOTHING, OWN] = ""
    description: Annotated[str, Changes.NOTHING, OWN] = ""
    # The fingerprint of that study counts, not where its config lies.
    builds_on: Annotated[Text | None, Changes.NOTHING, OWN] = None
    seed: Seed = 0
    # The learning rates of each trial are compared one by one.
    max_train_steps: Annotated[Steps | None, Changes.OUTCOME, OWN] = None
    max_train_steps_factor: Annotated[Rate, Changes.NOTHING, OWN] = 1.0
    regime: Annotated[Literal["not_compute_bound", "compute_bound"] | None, Changes.OUTCOME] = None
    data: DataConfig = DataConfig()
    model: dict[str, Any] = Field(
        default_factory=lambda: {"name": "budgetflow.models.MLP", "hidden_sizes": (128, 128)}
    )
    task: dict[str, Any] = Field(
        default_factory=lambda: {"name": "budgetflow.tasks.Classification"}
    )
    optimizer: dict[str, Any] = Field(
        default_factory=lambda: {"name": "sgd", "momentum": 0.9, "nesterov": False}
    )
    regularization: dict[str, Strength] = Field(
        default_factory=lambda: {"weight_decay": 0.0, "dropout_rate": 0.0, "label_smoothing": 0.0}
    )
    augmentation: dict[str, Any] = Field(
        default_factory=lambda: {
            "name": "budgetflow.data.augment.augment_images",
            "shift_pixels": 0.0,
            "flip_probability": 0.0,
            "noise_std": 0.0,
        }
    )
    schedule: Annotated[ScheduleConfig, Changes.OUTCOME, OWN] = ScheduleConfig()
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_accumulation: Positive = 1
    ema_decay: DecayRate = 0.0
    weight_decay_mask: Literal["all", "matrices"] = "all"
    clip_gradient_norm: Rate | None = None
    # The devices that a trial is really divided among are in the key of its states.
    mesh: Annotated[MeshConfig, Changes.NOTHING] = MeshConfig()
    evaluation: Annotated[EvaluationConfig, Changes.MEASUREMENTS] = EvaluationConfig()
    checkpoints: Annotated[CheckpointConfig, Changes.NOTHING] = CheckpointConfig()
    sweep: Annotated[SweepConfig, Changes.OUTCOME, OWN] = SweepConfig()
    search: Annotated[SearchConfig, Changes.OUTCOME, OWN] = SearchConfig()
    transfer: Annotated[TransferConfig, Changes.OUTCOME, OWN] = TransferConfig()
    cooldowns: Annotated[CooldownsConfig, Changes.OUTCOME, OWN] = CooldownsConfig()
    # Each of the rounds has its length and its number of trials from it.
    rounds: Annotated[RoundsConfig, Changes.NOTHING, OWN] = RoundsConfig()
    ideas: Annotated[dict[str, dict[str, Any]], Changes.OUTCOME, OWN] = Field(default_factory=dict)
    comparison: Annotated[ComparisonConfig, Changes.OUTCOME, OWN] = ComparisonConfig()
    trackers: Annotated[tuple[Literal["tensorboard", "wandb"], ...], Changes.NOTHING] = ()
    ray: Annotated[RayConfig, Changes.NOTHING] = RayConfig()


# The sections of any keys: arguments of what they name, and strengths.
FREE_FORM = ("model", "task", "optimizer", "regularization", "augmentation")


def to_json(config: StudyConfig) -> dict[str, Any]:
    """The config as JSON values."""
    return json.loads(json_text(dataclasses.asdict(config)))


def part(config: StudyConfig, changes: Changes) -> dict[str, Any]:
    """The fields of a config that can change ``changes`` or more, as JSON values."""
    return json.loads(json_text(changing(changes, StudyConfig, config)))
