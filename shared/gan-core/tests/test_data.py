"""Sources, held-out splits, and the endless stream of batches."""

import re
import signal
import subprocess
import sys
import tracemalloc
from itertools import islice

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import Dataset

from gan_core.data import (
    BatchStream,
    FixedSource,
    ImageSpec,
    IndexStream,
    Paired,
    Spec,
    TensorDataset,
    TensorSource,
    as_source,
    augmentation,
    collate,
    facts_of,
    hold_out,
    read,
    require_classes,
    require_keys,
    to_device,
)
from gan_core.draws import of_items, reading
from gan_core.errors import DataError

CPU = torch.device("cpu")


class Squares(Dataset):
    """Items that are read one at a time and draw from torch's generator, like an augmentation."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return {"x": torch.tensor([index, index**2]), "noise": torch.rand(())}


# --- sources


QUARTERS = torch.tensor([[0, 100], [200, 40]], dtype=torch.uint8).repeat_interleave(4, 0).repeat_interleave(4, 1)


@pytest.mark.parametrize("lazy", [False, True])
def test_images_in_memory_are_resized_and_label_maps_keep_their_values(lazy):
    tensors = {"image": QUARTERS.expand(3, 1, 8, 8), "mask": (QUARTERS // 100).expand(3, 1, 8, 8)}
    dataset = TensorSource(tensors).dataset
    source = FixedSource([dataset[k] for k in range(3)]) if lazy else FixedSource(dataset)
    half = source.fit(ImageSpec(image_size=4, channels=1))[1]
    assert half["image"].dtype is half["mask"].dtype is torch.uint8
    assert half["image"][0, ::3, ::3].tolist() == [[0, 100], [200, 40]]
    assert half["mask"][0, ::3, ::3].tolist() == [[0, 1], [2, 0]]
    assert sorted(half["mask"].unique().tolist()) == [0, 1, 2]
    double = source.fit(ImageSpec(image_size=16, channels=1))[1]
    assert double["image"].shape == (1, 16, 16)
    assert double["image"].float().mean().round() == QUARTERS.float().mean().round()
    wide = source.fit(ImageSpec(image_size=(4, 8), channels=1))[1]["image"]
    assert torch.equal(wide, QUARTERS[None, 2:6])  # covered, and cropped at the centre
    flat = source.fit(ImageSpec(image_size=(4, 8), channels=1, resize="stretch"))[1]["image"]
    assert flat[0, ::3, ::7].tolist() == [[0, 100], [200, 40]]
    cut = source.fit(ImageSpec(image_size=4, channels=1, resize="none"))[1]["image"]
    assert torch.equal(cut, QUARTERS[None, 2:6, 2:6])


def test_images_that_do_not_fit_in_memory_are_resized_on_demand(monkeypatch):
    source, spec = TensorSource({"image": QUARTERS.expand(30, 1, 8, 8)}), ImageSpec(image_size=16, channels=1)
    monkeypatch.setattr(augmentation, "RESIZED_AT_ONCE", 7 * 16 * 16)
    held = source.fit(spec)
    assert isinstance(held, TensorDataset)
    monkeypatch.setattr(augmentation, "MEMORY_BYTES", 30 * 16 * 16 - 1)
    lazy = source.fit(spec)
    assert not isinstance(lazy, TensorDataset)
    assert torch.equal(lazy.__getitems__(range(30))["image"], held.tensors["image"])


def test_enlarged_images_are_cropped_at_random_only_in_training():
    source = TensorSource({"image": QUARTERS.expand(30, 1, 8, 8)})
    spec = ImageSpec(image_size=8, channels=1, enlarge=1.5, crop="random")
    assert source.fit(spec).__getitems__(list(range(30)))["image"].shape == (30, 1, 8, 8)
    assert len({tuple(image["image"].flatten().tolist()) for image in map(source.fit(spec).__getitem__, range(30))}) > 5
    assert torch.equal(source.fit(spec.plain())[0]["image"], QUARTERS[None])


def test_all_parts_in_memory_are_resized_and_cropped_in_the_same_way():
    pair = Paired(image=QUARTERS.expand(3, 1, 8, 8), mask=(QUARTERS // 100).expand(3, 1, 8, 8))
    item = pair.fit(ImageSpec(image_size=4, channels={"image": 1, "mask": 1}))[0]
    assert item["image"].shape == item["mask"].shape == (1, 4, 4)
    assert item["mask"][0, ::3, ::3].tolist() == [[0, 1], [2, 0]]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ImageSpec(image_size=16, resize="none"), "an item is 8x8 pixels, smaller than the crop of 16x16; enlarge it"),
        (
            ImageSpec(channels=3),
            "eight: `image` has 1 channels, and the networks have 3; convert the data, or set the networks' channels",
        ),
    ],
)
def test_images_that_do_not_match_the_networks_are_rejected(spec, words):
    with pytest.raises(DataError) as error:
        TensorSource({"image": torch.zeros(3, 1, 8, 8, dtype=torch.uint8)}, name="eight").fit(spec)
    assert str(error.value) == words


def test_an_error_in_a_worker_is_raised_unchanged_and_ends_the_program():
    code = """
