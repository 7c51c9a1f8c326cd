"""Records of a user's own: each is held to the first, and what cannot be trained on is named."""

import json

import numpy as np
import pytest
from conftest import run

from budgetflow.base.errors import ConfigError
from budgetflow.config import default_config
from budgetflow.engine.data.batches import stream_batches
from budgetflow.engine.data.source import load_dataset


def good(index):
    return {"image": np.full((2, 2, 1), index % 256, np.uint8), "label": index % 3}


SOURCES = {}


def open_split(split):
    return SOURCES[split]


def load(train, validation=None, in_memory_bytes=2**30, **options):
    SOURCES.update(train=train, validation=validation or [good(0)] * 4)
    load_dataset.cache_clear()
    return load_dataset(
        f"{__name__}.open_split",
        "train",
        "validation",
        None,
        in_memory_bytes=in_memory_bytes,
        **options,
    )


def with_odd(position, record):
    return [record if index == position else good(index) for index in range(12)]


class Raising(list):
    def __getitem__(self, index):
        if index == 9:
            raise OSError("disk on fire")
        return good(index)


ODD = {
    "a float image among bytes": (
        {**good(7), "image": np.full((2, 2, 1), 0.5, np.float32)},
        r"example 7 holds inputs float32\[2, 2, 1\], the first one inputs uint8\[2, 2, 1\]",
    ),
    "another shape": (
        {**good(7), "image": np.zeros((3, 2, 1), np.uint8)},
        r"example 7 holds inputs uint8\[3, 2",
    ),
    "a missing key": ({"image": good(7)["image"]}, "example 7 has no feature 'label'"),
    "a byte string": ({**good(7), "image": b"\x89PNG"}, "example 7 holds .*bytes.* as inputs"),
    "a text": ({**good(7), "label": "seven"}, "example 7 holds 'seven' .str. as targets"),
    "an object": ({**good(7), "label": object()}, "example 7 holds .*object.* as targets"),
    "ragged lists": ({**good(7), "image": [[1, 2], [3]]}, "example 7 holds .*list"),
    "None": (None, "example 7 is None .NoneType.; it should be a dict"),
    "a number": (3.5, "example 7 is 3.5 .float.; it should be a dict"),
    "three of something": ((1, 2, 3), "example 7 is .*tuple"),
    "an id that does not fit": (
        {**good(7), "label": 2**31},
        "example 7 holds 2147483648 in targets, which does not fit",
    ),
    "a pair among dicts": ((np.zeros(3, np.float32), 1), "example 7 holds inputs float32"),
}


@pytest.mark.parametrize("in_memory_bytes", [2**30, 0])
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_record_is_named_with_split_and_number(kind, in_memory_bytes):
    record, message = ODD[kind]
    with pytest.raises(ConfigError, match=rf"config.data.train_split = 'train': .*{message}") as e:
        load(with_odd(7, record), in_memory_bytes=in_memory_bytes)
    assert "\n" not in str(e.value)
    # Later splits, too.
    with pytest.raises(ConfigError, match=rf"validation_split = 'validation': .*{message}"):
        load([good(i) for i in range(4)], with_odd(7, record), in_memory_bytes)


@pytest.mark.parametrize("in_memory_bytes", [2**30, 0])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_the_data_is_the_datas_fault(value, in_memory_bytes):
    records = [{"image": np.zeros(3, np.float32), "label": 0} for _ in range(6)]
    records[4] = {"image": np.asarray([0, value, 0], np.float32), "label": 1}
    with pytest.raises(ConfigError, match="validation': example 4 holds NaN or infinity in inputs"):
        load([records[0]] * 5, records, in_memory_bytes)


def test_what_a_source_raises_in_the_middle_is_one_line():
    with pytest.raises(ConfigError, match=r"config.data.name.*OSError.*disk on fire") as caught:
        load(Raising(range(12)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((good(i) for i in range(3)), "gives generator for a split"),
        (5, "gives int for a split"),
        ([], "holds no examples"),
    ],
)
def test_what_is_no_source_is_named(source, message):
    with pytest.raises(ConfigError, match=message):
        load(source)


