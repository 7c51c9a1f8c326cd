"""The chains of studies whose outcomes are kept: a function each, which runs it."""

from scenarios_of_chains import chain, cooldowns, forecasts
from scenarios_of_derived import derived, derived_fields
from scenarios_of_rounds import round_higher_is_better, round_lengths, round_plain, rounds_planned
from scenarios_of_sweeps import comparisons, sweep_contradictions, sweep_found, sweep_not_fitted

SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        sweep_found,
        sweep_contradictions,
        sweep_not_fitted,
        round_plain,
        round_lengths,
        round_higher_is_better,
        chain,
        forecasts,
        derived,
        derived_fields,
        rounds_planned,
        cooldowns,
        comparisons,
    )
}
