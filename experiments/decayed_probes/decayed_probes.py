"""Do short decays off their trunks tell which trial is the best one? Trained, then replayed.

    .venv/bin/python experiments/decayed_probes/decayed_probes.py train [--searches 12]
    .venv/bin/python experiments/decayed_probes/decayed_probes.py replay

``train`` runs every trial of every search to its full length with its own decay (the truth, over
three seeds), and off its trunk, at steps that grow by the square root of 2, a decay of a tenth of
the steps so far (a probe) and the end of a complete run of that length. ``replay`` has policies
choose from these: decayed probes, promotion by the undecayed curve, ASHA, PASHA, complete short
runs; each is charged every step that it uses. Three workloads: Fashion-MNIST (pooled to 14 x 14,
20,000 images, an MLP), digits of which every update draws a fifth of the labels anew (an MLP), and
the next character of Python's help topics (a window of 8 characters, embedded).
"""

import argparse
import functools
import json
import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from probe_policy import ProbeSettings, checkpoints, next_step

FOLDER = Path(__file__).parent
TRIALS, SEEDS, BATCH = 16, 3, 64
# Of the full length: its decay, and the first step at which trunks are looked at.
DECAY, FIRST = 0.2, 1 / 32
SPACES = {
    "rate": ("weight_decay",),
    "regularization": ("weight_decay", "dropout"),
    "momentum": ("momentum", "smoothing"),
}


def fashion():
    """Images of 14 x 14, labels; training and validation."""
    from budgetflow.engine.data.fashion_mnist import fashion_mnist

    found = []
    for split, size in (("train", 20_000), ("validation", 5000)):
        records = fashion_mnist(split)
        images = np.stack([records[n]["image"] for n in range(size)]).astype(np.float32)
        pooled = images.reshape(size, 14, 2, 14, 2).mean((2, 4)).reshape(size, -1) / 255
        found.append((pooled, np.array([records[n]["label"] for n in range(size)])))
    return *found, (196, 128, 10), 2000


def digits():
    """scikit-learn's digits."""
    from sklearn.datasets import load_digits

    rng, data = np.random.default_rng(0), load_digits()
    order = rng.permutation(len(data.target))
    images, labels = (data.data[order] / 16).astype(np.float32), data.target[order]
    return (images[:1000], labels[:1000]), (images[1000:], labels[1000:]), (64, 64, 10), 1500