def test_an_odd_record_of_a_stream_is_named_when_it_is_read():
    # The sample at the start looks at 64 of 1,000: not at number 5.
    records = [good(index) for index in range(1000)]
    records[5] = {**good(5), "label": 1.5}
    split = load(records, in_memory_bytes=0).train
    assert 5 not in split.sample()
    with pytest.raises(ConfigError, match="example 5 holds targets float32"):
        list(stream_batches(split, 0, 0, 25, 40, np.arange(40)))


class Together(list):
    """Records that are read by batch: as a list of them, or as one dict of arrays."""

    def __init__(self, records, as_columns):
        super().__init__(records)
        self._as_columns = as_columns

    def __getitems__(self, indices):
        records = [list.__getitem__(self, index) for index in indices]
        if not self._as_columns:
            return records
        return {key: np.stack([record[key] for record in records]) for key in records[0]}


@pytest.mark.parametrize("transform", [None, f"{__name__}.brighter"])
def test_however_records_are_handed_over_examples_are_the_same(transform):
    records = [good(index) for index in range(40)]
    arrays = {key: np.stack([record[key] for record in records]) for key in ("image", "label")}
    pairs = [(record["image"], record["label"]) for record in records]
    numbers = np.asarray([5, 3, 39, 3, 0])
    expected = [load(records, transform=transform).train.example(int(n)) for n in numbers]
    sources = [records, Together(records, False), Together(records, True), arrays]
    for source in sources if transform else [*sources, pairs]:
        for in_memory_bytes in (0, 2**30):
            split = load(source, in_memory_bytes=in_memory_bytes, transform=transform).train
            assert split.num_examples == 40
            batch = split.examples(numbers)
            assert (batch["inputs"] == np.stack([e["inputs"] for e in expected])).all()
            assert (batch["targets"] == np.stack([e["targets"] for e in expected])).all()
            assert [batch[name].dtype for name in ("inputs", "targets")] == [np.uint8, np.int32]
            assert (
                split.arrays is None or (split.arrays["inputs"][numbers] == batch["inputs"]).all()
            )


def brighter(record):
    return {**record, "image": record["image"] + np.uint8(1)}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.int64(2**31), "example 5 holds 2147483648 in targets, which does not fit into int32"),
        (True, r"example 5 holds targets bool\[\], the first one targets int32"),
        (np.uint8(1), r"example 5 holds targets uint8\[\], the first one targets int32"),
        (2**70, "example 5 holds .* as targets, not an array of numbers"),
        ("1", "example 5 holds '1' .str. as targets"),
    ],
)
def test_what_numpy_would_convert_among_others_is_named_in_a_batch(value, message):
    records = [good(index) for index in range(1000)]
    records[5] = {**good(5), "label": value}
    split = load(Together(records, False), in_memory_bytes=0).train
    with pytest.raises(ConfigError, match=message):
        split.examples(np.asarray([7, 5, 8]))


def test_nan_in_a_streamed_batch_is_named():
    records = [{"image": np.ones(3, np.float32), "label": 0} for _ in range(1000)]
    records[5] = {"image": np.asarray([0, np.nan, 0], np.float32), "label": 1}
    split = load(records, records, in_memory_bytes=0).train
    with pytest.raises(ConfigError, match=r"example 5 holds NaN or infinity in inputs.* 1 of 3"):
        split.examples(np.asarray([7, 5, 8]))


def test_arrays_that_are_not_equally_long_are_refused():
    with pytest.raises(ConfigError, match="'train' holds 5 'image', 4 'label'; each array"):
        load({"image": np.zeros((5, 3)), "label": np.zeros(4, int)})
    with pytest.raises(ConfigError, match="'train' holds no array"):
        load({})


def test_a_source_that_gives_too_few_records_is_refused():
    class Short(Together):
        def __getitems__(self, indices):
            return super().__getitems__(indices)[1:]

    with pytest.raises(ConfigError, match=r"__getitems__ gives \[39\] records for 40 indices"):
        load(Short([good(index) for index in range(40)], False))


def test_pairs_are_inputs_and_targets():
    dataset = load([(np.full(3, i, np.float32), i) for i in range(5)], [(np.zeros(3), 0)])
    assert dataset.train.arrays["inputs"].tolist() == [[i] * 3 for i in range(5)]
    assert dataset.train.arrays["targets"].tolist() == list(range(5))


