"""Optimizers created from settings, and learning-rate schedules over a phase."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from gan_core.recipe import SGD, Adam, Constant, Cosine, Linear, RMSprop, Step


def make_optimizer(settings: Adam | RMSprop | SGD, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Creates a torch optimizer, with the fused implementation if there is one (Adam and SGD, on CPU and CUDA)."""
    parameters = list(parameters)
    fused = parameters[0].device.type in ("cpu", "cuda")
    if isinstance(settings, Adam):
        kind = torch.optim.AdamW if settings.weight_decay else torch.optim.Adam
        return kind(
            parameters,
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
            fused=fused,
        )
    if isinstance(settings, RMSprop):
        return torch.optim.RMSprop(parameters, lr=settings.learning_rate, foreach=True)
    return torch.optim.SGD(parameters, lr=settings.learning_rate, momentum=settings.momentum, fused=fused)


def rate_factor(schedule: Constant | Linear | Cosine | Step, progress: float, step: int) -> float:
    """Returns the factor by which the learning rate is multiplied.

    Args:
        schedule: settings of the schedule.
        progress: completed fraction of the phase, in [0, 1].
        step: completed steps of the phase.
    """
    if isinstance(schedule, Linear):
        return 1 + (schedule.end - 1) * max(0.0, (progress - schedule.start) / (1 - schedule.start))
    if isinstance(schedule, Cosine):
        return schedule.end + (1 - schedule.end) * (1 + math.cos(math.pi * progress)) / 2
    if isinstance(schedule, Step):
        return schedule.factor ** (step // schedule.every)
    return 1.0
