from pydoc_data.topics import topics

import numpy as np
import pytest
from conftest import REPOSITORY, run

from budgetflow.base.errors import ConfigError
from budgetflow.config import load_config_file
from budgetflow.engine.data.source import load_dataset
from budgetflow.engine.data.text import SEQUENCE_LENGTH, pydoc_topics

NAME = "budgetflow.data.text.pydoc_topics"


def test_sequences_follow_each_other_and_targets_are_the_next_characters():
    text = "\n".join(topics[name] for name in sorted(topics))
    vocabulary = sorted(set(text))
    source = pydoc_topics("train")
    assert source.num_classes == len(vocabulary)
    for index in (0, 1, len(source) - 1):
        start = index * SEQUENCE_LENGTH
        for key, offset in (("inputs", 0), ("targets", 1)):
            decoded = "".join(vocabulary[code] for code in source[index][key])
            assert decoded == text[start + offset : start + offset + SEQUENCE_LENGTH]
    with pytest.raises(IndexError):
        source[len(source)]


def test_splits_do_not_overlap_and_cover_the_text():
    sizes = {split: len(pydoc_topics(split)) for split in ("train", "validation", "test")}
    characters = sum(len(topics[name]) + 1 for name in topics) - 1
    assert sizes["train"] == pytest.approx(0.9 * characters / SEQUENCE_LENGTH, abs=2)
    assert sum(sizes.values()) == pytest.approx(characters / SEQUENCE_LENGTH, abs=4)


def test_a_data_set_of_text_is_loaded_by_its_import_path():
    dataset = load_dataset(NAME, "train", "validation", "test", None, "inputs", "targets")
    assert dataset.train.arrays["inputs"].shape[1:] == (SEQUENCE_LENGTH,)
    assert dataset.num_classes == pydoc_topics("train").num_classes
    with pytest.raises(ConfigError, match="no split 'dev'"):
        load_dataset(NAME, "train", "dev", None, None, "inputs", "targets")


@pytest.mark.slow
def test_a_language_model_learns(tmp_path):
    config = load_config_file(REPOSITORY / "configs" / "language_model.py")
    config.max_train_steps = 30
    config.model = {"name": "budgetflow.models.Transformer", "width": 16, "depth": 1, "heads": 2}
    config.evaluation.evaluations = 3
    config.evaluation.train_examples = 32
    config.search.trials = 1
    outcome, output = run(config, tmp_path)
    uniform = np.log(pydoc_topics("train").num_classes)
    assert outcome["best_validation"]["loss"] < 0.9 * uniform
    assert "val. loss" in output