def test_several_features_are_a_dict_by_name():
    records = [{"tokens": np.arange(4) + i, "mask": np.ones(4), "next": i} for i in range(5)]
    split = load(records, records, input_key=("tokens", "mask"), target_key="next").train
    assert sorted(split.arrays["inputs"]) == ["mask", "tokens"]
    assert split.arrays["inputs"]["tokens"].shape == (5, 4)
    assert split.example(2)["inputs"]["tokens"].tolist() == [2, 3, 4, 5]
    with pytest.raises(ConfigError, match=r"no feature 'mas' \(config.data.input_key\).*'mask'"):
        load(records, records, input_key=("tokens", "mas"), target_key="next")


def cut(record, rng):
    """A random crop of 2 x 2 of an image of any size; the middle in evaluation."""
    image = record["image"]
    spare = np.asarray(image.shape[:2]) - 2
    row, column = spare // 2 if rng is None else rng.integers(0, spare + 1)
    return {**record, "image": image[row : row + 2, column : column + 2]}


def varying(index):
    shape = (2 + index % 3, 3, 1)
    return {"image": np.arange(np.prod(shape), dtype=np.uint8).reshape(shape), "label": index % 3}


def test_a_random_transform_is_a_function_of_seed_step_and_example():
    records = [varying(index) for index in range(30)]
    dataset = load(records, records, transform=f"{__name__}.cut")
    # What may change in every step is streamed; what may not is held in memory.
    assert dataset.train.arrays is None and dataset.validation.arrays is not None
    middle = dataset.validation.arrays["inputs"]
    assert (middle[2] == records[2]["image"][1:3, 0:2]).all()

    def batches(seed, first, last, rows=range(6)):
        return list(stream_batches(dataset.train, seed, first, last, 6, np.asarray(rows)))

    every = batches(0, 0, 10)
    again = batches(0, 4, 7)
    for step, batch in zip(range(4, 7), again, strict=True):
        assert (batch["inputs"] == every[step]["inputs"]).all()
    # Another host's share is the same, and so is nothing under another seed.
    (share,) = batches(0, 5, 6, [1, 4])
    assert (share["inputs"] == every[5]["inputs"][[1, 4]]).all()
    assert any(
        (a["inputs"] != b["inputs"]).any() for a, b in zip(every, batches(1, 0, 10), strict=True)
    )
    crops = {batch["inputs"].tobytes() for batch in every}
    assert len(crops) > 1
    # A sweep switches randomness off, and may hold all of it in memory.
    still = load(records, records, transform=f"{__name__}.cut", at_random=False).train
    assert (still.arrays["inputs"] == middle).all()


def forgetful(record):
    record["image"] = record["image"] * 2


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ("forgetful", "example 0 is None .NoneType."),
        ("missing", "has no 'missing'"),
        ("cut_wrongly", r"config.data.transform.*ZeroDivisionError"),
    ],
)
def test_a_transform_that_does_not_work_is_named(transform, message):
    with pytest.raises(ConfigError, match=message):
        load([good(0)], transform=f"{__name__}.{transform}")


def cut_wrongly(record):
    return 1 / 0


def test_images_of_varying_size_train_through_a_transform(tmp_path):
    records = [varying(index) for index in range(48)]
    SOURCES.update(train=records, validation=records[:12])
    load_dataset.cache_clear()
    config = default_config("round")
    config.name, config.max_train_steps = "cut", 12
    config.data.name, config.data.transform = f"{__name__}.open_split", f"{__name__}.cut"
    config.data.batch_size, config.data.scale_uint8 = 8, True
    config.task = {"name": "budgetflow.tasks.Classification", "num_classes": 3}
    config.evaluation.evaluations = 2
    outcome, _ = run(config, tmp_path)
    assert outcome["diverged"] == 0 and outcome["best_step"] is not None
    timing = json.loads((tmp_path / "cut" / "timing.json").read_text())
    (reading,) = timing["reading"].values()  # validation is in memory
    assert reading["microseconds_per_example"] > 0 and reading["worker_processes"] == 0
