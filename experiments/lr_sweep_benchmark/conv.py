"""The benchmark's convolutional network on 4,000 images of Fashion-MNIST.

scripts/launch --config=experiments/lr_sweep_benchmark/conv.py

Needs the data set: see budgetflow/data/fashion_mnist.py. Cost and result: see the README beside
this file.
"""

from budgetflow.config import default_config, log_grid


def get_config():
    config = default_config("lr_sweep")
    config.max_train_steps = 5000
    config.sweep.learning_rates = log_grid(0.0001, 0.1, 16)
    config.data.name = "budgetflow.data.fashion_mnist.fashion_mnist"
    config.data.train_split = "train[:4000]"
    config.data.validation_split = "validation[:1000]"
    config.data.batch_size = 128
    config.evaluation.train_examples = 1000
    config.model = {"name": "experiments.lr_sweep_benchmark.model.StridedConvNet"}
    config.optimizer = {"name": "adam"}
    config.mesh.trial = -1
    return config