import torch
from gan_core.data import BatchStream
class Ragged:
    def __len__(self): return 8
    def __getitem__(self, index): return {"x": torch.zeros(1 + index)}
stream = BatchStream(Ragged(), 4, seed=0, workers=1)
try:
    next(stream)
except Exception as error:
    print(str(error).count(chr(10)), str(error)[:28])
stream.myself = stream  # a cycle keeps its worker to the end
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout == "0 `x` of the data has items of\n"


def test_facts_contain_the_channels_of_each_part():
    facts = TensorSource({"source": torch.zeros(2, 1, 4, 4), "target": torch.zeros(2, 3, 4, 4)}).facts
    assert (facts["source_channels"], facts["target_channels"]) == (1, 3)


def test_classes_in_another_order_than_the_model_are_rejected():
    source = TensorSource({"x": torch.zeros(2), "label": torch.arange(2)}, name="toys", classes=["b", "a"])
    require_classes(source, 2, ["b", "a"])
    require_classes(source, 2, ["0", "1"])  # names that share nothing say nothing
    with pytest.raises(DataError) as error:
        require_classes(source, 2, ["a", "b"])
    assert str(error.value) == (
        "toys has the classes b, a, and the model a, b; give data with the same classes in the same order"
    )


def test_a_batch_of_tensors_is_fetched_by_one_indexing_operation():
    dataset = TensorDataset({"x": torch.arange(10), "label": torch.arange(10) % 3})
    assert {key: value.tolist() for key, value in dataset.__getitems__([7, 2, 7]).items()} == {
        "x": [7, 2, 7],
        "label": [1, 2, 1],
    }
    assert int(dataset[4]["x"]) == 4
    assert len(dataset) == 10


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, "the dataset is empty; give at least one item for every key"),
        ({"x": np.zeros(2)}, "`x` is of the type ndarray; give a tensor (`torch.as_tensor`)"),
        ({"x": torch.empty(0, 2)}, "the dataset is empty; give at least one item for every key"),
        (
            {"a": torch.zeros(2), "b": torch.zeros(3)},
            "the tensors have different lengths {'a': 2, 'b': 3}; use `Unpaired` for unpaired data",
        ),
    ],
)
def test_tensors_that_are_not_a_dataset_are_rejected(tensors, words):
    with pytest.raises(DataError) as error:
        TensorDataset(tensors)
    assert str(error.value) == words


@pytest.mark.parametrize("key", ["image", "video"])
def test_pixels_on_another_scale_are_rejected(key):
    with pytest.raises(DataError) as error:
        TensorSource({key: torch.full((2, 1, 4, 4), 255.0)}, name="mine")
    assert str(error.value) == (
        f"mine: `{key}` is floating point with magnitudes up to 255; give pixels as uint8, or scale them to [-1, 1]"
    )


def test_pixels_that_are_not_finite_are_rejected_and_those_that_are_not_negative_are_named(caplog):
    images = torch.rand(4, 1, 8, 8)
    TensorSource({"image": images}, name="mine")
    assert caplog.messages[0].startswith("mine: `image` is in [")
    assert caplog.messages[0].endswith("; pixels in [0, 1] must be scaled to [-1, 1]")
    TensorSource({"image": 2 * images - 1, "points": images})
    assert len(caplog.messages) == 1
    for value in (torch.nan, torch.inf):
        images[0, 0, 0, 0] = value
        with pytest.raises(DataError, match=r"^mine: `image` has values that are not finite; remove these items$"):
            TensorSource({"image": images}, name="mine")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.eye(3), "is [3, 3] of torch.float32; expected class indices [N] as integers from 0"),
        (torch.eye(3).long(), "is [3, 3] of torch.int64; expected class indices [N] as integers from 0"),
        (torch.arange(3.0), "is [3] of torch.float32; expected class indices [N] as integers from 0"),
        (torch.arange(3) - 1, "has the value -1; expected class indices from 0"),
    ],
)
def test_labels_that_are_not_class_indices_are_rejected(labels, words):
    with pytest.raises(DataError, match=rf"^mine: `label` {re.escape(words)}$"):
        TensorSource({"points": torch.zeros(3, 2), "label": labels}, name="mine")


