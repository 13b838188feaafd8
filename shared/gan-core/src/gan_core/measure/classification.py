"""Classifiers that are trained on a dataset's labels, for metrics and extractors that need the class of a sample."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gan_core import __version__
from gan_core.data import BatchStream, TensorDataset, to_device
from gan_core.data.downloads import data_home
from gan_core.errors import CheckpointError, GanError, InputError
from gan_core.media.writing import replacing
from gan_core.models.checkpoint import digest, load_state, read_tensors, write_tensors

AT_ONCE = 256
"""Number of samples that a classifier processes at a time."""

N = TypeVar("N", bound=nn.Module)


def learn_classes(
    make: Callable[[], N],
    inputs: Tensor,
    labels: Tensor,
    *,
    augment: Callable[[Tensor], Tensor],
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> tuple[N, float]:
    """Trains a classifier on three quarters of some items and tests it on the rest.

    The optimizer is Adam with a one-cycle schedule (Smith & Topin 2017, arXiv:1708.07120). Initial weights, batches and
    augmentation have fixed seeds, so that equal items give equal weights; the state of torch's generator is restored.
    Trained weights are stored in `GAN_DATA_HOME/classifiers` and reused for equal items and settings.

    Args:
        make: builds the network, which maps inputs to logits `[B, num_classes]`.
        inputs: `[N, …]`; uint8 values are pixels and are scaled to [-1, 1].
        labels: classes `[N]`.
        augment: random augmentation, which is applied to each training batch.
        steps: number of steps.
        batch_size: number of items per step.
        learning_rate: highest learning rate of the cycle.

    Returns:
        The network in evaluation mode, and its accuracy on the test items.

    Raises:
        InputError: there are too few items, or a class has only one.
    """
    train, test = split(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make()
        settings = f"{augment.__module__}.{augment.__qualname__} {steps} {batch_size} {learning_rate}"
        file = _file_of({**network.state_dict(), "inputs": inputs, "labels": labels}, settings)
        if not _read(network, file):
            items = TensorDataset({"inputs": inputs[train], "label": labels[train]}, pixels={"inputs"})
            batches = BatchStream(items, batch_size, seed=0)
            adam = torch.optim.Adam(network.parameters())
            schedule = torch.optim.lr_scheduler.OneCycleLR(adam, learning_rate, total_steps=steps)
            for _ in range(steps):
                batch = next(batches)
                loss = cross_entropy(network(augment(batch["inputs"])), batch["label"])
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step()
                schedule.step()
            _keep(network, file)
    network.eval()
    held_out = to_device({"inputs": inputs[test]}, torch.device("cpu"), frozenset({"inputs"}))["inputs"]
    return network, float((recognise(network, held_out) == labels[test]).double().mean())


def _file_of(tensors: dict[str, Tensor], settings: str) -> Path:
    """Returns the file of the classifier that is trained from these initial weights, on these items."""
    made_of = f"{digest(tensors)} {settings} {__version__} {torch.__version__}"
    return data_home() / "classifiers" / f"{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.safetensors"


def _read(network: nn.Module, file: Path) -> bool:
    """Loads kept weights; returns False if there are none, or the file is damaged."""
    try:
        load_state(network, read_tensors(file), {}, file)
    except CheckpointError:
        return False
    return True


def _keep(network: nn.Module, file: Path) -> None:
    """Keeps weights for the next time, if the folder can be written."""
    with suppress(GanError), replacing(file) as draft:
        write_tensors(draft, network.state_dict())


@torch.no_grad()
def recognise(network: nn.Module, inputs: Tensor) -> Tensor:
    """Returns the classes `[N]` that a classifier in evaluation mode assigns to inputs `[N, …]`."""
    return torch.cat([network(part).argmax(dim=1) for part in torch.split(inputs, AT_ONCE)])


def split(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Splits items into three quarters for training and one quarter for testing, with the classes in proportion.

    The split depends only on the labels. It is that of scikit-learn's `train_test_split` with `test_size=0.25`,
    `random_state=0` and `stratify=labels`.

    Args:
        labels: classes `[N]`.

    Returns:
        The indices of the training items and of the test items.

    Raises:
        InputError: there are fewer than four items per class on average, or a class has only one.
    """
    classes, counts = np.unique(labels.numpy(), return_counts=True)
    remedy = "Add items, or choose `--metrics` and an `--extractor` that learn no classes"
    if (counts == 1).any():
        raise InputError(f"class {classes[counts == 1][0]} has 1 item; a classifier needs at least 2 of each. {remedy}")
    if len(labels) < 4 * len(classes):
        raise InputError(
            f"there are {len(labels)} items of {len(classes)} classes; a classifier needs at least {4 * len(classes)}. "
            f"{remedy}"
        )
    random, tested = np.random.RandomState(0), math.ceil(len(labels) / 4)
    of_train = _proportional(counts, len(labels) - tested, random)
    _proportional(counts - of_train, tested, random)  # all that are left: drawn only to keep scikit-learn's sequence
    train, test = [], []
    for label, number in zip(classes, of_train, strict=True):
        rows = random.permutation(np.flatnonzero(labels.numpy() == label))
        train.append(rows[:number])
        test.append(rows[number:])
    first, second = (torch.from_numpy(random.permutation(np.concatenate(rows))) for rows in (train, test))
    return first, second


def _proportional(counts: NDArray[np.integer], total: int, random: np.random.RandomState) -> NDArray[np.int64]:
    """Returns integers proportional to `counts` with sum `total`, by largest remainder; ties are broken at random."""
    exact = counts / counts.sum() * total
    numbers = np.floor(exact)
    remainders, missing = exact - numbers, int(total - numbers.sum())
    for remainder in np.unique(remainders)[::-1]:
        if not missing:
            break
        tied = np.flatnonzero(remainders == remainder)
        drawn = random.choice(tied, size=min(len(tied), missing), replace=False)
        numbers[drawn] += 1
        missing -= len(drawn)
    return numbers.astype(np.int64)
