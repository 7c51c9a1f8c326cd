from conftest import assert_identical, small_config, start_trial

from budgetflow.engine.schedules import Schedule
from budgetflow.engine.training.mesh import make_mesh
from budgetflow.studies.run.side_by_side import Population

NOISY = {"regularization__dropout_rate": 0.2, "augmentation__shift_pixels": 1.0}


# Several at the same time: in test_eight_devices.py, since they need as many devices.
def test_a_trial_is_advanced_and_measured_as_by_itself(digits):
    population = Population(make_mesh(small_config().mesh))
    assert len(population.slices) == 1 and population.is_mine(0)
    ours, alone = (
        start_trial(
            digits, small_config(**NOISY), Schedule(0.1, constant_steps=40), checks_fit=True
        )
        for _ in range(2)
    )
    population.train({7: ours}, 3)
    assert ours.step == int(ours.state.step) == 3
    assert population.advance({7: ours}, 40) == {7: alone.advance(40)}
    assert_identical(ours.state, alone.state)


def test_nothing_to_advance_is_no_error():
    assert Population(make_mesh(small_config().mesh)).advance({}, 10) == {}