def test_facts_of_tensors():
    assert facts_of({"image": torch.zeros(5, 3, 8, 8)}) == {"shape": (3, 8, 8), "channels": 3}
    assert facts_of({"label": torch.tensor([0, 4]), "points": torch.zeros(2, 2)}) == {
        "shape": (2,),
        "channels": 2,
        "num_classes": 5,
        "classes": ["0", "1", "2", "3", "4"],
    }
    assert facts_of({"value": torch.zeros(5)}) == {"shape": ()}
    named = facts_of({"points": torch.zeros(2, 2), "label": torch.tensor([0, 0])}, classes=["a", "b"])
    assert (named["num_classes"], named["classes"]) == (2, ["a", "b"])
    with pytest.raises(DataError, match=r"^the only key is `label`; give the labelled samples too$"):
        TensorSource({"label": torch.arange(3)})


def test_the_data_must_have_the_classes_of_the_networks():
    plain, labelled = (
        TensorSource({"x": torch.zeros(2, 1), **more}, name="mine") for more in ({}, {"label": torch.tensor([0, 2])})
    )
    require_classes(plain, None)
    require_classes(labelled, 3)
    with pytest.raises(DataError) as error:
        require_classes(plain, 3)
    assert str(error.value) == (
        "mine has no labels, but the networks are conditioned on classes (`network.num_classes` is 3); give a folder "
        "with a sub-folder for each class (pairs: `Derived(…, labels=True)`); there must be two or more"
    )
    with pytest.raises(DataError) as error:
        require_classes(labelled, 2)
    assert str(error.value) == "mine has 3 classes, but `network.num_classes` is 2; set it to 3"


@pytest.mark.parametrize(
    ("reads", "remedy"),
    [
        (
            ("source", "target"),
            "give `--data source=PATH --data target=PATH`, or in Python `Paired(source=a, target=b)` or "
            "`Derived(target, degrade)`",
        ),
        (("image", "label"), "give a folder with a sub-folder for each class (pairs: `Derived(…, labels=True)`)"),
        (("image", "mask"), "give `--data image=PATH --data mask=PATH`, or in Python `Paired(image=a, mask=b)`"),
        (("image", "depth"), "give data whose items have `depth`"),
    ],
)
def test_the_error_for_a_missing_key_says_how_to_provide_it(reads, remedy):
    source = TensorSource({"image": torch.zeros(2, 1, 4, 4), "caption": torch.zeros(2, 3)}, name="mine")
    require_keys(source, ("image",), "any")
    with pytest.raises(DataError) as error:
        require_keys(source, reads, "pix2pix")
    wanted = " , ".join(f"`{key}`" for key in reads).replace(" ,", ",")
    assert str(error.value) == f"mine has `image`, `caption`, but pix2pix reads {wanted}; {remedy}"


def test_sources_tensors_and_datasets_become_sources():
    source, dataset = TensorSource({"x": torch.zeros(2, 1)}), Squares()
    assert as_source(source) is source
    assert as_source({"x": torch.zeros(2, 1)}).facts == source.facts
    assert isinstance(as_source(dataset), FixedSource)
    assert as_source(dataset).fit(Spec()) is dataset
    assert len(as_source(dataset)) == 10


def test_facts_of_a_dataset_contain_shapes_but_no_number_of_classes():
    dataset = TensorDataset({"image": torch.zeros(3, 2, 8, 8, dtype=torch.uint8), "label": torch.zeros(3).long()})
    assert as_source(dataset).facts == {"shape": (2, 8, 8), "channels": 2}
    one = TensorDataset({"image": torch.zeros(1, 2, 8, 8, dtype=torch.uint8)})
    assert as_source(one).facts == {"shape": (2, 8, 8), "channels": 2}


