"""Class conditioning of networks: a class as an input of a generator, and in the logits of a discriminator."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def one_hot(label: Tensor, num_classes: int) -> Tensor:
    """Returns classes `[B]` as one-hot vectors, `[B, num_classes]`, in float32."""
    return nn.functional.one_hot(label, num_classes).float()


def append_class(z: Tensor, label: Tensor | None, num_classes: int | None) -> Tensor:
    """Appends classes to latents as one-hot vectors (Mirza & Osindero 2014, arXiv:1411.1784).

    Args:
        z: `[B, latent_dim]`.
        label: classes, `[B]`.
        num_classes: number of classes.

    Returns:
        `[B, latent_dim + num_classes]`; `z` if `label` or `num_classes` is None.
    """
    if num_classes is None or label is None:
        return z
    return torch.cat([z, one_hot(label, num_classes)], dim=1)


def add_class_projection(logits: Tensor, features: Tensor, label: Tensor | None, embedding: nn.Module | None) -> Tensor:
    """Adds inner products of features and class embeddings to logits (Miyato & Koyama 2018, arXiv:1802.05637, eq. 3).

    Args:
        logits: `[B]`.
        features: `[B, C]`, or `[B, C, …]`, which is averaged over the last axes.
        label: classes, `[B]`.
        embedding: maps classes to `[B, C]`.

    Returns:
        `[B]`; `logits` if `label` or `embedding` is None.
    """
    if embedding is None or label is None:
        return logits
    if features.ndim > 2:
        features = features.mean(dim=tuple(range(2, features.ndim)))
    return logits + (embedding(label) * features).sum(dim=1)
