"""How the small classifiers are learnt that measures of samples ask what a sample is."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gan_core.errors import InputError


def split(labels: Tensor) -> tuple[Any, Any]:
    """Three quarters of some items to learn from and the rest to test on, of every class alike: the same every time.

    Args:
        labels: `[N]`.

    Returns:
        The rows of both, as arrays.

    Raises:
        InputError: a class has too few items, or all together are too few.
    """
    counts = torch.bincount(labels)
    rare = torch.nonzero(counts == 1).flatten().tolist()
    if rare:
        raise InputError(
            f"class {rare[0]} has 1 item, and a classifier needs 2 or more of each; add some, or take "
            "metrics and an extractor that learn no classes"
        )
    classes = int((counts > 0).sum())
    if len(labels) < 4 * classes:
        raise InputError(
            f"there are {len(labels)} items of {classes} classes, and a classifier needs {4 * classes} or "
            "more; add some, or take metrics and an extractor that learn no classes"
        )
    divide = import_module("sklearn.model_selection").train_test_split
    learnt, tested = divide(np.arange(len(labels)), test_size=0.25, random_state=0, stratify=labels.numpy())
    return learnt, tested


def learn(network: nn.Module, draw: Callable[[], tuple[Tensor, Tensor]], *, steps: int, rate: float) -> None:
    """Trains a classifier by Adam on a one-cycle schedule (Smith & Topin 2017, arXiv:1708.07120).

    Args:
        network: inputs to logits `[B, num_classes]`; left in evaluation mode.
        draw: gives inputs and labels `[B]`, others every time.
        steps: how many are learnt from.
        rate: the highest learning rate of the cycle.
    """
    adam = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, rate, total_steps=steps)
    for _ in range(steps):
        inputs, labels = draw()
        loss = cross_entropy(network(inputs), labels)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        schedule.step()
    network.eval()