def characters():
    """Windows of 8 characters and the next one."""
    from pydoc_data.topics import topics

    text = "".join(topics[name] for name in sorted(topics))
    text = "".join(c if c.isascii() else "?" for c in text.lower())
    codes = {c: n for n, c in enumerate(sorted(set(text)))}
    tokens = np.array([codes[c] for c in text], np.int32)
    windows = np.lib.stride_tricks.sliding_window_view(tokens, 9)
    order = np.random.default_rng(0).permutation(len(windows) // 9) * 9
    train, validation = windows[order[:45_000]], windows[order[45_000:50_000]]
    sizes = (8 * 16, 128, len(codes))
    return (train[:, :8], train[:, 8]), (validation[:, :8], validation[:, 8]), sizes, 2000


WORKLOADS = {"fashion": fashion, "digits": digits, "characters": characters}


def drawn(workload, space, rng):
    """The hyperparameters of a search's trials, an array each."""
    found = {
        "rate": 10 ** rng.uniform(-2.3, 0.3, TRIALS),
        "momentum": np.full(TRIALS, 0.9),
        "weight_decay": np.zeros(TRIALS),
        "dropout": np.zeros(TRIALS),
        "smoothing": np.zeros(TRIALS),
        "label_noise": np.full(TRIALS, 0.2 if workload == "digits" else 0.0),
    }
    draws = {
        "momentum": lambda: 1 - 10 ** rng.uniform(-2, 0, TRIALS),
        "weight_decay": lambda: 10 ** rng.uniform(-5, -2, TRIALS),
        "dropout": lambda: rng.uniform(0, 0.5, TRIALS),
        "smoothing": lambda: rng.uniform(0, 0.3, TRIALS),
    }
    for name in SPACES[space]:
        found[name] = draws[name]()
    # What a step does is about the learning rate by 1 - momentum.
    found["rate"] = found["rate"] * (1 - found["momentum"])
    return {name: jnp.asarray(values, jnp.float32) for name, values in found.items()}


def initial(sizes, embeds, key):
    """Parameters and momentum at step 0."""
    keys = jax.random.split(key, 3)
    inputs, hidden, outputs = sizes
    params = {
        "w1": jax.random.normal(keys[0], (inputs, hidden)) / math.sqrt(inputs),
        "b1": jnp.zeros(hidden),
        "w2": jax.random.normal(keys[1], (hidden, outputs)) / math.sqrt(hidden),
        "b2": jnp.zeros(outputs),
    }
    if embeds:
        params["embedding"] = jax.random.normal(keys[2], (outputs, inputs // 8))
    return params, jax.tree.map(jnp.zeros_like, params)


def logits(params, inputs, keep=None):
    """The MLP's outputs; ``keep`` is its dropout mask."""
    if "embedding" in params:
        inputs = params["embedding"][inputs].reshape(len(inputs), -1)
    hidden = jax.nn.relu(inputs @ params["w1"] + params["b1"])
    return (hidden if keep is None else hidden * keep) @ params["w2"] + params["b2"]


def step(state, hyper, factor, batch, key):
    """One update of SGD with momentum; ``factor`` is of the learning rate."""
    params, momentum = state
    inputs, labels = batch
    wrong = jax.random.bernoulli(jax.random.fold_in(key, 1), hyper["label_noise"], labels.shape)
    others = jax.random.randint(jax.random.fold_in(key, 2), labels.shape, 0, len(params["b2"]))
    labels = jnp.where(wrong, others, labels)

    def loss(params):
        keep = jax.random.bernoulli(key, 1 - hyper["dropout"], (len(inputs), len(params["b1"])))
        found = logits(params, inputs, keep / (1 - hyper["dropout"]))
        target = jax.nn.one_hot(labels, found.shape[-1])
        target = target * (1 - hyper["smoothing"]) + hyper["smoothing"] / found.shape[-1]
        return -(target * jax.nn.log_softmax(found)).sum(-1).mean()

    gradient = jax.grad(loss)(params)
    momentum = jax.tree.map(
        lambda m, g, p: hyper["momentum"] * m + g + hyper["weight_decay"] * p,
        momentum,
        gradient,
        params,
    )
    rate = hyper["rate"] * factor
    return jax.tree.map(lambda p, m: p - rate * m, params, momentum), momentum


@jax.jit
def run(states, hypers, keys, data, first, factors, count):
    """Trials side by side through some steps; each has batches and noise of its own seed."""
    inputs, labels = data

    def one(state, hyper, key):
        def body(n, state):
            at = jax.random.fold_in(key, first + n)
            rows = jax.random.randint(at, (BATCH,), 0, len(labels))
            return step(state, hyper, factors[n], (inputs[rows], labels[rows]), at)

        return jax.lax.fori_loop(0, count, body, state)

    return jax.vmap(one)(states, hypers, keys)


@jax.jit
def measured(states, data):
    """Validation error rate and loss of each trial."""

    def one(params):
        found = jax.nn.log_softmax(logits(params, data[0]))
        loss = -jnp.take_along_axis(found, data[1][:, None], 1).mean()
        return (found.argmax(-1) != data[1]).mean(), loss

    return jax.vmap(one)(states[0])


def linear(steps):
    """The learning rate's factors over a decay to zero."""
    return (1 - (np.arange(steps) + 0.5) / steps).astype(np.float32)


def train_search(workload, space, seed):
    """One search: its truths, and what trunks, probes and complete short runs measured."""
    train, validation, sizes, length = WORKLOADS[workload]()
    train, validation = jax.device_put((train, validation))
    hyper = drawn(workload, space, np.random.default_rng([seed, len(workload), len(space)]))
    init = functools.partial(initial, sizes, workload == "characters")

    def begin(seed):
        key = jax.random.key(seed)
        many = jax.tree.map(lambda a: jnp.broadcast_to(a, (TRIALS, *a.shape)), init(key))
        return many, jnp.broadcast_to(key, (TRIALS,))

    metric = 0 if workload != "characters" else 1
    warmup = length // 64
    ramp = np.minimum(1, (np.arange(length) + 1) / warmup).astype(np.float32)

    def advance(states, keys, first, factors):
        padded = np.zeros(length, np.float32)  # of one length, to compile once
        padded[: len(factors)] = factors
        return run(states, hyper, keys, train, first, padded, len(factors))

    def cost(states):
        return np.nan_to_num(np.asarray(measured(states, validation)[metric]), nan=np.inf)

    truths = []
    looked = checkpoints(ProbeSettings(round(FIRST * length), length, growth=math.sqrt(2)))
    found = {"steps": list(looked), "trunk": [], "probe": [], "complete": []}
    for number in range(SEEDS):
        states, keys = begin(SEEDS * seed + number)
        at, stops = 0, {round((1 - DECAY) * length)}
        if number == 0:
            stops |= {*looked} | {round((1 - DECAY) * s) for s in looked}
        completes = {}
        for stop in sorted(stops):
            states, at = advance(states, keys, at, ramp[at:stop]), stop
            if stop == round((1 - DECAY) * length):
                decay = linear(length - stop)
                truths.append(cost(advance(states, keys, stop, decay)))
            if number:
                continue
            for whole in looked:
                if stop == round((1 - DECAY) * whole):
                    decay = linear(whole - stop) * float(ramp[stop])
                    completes[whole] = cost(advance(states, keys, stop, decay))
            if stop in looked:
                decay = linear(round(0.1 * stop)) * float(ramp[stop - 1])
                found["trunk"].append(cost(states))
                found["probe"].append(cost(advance(states, keys, stop, decay)))
        if number == 0:
            found["complete"] = [completes[s] for s in looked]
    truths = np.array(truths)
    return {
        "workload": workload,
        "space": space,
        "seed": seed,
        "length": length,
        "truth": np.round(truths, 5).tolist(),
        **{k: v if k == "steps" else np.round(v, 5).tolist() for k, v in found.items()},
    }


def train(searches, path):
    """Trains all searches and writes what they measured."""
    found = []
    for number in range(searches):
        for workload in WORKLOADS:
            start = time.perf_counter()
            space = list(SPACES)[number % len(SPACES)]
            found.append(train_search(workload, space, number))
            print(f"{workload} {space} {number}: {time.perf_counter() - start:.0f} s", flush=True)
            path.write_text("[\n" + ",\n".join(map(json.dumps, found)) + "\n]\n")


def by_probes(search, first, noise, what="probe", keep=0.5):
    """The policy of probe_policy, or the same one on undecayed curves: trial, steps."""
    fraction = {"probe": 0.1, "trunk": 1e-9}[what]
    settings = ProbeSettings(
        first_step=search["steps"][first],
        last_step=search["length"],
        decay_fraction=fraction,
        keep=keep,
        seed_noise=noise,
    )
    measured = dict(zip(search["steps"], search[what], strict=True))
    probes, trials = {}, tuple(range(TRIALS))
    while not hasattr(found := next_step(settings, trials, probes), "trial"):
        at = min(measured, key=lambda step: abs(step - found.step))  # but for rounding
        probes[found.step] = dict(enumerate(measured[at]))
    return found.trial, found.steps


def by_complete_runs(search, first, noise):
    """Complete runs of growing length off the trunks, each with a decay of a fifth; halved."""
    going, steps, before = list(range(TRIALS)), 0, 0
    for index in range(first, len(search["steps"]), 2):
        length, costs = search["steps"][index], search["complete"][index]
        trunk = round((1 - DECAY) * length)
        steps += len(going) * (length - before)
        before = trunk
        ranked = sorted(going, key=lambda t: (costs[t], t))
        close = [t for t in ranked if costs[t] - costs[ranked[0]] <= 2 * math.sqrt(2) * noise]
        going = (close or ranked)[: max(1, len(going) // 2)]
        if len(going) == 1:
            break
    return going[0], steps


def by_asha(search, first, eta, patient=False):
    """ASHA (Li et al. 2020), one worker, on undecayed curves; PASHA (Bohdal et al. 2023)."""
    length, steps = search["length"], np.array(search["steps"])
    rungs = []
    at = float(steps[first])
    while at < 0.99 * length:
        rungs.append(int(np.argmin(abs(np.log(steps / at)))))
        at *= eta
    rungs.append(len(steps) - 1)
    results = [{} for _ in rungs]
    top, spent, waiting = (
        (min(1, len(rungs) - 1) if patient else len(rungs) - 1),
        0,
        list(range(TRIALS)),
    )
    while True:
        job = None
        for rung in range(top - 1, -1, -1):
            best = sorted(results[rung], key=lambda t: (results[rung][t], t))
            best = best[: len(best) // eta]
            job = next(((t, rung + 1) for t in best if t not in results[rung + 1]), None)
            if job:
                break
        if job is None and waiting:
            job = waiting.pop(0), 0
        if job is None:
            break
        trial, rung = job
        spent += steps[rungs[rung]] - (steps[rungs[rung - 1]] if rung else 0)
        results[rung][trial] = search["trunk"][rungs[rung]][trial]
        if patient and rung == top < len(rungs) - 1:
            # It goes further where the two highest rungs do not agree on the order.
            both = sorted(results[top], key=results[top].get)
            top += both != sorted(results[top], key=results[top - 1].get)
    last = next(found for found in reversed(results) if found)
    return min(last, key=lambda t: (last[t], t)), int(spent)


METHODS = {
    "decayed probes": lambda s, first, noise: by_probes(s, first, noise),
    "undecayed, halved": lambda s, first, noise: by_probes(s, first, noise, "trunk"),
    "complete runs, halved": by_complete_runs,
    "ASHA, eta 3": lambda s, first, noise: by_asha(s, first, 3),
    "ASHA, eta 4": lambda s, first, noise: by_asha(s, first, 4),
    "PASHA, eta 3": lambda s, first, noise: by_asha(s, first, 3, patient=True),
}
# First checkpoints: a 32nd, a 16th and an eighth of the full length.
FIRSTS = {0: "1/32", 2: "1/16", 4: "1/8"}


def outcome(search, method, first):
    """A method's regret as a share of the best cost, whether the winner was kept, its steps."""
    truths = np.array(search["truth"])
    mean = truths.mean(0)
    usable = np.isfinite(truths).all(0)
    sd = math.sqrt(truths[:, usable].var(0, ddof=1).mean())
    mean = np.where(usable, mean, np.inf)
    # The noise of one seed's cost; that of good trials is about that of the median one.
    good = usable & (mean <= np.median(mean[usable]))
    sd = math.sqrt(truths[:, good].var(0, ddof=1).mean())
    trial, steps = METHODS[method](search, first, sd)
    regret = mean[trial] - mean.min()
    as_good = regret <= 2 * sd * math.sqrt(2 / SEEDS)
    return regret / mean.min(), regret == 0, as_good, steps / (TRIALS * search["length"])


def replay(path):
    """Replays all methods; writes tables, with how they differ from decayed probes, and a plot."""
    searches = json.loads(path.read_text())
    rng = np.random.default_rng(0)
    lines = []
    for workload in (*WORKLOADS, None):
        chosen = [s for s in searches if workload in (None, s["workload"])]
        lines += [f"**{workload or 'all'}**, {len(chosen)} searches", ""]
        lines.append("| method | first | steps | winner | as good | regret | more than probes |")
        lines.append("| --- | --- | ---: | ---: | ---: | ---: | --- |")
        for first, name in FIRSTS.items():
            probes = np.array([outcome(s, "decayed probes", first) for s in chosen])
            for method in METHODS:
                found = np.array([outcome(s, method, first) for s in chosen])
                regret, best, as_good, steps = found.mean(0)
                apart = found[:, 0] - probes[:, 0]
                drawn = rng.choice(apart, (4000, len(apart))).mean(1)
                low, high = np.quantile(drawn, (0.05, 0.95))
                cells = [method, name, f"{steps:.1%}", f"{best:.0%}", f"{as_good:.0%}"]
                cells += [f"{regret:.2%}", f"{apart.mean():+.2%} ({low:+.2%} to {high:+.2%})"]
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    path.with_name("table.md").write_text("\n".join(lines))
    plot(searches, path.with_name("regret.png"))
    print("\n".join(lines))


def plot(searches, path):
    """Mean regret over mean steps, a panel a workload, a line a method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, len(WORKLOADS) + 1)
    for axes, workload in zip(panels, (*WORKLOADS, None), strict=True):
        chosen = [s for s in searches if workload in (None, s["workload"])]
        for number, method in enumerate(METHODS):
            found = [
                np.mean([outcome(s, method, first) for s in chosen], axis=0) for first in FIRSTS
            ]
            regret, steps = [each[0] for each in found], [each[3] for each in found]
            width = 2.5 if number == 0 else 1.2
            axes.plot(steps, np.maximum(regret, 1e-4), "o-", lw=width, label=method)
        axes.set(title=workload or "all", xlabel="steps, of all to the end", yscale="log")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("regret, of the best cost")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.savefig(path, dpi=100)


def main():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "replay"))
    parser.add_argument("--searches", type=int, default=12, help="of each workload")
    parser.add_argument("--file", type=Path, default=FOLDER / "searches.json")
    arguments = parser.parse_args()
    if arguments.what == "train":
        arguments.file.parent.mkdir(exist_ok=True)
        train(arguments.searches, arguments.file)
    else:
        replay(arguments.file)


if __name__ == "__main__":
    main()
