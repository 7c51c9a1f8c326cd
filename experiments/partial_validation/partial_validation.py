"""Would evaluating on a part of the validation split still select the same checkpoints?

    .venv/bin/python experiments/partial_validation/partial_validation.py [--searches 12]

Trials are evaluated 40 times on each validation example. Then selection is repeated as if each of
these evaluations had been on a part of the split, drawn at random, and only a trial's candidates on
the whole of it: either the few best ones by the part, or all that are not clearly worse there. The
workloads and searches are those of ``experiments/decayed_probes/probe_searches.py``. Prints what
``experiments/partial_validation/README.md`` shows.
"""

import argparse
import collections
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "decayed_probes"))
import probe_searches as probes

EVALUATIONS, DRAWS = 40, 4
# Parts of the split; candidates by their number, or by standard errors of their distance.
PARTS = (0.05, 0.1, 0.25, 0.5)
NUMBERS, ERRORS = (1, 3, 5, 10), (2, 4)


@jax.jit
def costs(states, data):
    """Of each trial and validation example: whether it is wrong, and its loss."""

    def one(params):
        found = jax.nn.log_softmax(probes.logits(params, data[0]))
        loss = -jnp.take_along_axis(found, data[1][:, None], 1)[:, 0]
        return (found.argmax(-1) != data[1]).astype(jnp.float32), loss

    return jax.vmap(one)(states[0])


def trained(workload, space, seed):
    """A search's costs [evaluation, trial, validation example]."""
    train, validation, sizes, length = probes.WORKLOADS[workload]()
    train, validation = jax.device_put((train, validation))
    hyper = probes.drawn(workload, space, np.random.default_rng([seed, len(workload), len(space)]))
    key = jax.random.key(seed)
    one = probes.initial(sizes, workload == "characters", key)
    states = jax.tree.map(lambda a: jnp.broadcast_to(a, (probes.TRIALS, *a.shape)), one)
    keys = jnp.broadcast_to(key, (probes.TRIALS,))
    factors = np.minimum(1, (np.arange(length) + 1) / (length // 64)).astype(np.float32)
    decay = round(probes.DECAY * length)
    factors[-decay:] *= probes.linear(decay)
    found, step = [], 0
    for stop in (round(length * (n + 1) / EVALUATIONS) for n in range(EVALUATIONS)):
        padded = np.zeros(length, np.float32)  # of one length, to compile once
        padded[: stop - step] = factors[step:stop]
        states, step = probes.run(states, hyper, keys, train, step, padded, stop - step), stop
        found.append(np.asarray(costs(states, validation)[workload == "characters"]))
    return np.nan_to_num(np.stack(found), nan=np.inf)


def best_few(part, number):
    """Candidates [evaluation, trial]: the best evaluations of each trial by the part."""
    return part.mean(-1).argsort(0, kind="stable").argsort(0, kind="stable") < number


def not_clearly_worse(part, errors, share):
    """Candidates: those no more standard errors behind the trial's best by the part.

    Example by example, so that what all evaluations find hard does not count; and less where the
    part is most of the split.
    """
    best = part.mean(-1).argmin(0)
    with np.errstate(invalid="ignore"):  # a diverged trial's
        behind = part - part[best, np.arange(part.shape[1])]
        error = behind.std(-1) * np.sqrt((1 - share) / part.shape[-1])
        return ~(behind.mean(-1) > errors * error)


def selected(whole, candidates):
    """How selection by candidates differs from that by all evaluations on the whole split.

    Args:
        whole: costs [evaluation, trial] on the whole split.
        candidates: which of them are known, as booleans.

    Returns:
        The share of the trials whose best cost is found, whether the best of the search is, the
        regret of the trial that is chosen, as a share of the best cost, and of the evaluations the
        share that are candidates.
    """
    truth, found = whole.min(0), np.where(candidates, whole, np.inf).min(0)
    finite = np.isfinite(truth)
    exact = (found == truth)[finite].mean()
    regret = (truth[found.argmin()] - truth.min()) / truth.min()
    return exact, found.min() == truth.min(), regret, candidates[:, finite].mean()


def main():
    """Trains the searches and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--searches", type=int, default=12, help="of each workload")
    searches = parser.parse_args().searches
    rng, results = np.random.default_rng(0), collections.defaultdict(list)
    for number in range(searches):
        for workload in probes.WORKLOADS:
            space = list(probes.SPACES)[number % len(probes.SPACES)]
            cost = trained(workload, space, number)
            whole = cost.mean(-1)
            for share in PARTS * DRAWS:
                examples = rng.permutation(cost.shape[-1])[: round(share * cost.shape[-1])]
                part = cost[:, :, examples]
                for few in NUMBERS:
                    key = workload, share, f"the {few} best"
                    results[key].append(selected(whole, best_few(part, few)))
                for errors in ERRORS:
                    key = workload, share, f"within {errors} standard errors"
                    found = selected(whole, not_clearly_worse(part, errors, share))
                    results[key].append(found)
        print(f"{number + 1} of {searches} searches", flush=True)
    print(
        "| workload | part | candidates | evaluated | best cost of a trial | of a search | regret |"
    )
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for (workload, share, rule), each in results.items():
        exact, best, regret, candidates = np.mean(each, axis=0)
        cells = f"{share + (1 - share) * candidates:.0%} | {exact:.0%} | {best:.0%} | {regret:.1%}"
        print(f"| {workload} | {share:.0%} | {rule} | {cells} |")


if __name__ == "__main__":
    main()
