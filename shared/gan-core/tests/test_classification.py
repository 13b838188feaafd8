"""Classifiers of the data's labels: the split of the data, the training, and the classes that are assigned."""

import re

import pytest
import torch
from torch import Tensor, nn

from gan_core.errors import InputError
from gan_core.measure.classification import AT_ONCE, learn_classes, recognise, split


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty folder for the classifiers that are kept."""
    monkeypatch.setenv("GAN_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "classifiers"


def labels(*counts: int) -> Tensor:
    """The given numbers of items of each class, in a fixed random order."""
    each = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return each[torch.randperm(len(each), generator=torch.Generator().manual_seed(0))]


# --- split


@pytest.mark.parametrize(
    ("counts", "of_train"),
    [
        ((8, 4), [6, 3]),
        ((4, 4, 4), [3, 3, 3]),
        ((9, 3), [7, 2]),  # 6.75 and 2.25: the larger remainder gets the item
    ],
)
def test_classes_are_split_in_proportion(counts, of_train):
    given = labels(*counts)
    train, test = split(given)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(sum(counts)))  # each item once
    assert len(test) == -(-sum(counts) // 4)
    assert given[train].bincount().tolist() == of_train


def test_the_split_depends_only_on_the_labels():
    given = labels(10, 20, 30)
    first = split(given)
    torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(first, split(given), strict=True))
    assert first[0].tolist() != sorted(first[0].tolist())  # shuffled


@pytest.mark.parametrize("counts", [(8, 4), (15, 7), (10, 11, 12, 13), (2, 2, 50), (22, 15, 9), (30,)])
def test_the_split_is_that_of_scikit_learn(counts):
    selection = pytest.importorskip("sklearn.model_selection")
    given = labels(*counts)
    expected = selection.train_test_split(range(len(given)), test_size=0.25, random_state=0, stratify=given.numpy())
    assert [rows.tolist() for rows in split(given)] == [[int(row) for row in rows] for rows in expected]


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((9, 1), "class 1 has 1 item; a classifier needs at least 2 of each. "),
        ((3, 3), "there are 6 items of 2 classes; a classifier needs at least 8. "),
    ],
)
def test_too_few_items_are_refused(counts, words):
    remedy = "Add items, or choose `--metrics` and an `--extractor` that learn no classes"
    with pytest.raises(InputError, match=f"^{re.escape(words + remedy)}$"):
        split(labels(*counts))


def test_the_fewest_items_are_enough():
    train, test = split(labels(4, 4))
    assert (len(train), len(test)) == (6, 2)


# --- training


def learn(inputs: Tensor, given: Tensor, *, steps: int = 40, augment=lambda batch: batch, classes: int = 2):
    return learn_classes(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(inputs[0].numel(), classes)),
        inputs,
        given,
        augment=augment,
        steps=steps,
        batch_size=16,
        learning_rate=0.1,
    )


def separable(count: int = 80) -> tuple[Tensor, Tensor]:
    """Points on two sides of a line, by class."""
    given = torch.arange(count) % 2
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    return noise + 8.0 * given[:, None] - 4, given


def test_separable_classes_are_learnt():
    inputs, given = separable()
    network, accuracy = learn(inputs, given)
    assert not network.training
    assert accuracy == 1.0
    assert torch.equal(recognise(network, inputs), given)


def test_the_accuracy_is_that_of_items_that_are_not_learnt():
    """Random labels are memorised, but cannot be predicted."""
    generator = torch.Generator().manual_seed(1)
    inputs, given = torch.randn(400, 600, generator=generator), torch.randint(2, (400,), generator=generator)
    network, accuracy = learn(inputs, given, steps=60)
    train, test = split(given)
    assert (recognise(network, inputs[train]) == given[train]).double().mean() > 0.9
    assert accuracy == (recognise(network, inputs[test]) == given[test]).double().mean()
    assert 0.3 < accuracy < 0.7


def test_equal_items_give_equal_weights_and_leave_the_generator_as_it_was(home, monkeypatch):
    inputs, given = separable()
    before = torch.get_rng_state()
    first, _ = learn(inputs, given)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    monkeypatch.setenv("GAN_DATA_HOME", str(home / "another"))
    second, _ = learn(inputs, given)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(learn(-inputs, given)[0][1].weight, first[1].weight)


def test_pixels_are_scaled_and_only_training_batches_are_augmented():
    _, given = separable(80)
    pixels = (given * 255).byte()[:, None]
    seen: list[Tensor] = []

    def augment(batch: Tensor) -> Tensor:
        seen.append(batch)
        return batch + torch.rand(())

    network, accuracy = learn(pixels, given, augment=augment, steps=30)
    assert len(seen) == 30
    assert {len(batch) for batch in seen} == {16}
    assert set(torch.cat(seen).flatten().tolist()) == {-1.0, 1.0}
    assert accuracy == 1  # held-out pixels are scaled too
    assert torch.equal(recognise(network, torch.tensor([[-1.0], [1.0]])), torch.tensor([0, 1]))


def test_many_inputs_are_classified_in_parts_in_order():
    sizes: list[int] = []

    class Sign(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return torch.stack([-x, x], dim=1)

    x = torch.randn(AT_ONCE + 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(recognise(Sign(), x), (x > 0).long())
    assert sizes == [AT_ONCE, 3]


# --- what is kept


def test_equal_items_are_learnt_once(home):
    inputs, given = separable()
    before, seen = torch.get_rng_state(), []

    def augment(batch: Tensor) -> Tensor:
        seen.append(batch)
        return batch

    first, accuracy = learn(inputs, given, augment=augment)
    again, same = learn(inputs.clone(), given.clone(), augment=augment)
    assert len(seen) == 40
    assert len(list(home.iterdir())) == 1
    assert same == accuracy
    assert not again.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_other_items_labels_networks_or_steps_are_learnt_anew(home, monkeypatch):
    inputs, given = separable()
    learn(inputs, given)
    learn(inputs + 1e-6, given)
    learn(inputs, 1 - given)
    learn(inputs, given, classes=3)
    learn(inputs, given, steps=41)
    monkeypatch.setattr("gan_core.measure.classification.__version__", "another")
    learn(inputs, given)
    assert len(list(home.iterdir())) == 6


@pytest.mark.parametrize("damage", [b"", b"\x08" + bytes(20), None])
def test_a_damaged_file_is_learnt_anew_and_replaced(home, damage):
    inputs, given = separable()
    first, _ = learn(inputs, given)
    (file,) = home.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-4] if damage is None else damage)
    again, _ = learn(inputs, given)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_keeps_nothing(home):
    home.parent.mkdir()
    home.write_text("a file in the place of the folder")
    _, accuracy = learn(*separable())
    assert accuracy == 1
