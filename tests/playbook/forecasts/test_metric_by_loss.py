import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.playbook.forecasts.expected import CannotTell, Expected
from budgetflow.playbook.forecasts.metric_by_loss import Relation, relation

LOSSES = np.linspace(2.0, 1.0, 40)
AHEAD = Expected(0.9, 0.88, 0.92)


def relation_to(function, noise=0.0, **options):
    draws = np.random.default_rng(0).standard_normal(len(LOSSES))
    metrics = [function(loss) + noise * draw for loss, draw in zip(LOSSES, draws, strict=True)]
    return relation(LOSSES.tolist(), metrics, options.pop("higher_is_better", False), **options)


@pytest.mark.parametrize(
    ("function", "higher_is_better"),
    [
        (math.exp, False),  # a perplexity
        (lambda loss: math.sqrt(2 * loss), False),  # a root of the mean squared error
        (lambda loss: 0.2 * loss, False),
        (lambda loss: 1 - 0.2 * loss, True),
        (lambda loss: -3 - loss, True),  # below 0, as a log-likelihood is
    ],
)
def test_a_relation_that_one_of_the_scales_makes_a_line_is_exact(function, higher_is_better):
    found = relation_to(function, higher_is_better=higher_is_better)
    assert isinstance(found, Relation)
    said = found.at(AHEAD)
    assert isinstance(said, Expected)
    assert said.value == pytest.approx(function(0.9), rel=1e-6)
    ends = sorted((function(0.88), function(0.92)))
    assert [said.low, said.high] == pytest.approx(ends, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(noise=st.floats(0.001, 0.01))
def test_what_a_line_misses_widens_the_interval(noise):
    exact, loose = relation_to(lambda x: 0.2 * x), relation_to(lambda x: 0.2 * x, noise=noise)
    wide, narrow = loose.at(AHEAD), exact.at(AHEAD)
    assert wide.high - wide.low > narrow.high - narrow.low
    assert wide.low < 0.2 * AHEAD.value < wide.high
    assert loose.at(AHEAD, wider=3.0).high > wide.high


@pytest.mark.parametrize(
    ("function", "options", "why"),
    [
        (lambda loss: 0.3, {}, "hardly changes"),
        (lambda loss: 3 - loss, {}, "too loosely"),  # gets worse as the loss gets better
        (lambda loss: 0.2 * loss, {"higher_is_better": True}, "too loosely"),
        (lambda loss: 0.1 * loss, {"noise": 0.3}, "too loosely"),
        (lambda loss: math.nan, {}, "evaluations"),
    ],
)
def test_a_metric_that_does_not_follow_the_loss_is_not_told(function, options, why):
    found = relation_to(function, **options)
    assert isinstance(found, CannotTell) and why in found.reason


def test_nothing_impossible_and_nothing_far_away_is_told():
    share = relation_to(lambda loss: 0.5 * (loss - 0.95), is_share=True)
    assert "cannot be" in share.at(Expected(0.8, 0.7, 0.9)).reason
    said = share.at(Expected(0.96, 0.9, 1.0))
    assert said.low == 0.0 and said.value == pytest.approx(0.005, abs=1e-6)
    unsure = share.at(Expected(0.96, 0.9, 2.5))
    assert "wider than all that was measured" in unsure.reason
    assert "too far" in share.at(Expected(0.3, 0.2, 0.4)).reason
