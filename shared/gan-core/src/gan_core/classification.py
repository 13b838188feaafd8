"""How the small classifiers are learnt that measures of samples ask what a sample is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


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
