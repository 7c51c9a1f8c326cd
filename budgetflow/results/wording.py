"""Numbers in words, the same on the terminal and in the report."""

from __future__ import annotations

import math
from typing import Any


def timing_line(timing: dict[str, Any]) -> str:
    """How fast a study trained and where the time went, in one line."""
    shares = sorted(timing["share_of_time"].items(), key=lambda item: -item[1])
    spent = ", ".join(f"{name} {share:.0%}" for name, share in shares if share >= 0.005)
    return (
        f"Trained {timing['steps_trained']} steps in {timing['seconds']:.0f} s: "
        f"{timing['steps_per_second']:.4g} steps/s, "
        f"{timing['examples_per_second']:.4g} examples/s while training. Time: {spent}."
    )


def format_cell(value: Any) -> str:
    """A table's cell: three significant digits, a hyphen where there is nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value) == "<NA>":
        return "-"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"
    return str(value)
