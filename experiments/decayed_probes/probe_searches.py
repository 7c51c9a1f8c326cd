"""The searches that are replayed: workloads, their trials side by side, and what these measure."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from probe_policy import ProbeSettings, checkpoints

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
