"""Outcomes and numbers in words, the same on the terminal and in the report."""

from __future__ import annotations

import math
from typing import Any

from budgetflow.playbook.measurement import in_digits


def headline(outcome: dict[str, Any]) -> str:
    """The outcome of a study in one sentence."""
    if outcome["kind"] == "cooldowns" and outcome["best_trial"] is not None:
        known = [row for row in outcome["lengths"] if row["best_validation"]]
        metric = outcome["selection_metric"]
        gives = (f"{row['length_steps']} steps: {row['best_validation'][metric]:.4g}"
                 for row in known)  # fmt: skip
        return f"Best validation {_words(metric)} by length: {', '.join(gives)}."
    if outcome["kind"] != "lr_sweep":
        if outcome["best_trial"] is None:
            return "Every trial diverged."
        values = [
            f"{split} {_words(name)} {in_digits(value)}"
            for split in ("validation", "test")
            for name, value in outcome.get(f"best_{split}", {}).items()
        ]
        return (
            f"Best of {outcome['trials']} trials of {outcome['max_train_steps']} steps: trial "
            f"{outcome['best_trial']} at step {outcome['best_step']}: {', '.join(values)}."
        )
    if outcome["status"] == "found":
        fitted = "training set is fitted perfectly"
        if outcome.get("contradicting_examples"):
            fitted = f"training set is fitted as well as possible, {_lowest_error(outcome)},"
        if (threshold := outcome.get("fitted_train_loss")) is not None:
            fitted = f"training loss is under {threshold:g}"
        answers = [s["max_train_steps"] for s in outcome["seeds"] if s["max_train_steps"]]
        spread = f" (the median of {len(outcome['seeds'])} seeds, {min(answers)} to {max(answers)})"
        return (
            f"max_train_steps = {outcome['max_train_steps']}{spread if len(answers) > 1 else ''}: "
            f"the {fitted} by then, at a constant learning rate of "
            f"{outcome['best_learning_rate']:g}."
        )
    if outcome["status"] == "at_boundary":
        return "No answer: the best learning rate lies at the boundary of the search space."
    fitted = "fitted the training set"
    if outcome.get("contradicting_examples") and outcome.get("fitted_train_loss") is None:
        fitted = f"fitted the training set as well as possible, {_lowest_error(outcome)},"
    return f"No answer: no learning rate {fitted} within the steps allowed."


def _lowest_error(outcome: dict[str, Any]) -> str:
    return (
        f"with {outcome['lowest_train_errors']} wrong (since {outcome['contradicting_examples']} "
        "examples contradict each other)"
    )


def timing_line(timing: dict[str, Any]) -> str:
    """How fast a study trained and where the time went, in one line."""
    shares = sorted(timing["share_of_time"].items(), key=lambda item: -item[1])
    spent = ", ".join(f"{name} {share:.0%}" for name, share in shares if share >= 0.005)
    return (
        f"Trained {timing['steps_trained']} steps in {timing['seconds']:.0f} s: "
        f"{timing['steps_per_second']:.4g} steps/s, "
        f"{timing['examples_per_second']:.4g} examples/s while training. Time: {spent}."
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def format_cell(value: Any) -> str:
    """A table's cell: three significant digits, a hyphen where there is nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value) == "<NA>":
        return "-"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"
    return str(value)
