"""The lengths in a search space, at the next round's length."""

from __future__ import annotations

import dataclasses

from budgetflow.config.search_space import BASE_LEARNING_RATE, Dimension, Value
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import TrialRecord
from budgetflow.playbook.common.transfer import NoTransferRuleError, transfer
from budgetflow.playbook.derived.narrowing import as_choice

# What of a schedule is swept by default is tried at, as shares of the winner's value.
SWEEP_FACTORS = (1.0, 0.5, 2.0)
_FRACTIONS = ("schedule.warmup_fraction", "schedule.decay_fraction")
# A search space cannot vary these as fractions: it holds no tuples of them.
_POINTS = ("schedule.drop_steps", "schedule.boundary_steps")


@dataclasses.dataclass(frozen=True)
class NextLength:
    """The way from values of a round to those with the same meaning at the next round's length.

    Warmup keeps its length in steps, drops and pieces their distance from the end, and decays their
    length but where the winner's is stretched, as a cosine without a constant period is: by the
    rules of :func:`budgetflow.playbook.common.transfer.transfer`. So fractions of the run change.

    Attributes:
        steps_before, steps: the lengths of the two rounds.
        stretch: how many times as long a decay is.
        later: how many steps later drops and pieces are.
        decay_room: the longest decay that leaves the winner's warmup and final steps.
        no_rule_because: why there is no rule for the winner's schedule; then all its lengths stay.
    """

    steps_before: int
    steps: int
    stretch: float
    later: int
    decay_room: int
    no_rule_because: str | None = None

    def dimension(self, dimension: Dimension) -> Dimension:
        """What was searched, at the next length."""
        field = dimension.name
        if dimension.distribution == "choices":
            carried = dict.fromkeys(self._carried(field, value) for value in dimension.values)
            return dataclasses.replace(dimension, values=tuple(carried))
        scale = 1.0
        if field in _FRACTIONS:
            scale = self._stretch_of(field) * self.steps_before / self.steps
        return dataclasses.replace(
            dimension, low=dimension.low * scale, high=dimension.high * scale
        )

    def value_in(self, trial: TrialRecord, field: str) -> Value:
        """A trial's value of a field, at the next length.

        Lengths are read off its schedule: a promoted trial has the hyperparameters of an earlier
        round, and a fraction stands for whole steps.
        """
        schedule = trial.schedule
        steps = {
            "schedule.warmup": schedule.warmup_steps,
            "schedule.decay": round(schedule.decay_steps * self.stretch),
        }
        name, _, unit = field.rpartition("_")
        if name in steps and unit in ("steps", "fraction"):
            return steps[name] if unit == "steps" else steps[name] / self.steps
        if field in _POINTS:
            start = schedule.decay_start_step + self.later
            return tuple(start + step for step in getattr(schedule, field.partition(".")[2]))
        if field == BASE_LEARNING_RATE:
            return schedule.base_learning_rate
        return as_choice(trial.hyperparameters[field])

    def decay_lengths(self, field: str, length: float) -> list[float]:
        """What a decay's length is swept over, in the field's unit, the winner's first.

        By rule a decay after a constant period keeps its steps; yet in a much longer run the best
        one is nearer to the same share of the run (``experiments/round_planning``,
        ``experiments/schedule_transfer``). So both are tried, and half and twice of each: a step
        at least, and no more than there is.

        Args:
            field: of the decay.
            length: the winner's, at the next length, in the field's unit.
        """
        unit = 1 if field.endswith("_steps") else self.steps
        lengths = [length * unit]
        if self.stretch == 1:
            lengths.append(length * unit * self.steps / self.steps_before)
        around = [factor * each for factor in SWEEP_FACTORS for each in lengths]
        fitting = dict.fromkeys(max(1, min(round(each), self.decay_room)) for each in around)
        return [each if unit == 1 else each / unit for each in fitting]

    def _carried(self, field: str, value: Value) -> Value:
        """A choice at the next length."""
        if value is None and field in ("schedule.warmup_steps", "schedule.warmup_fraction"):
            return 0
        if field in _POINTS and isinstance(value, tuple):
            return tuple(step + self.later for step in value)
        if field == "schedule.decay_steps" and isinstance(value, int | float):
            return round(value * self.stretch)
        if field in _FRACTIONS and isinstance(value, int | float):
            steps = round(value * self.steps_before)  # as a schedule has it
            return round(steps * self._stretch_of(field)) / self.steps
        return value

    def _stretch_of(self, field: str) -> float:
        return self.stretch if field.startswith("schedule.decay_") else 1.0


def next_length(schedule: Schedule, max_train_steps: int) -> NextLength:
    """The way from the round that a schedule won to one of another length.

    Raises:
        ValueError: the new length is shorter.
    """
    after, because = schedule, None
    try:
        after = transfer(schedule, max_train_steps).after
    except NoTransferRuleError as error:
        because = str(error)
    return NextLength(
        steps_before=schedule.total_steps,
        steps=max_train_steps,
        stretch=after.decay_steps / schedule.decay_steps if schedule.decay_steps else 1.0,
        later=after.decay_start_step - schedule.decay_start_step,
        decay_room=max_train_steps - schedule.warmup_steps - schedule.final_steps,
        no_rule_because=because,
    )