class Numbers(Dataset[dict[str, torch.Tensor]]):
    """Items that are read one at a time."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return {"number": torch.tensor(index)}


@pytest.mark.parametrize("dataset", [Numbers(), TensorDataset({"number": torch.arange(20)})])
def test_held_out_items_are_not_trained_on(dataset):
    training, held_out = hold_out(dataset, 0.2)
    batches = BatchStream(training, 8, seed=0)
    trained = {number for _ in range(10) for number in next(batches)["number"].tolist()}
    kept = set(next(BatchStream(held_out, 4, seed=0))["number"].tolist())
    assert (len(kept), trained | kept, trained & kept) == (4, set(range(20)), set())
    assert {held_out[index]["number"].item() for index in range(4)} == kept
    assert set(hold_out(dataset, 0.2)[1].indices.tolist()) == kept  # the same in every training
    assert len(hold_out(dataset, 0.001)[1]) == 1


def test_by_default_nothing_is_held_out_and_never_everything():
    dataset = Numbers()
    assert hold_out(dataset, 0.0) == (dataset, None)
    with pytest.raises(DataError) as error:
        hold_out(dataset, 0.99)
    assert str(error.value) == "`data.held_out` is 0.99, which leaves none of 20 items to train on; make it smaller"


def test_items_of_one_file_are_held_out_together():
    groups = torch.arange(30) // 3  # ten files of three items
    dataset = TensorDataset({"number": torch.arange(30)}, groups=groups)
    training, held_out = hold_out(dataset, 0.25)
    trained, kept = (set(groups[part.indices].tolist()) for part in (training, held_out))
    assert trained & kept == set()
    assert len(kept) == 3  # the fewest whole files that are a quarter of the items
    assert len(training) + len(held_out) == 30
    with pytest.raises(DataError, match="which leaves none of 4 items from 1 files to train on"):
        hold_out(TensorDataset({"number": torch.arange(4)}, groups=torch.zeros(4)), 0.1)


# --- the order


def indices(count, **settings):
    return list(islice(iter(IndexStream(**{"length": 10, "batch_size": 4, "seed": 1, **settings})), count))


def test_every_item_occurs_once_per_epoch_and_batches_span_epochs():
    flat = [index for batch in indices(10) for index in batch]
    epochs = [flat[k : k + 10] for k in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_the_order_depends_on_the_seed():
    assert indices(5) == indices(5)
    assert indices(5) != indices(5, seed=2)


def test_an_epoch_of_ten_million_items_needs_little_memory():
    tracemalloc.start()
    batch = next(iter(IndexStream(10_000_000, 64, seed=0)))
    _, peak = tracemalloc.get_traced_memory()  # of Python's own objects; the order is one tensor of 80 MB
    tracemalloc.stop()
    assert len(set(batch)) == 64
    assert peak < 10**6


@pytest.mark.parametrize("batches", range(6))
def test_a_stream_from_any_position_continues_identically(batches):
    assert indices(6, position=4 * batches) == indices(6 + batches)[batches:]


def test_a_batch_may_be_longer_than_an_epoch():
    (batch,) = indices(1, length=3, batch_size=8)
    assert [sorted(batch[k : k + 3]) for k in (0, 3)] == [[0, 1, 2]] * 2
    assert indices(2, length=3, batch_size=8, position=8)[0] == indices(2, length=3, batch_size=8)[1]


def test_processes_read_their_rows_of_the_same_batches():
    whole = indices(7)
    shares = [indices(7, rank=rank, processes=2) for rank in range(2)]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole


# --- batches


def stream(dataset, **settings):
    return BatchStream(dataset, 4, **{"seed": 1, **settings})


@pytest.mark.parametrize("dataset", [TensorDataset({"x": torch.arange(10)}), Squares()], ids=["at once", "one by one"])
def test_batches_follow_the_order_and_the_position_counts_samples(dataset):
    batches = stream(dataset)
    for expected in indices(4):
        batch = next(batches)["x"]
        assert (batch if batch.ndim == 1 else batch[:, 0]).tolist() == expected
    assert batches.position == 16


def test_a_stream_continues_from_a_saved_position():
    first = stream(Squares())
    for _ in range(3):
        next(first)
    second = stream(Squares(), position=first.position)
    assert_close([next(first)["x"] for _ in range(3)], [next(second)["x"] for _ in range(3)])


def test_workers_read_the_same_items_and_draws_depend_only_on_the_position():
    alone, together = stream(Squares()), stream(Squares(), workers=2)
    batches = [next(together) for _ in range(4)]
    assert_close([batch["x"] for batch in batches], [next(alone)["x"] for _ in range(4)])
    later = stream(Squares(), workers=1, position=8)
    assert_close([next(later)["noise"] for _ in range(2)], [batch["noise"] for batch in batches[2:]], atol=0, rtol=0)
    assert len({float(value) for batch in batches for value in batch["noise"]}) == 16


def test_a_stream_whose_worker_is_killed_goes_on_alone_with_the_same_items():
    handler = signal.getsignal(signal.SIGCHLD)
    whole, together = stream(Squares(), workers=1), stream(Squares(), workers=2)
    assert signal.getsignal(signal.SIGCHLD) is handler  # torch's raises an error in the middle of a step
    batches = [next(together)]
    for worker in together._loader._workers:
        worker.kill()
    batches += [next(together) for _ in range(7)]
    assert (together.lost, whole.lost, together.position) == (True, False, 32)
    for batch in batches:
        assert_close(batch, next(whole), atol=0, rtol=0)  # with the numbers that workers draw


def test_draws_of_items_are_uniform_and_depend_on_the_position_in_the_stream():
    with reading(3, 0):
        every = of_items(1000, 2)
    assert every.dtype is torch.float64
    assert 0 <= every.min() < 0.01
    assert 0.99 < every.max() < 1
    assert_close(every.mean(dim=0), torch.full((2,), 0.5, dtype=torch.float64), atol=0.03, rtol=0)
    assert abs(float(torch.corrcoef(every.T)[0, 1])) < 0.1
    with reading(3, 5):
        assert torch.equal(of_items(10, 2), every[5:15])
    with reading(4, 0):
        assert not torch.isin(of_items(1000, 2), every).any()


def test_read_seeds_torchs_generator_for_each_batch_and_restores_it():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second = ([batch["noise"] for batch in read(Squares(), range(10), 4)] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert [len(noise) for noise in first] == [4, 4, 2]
    assert torch.equal(torch.cat(first), torch.cat(second))
    assert len(torch.cat(first).unique()) == 10


def test_only_pixels_are_scaled_to_minus_one_to_one():
    batch = {
        "image": torch.tensor([0, 255, 51], dtype=torch.uint8),
        "mask": torch.tensor([0, 1, 17], dtype=torch.uint8),
        "tokens": torch.tensor([0, 255], dtype=torch.uint8),
        "label": torch.tensor([3]),
        "x": torch.tensor([7.0]),
    }
    moved = to_device(batch, CPU)
    assert_close(moved["image"], torch.tensor([-1.0, 1.0, -0.6]))
    for key in ("mask", "tokens", "label", "x"):
        assert torch.equal(moved[key], batch[key])
    assert batch["image"].dtype is torch.uint8  # the dataset's own memory
    assert torch.equal(to_device(batch, CPU, frozenset({"mask"}))["image"], batch["image"])


def test_a_stream_scales_the_pixels_that_its_dataset_names():
    level = torch.full((4, 1, 2, 2), 255, dtype=torch.uint8)
    dataset = TensorDataset({"depth": level, "image": level}, pixels={"depth"})
    batch = next(BatchStream(dataset, 4, seed=0))
    assert torch.equal(batch["depth"], torch.ones(4, 1, 2, 2))
    assert torch.equal(batch["image"], level)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (
            [{"x": torch.zeros(5)}, {"x": torch.zeros(7)}],
            "`x` of the data has items of different shapes, such as [5] and [7]; make them the same",
        ),
        (
            [{"caption": "a cat"}, {"caption": "a dog"}],
            "`caption` of the data is str, such as 'a cat'; give numbers, such as token ids",
        ),
        ([torch.zeros(2)], "the dataset's items are Tensor; return dictionaries, such as {'image': tensor}"),
    ],
)
def test_items_that_cannot_be_stacked_are_reported_with_their_key(items, words):
    with pytest.raises(DataError) as error:
        collate(items)
    assert str(error.value) == words


def test_python_and_numpy_numbers_are_stacked():
    items = [{"label": 3, "share": 0.5, "array": np.float32(2)}, {"label": 4, "share": 0.25, "array": np.float32(1)}]
    batch = collate(items)
    assert batch["label"].tolist() == [3, 4]
    assert batch["array"].tolist() == [2, 1]
