"""Axes and scales of panels."""

import pytest

from budgetflow.results.report.vega import metric_axis


@pytest.mark.parametrize(
    ("values", "domain"),
    [
        ([0.9, 0.8, 0.7], [0.7, 0.9]),
        ([0.5, 0.1, 0.05], [0.0, 0.5]),
        # All of a metric of which higher is better, as a log-likelihood, may be below zero.
        ([-0.9, -0.5, -0.007], [-0.9, -0.007]),
        ([-5.0, 1.0, 2.0], [-5.0, 2.0]),
        ([2.0, 2.5, 3.0, 1e9], [0.0, 27.5]),
        ([-1.0, -2.0, -3.0, -1e9], [-25.0, -1.0]),
        ([], [0.0, 1.0]),
    ],
)
def test_an_axis_holds_what_is_measured_but_for_explosions(values, domain):
    assert metric_axis("loss", "loss", values)["scale"]["domain"] == domain
