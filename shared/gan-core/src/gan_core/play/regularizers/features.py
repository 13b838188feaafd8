"""Regularizers of the discriminator's features (the input of its last layer), and minibatch layers."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from gan_core.errors import RecipeError
from gan_core.nn.blocks import CONVOLUTIONS, MinibatchDeviation
from gan_core.nn.precision import full_precision, in_full_precision
from gan_core.nn.spectral import is_spectral
from gan_core.play.judgement import feature_distance
from gan_core.play.objectives import Terms, feature_matching, pull_away
from gan_core.play.regularizers.base import Lazy, Regularized, Regularizer, Turn, uncompiled
from gan_core.recipe import Size

LAST_LAYERS: tuple[type[nn.Module], ...] = (nn.Linear, *CONVOLUTIONS.values())
"""Classes of last layers to which inputs can be added."""


def has_last_layer(discriminator: nn.Module) -> bool:
    """Returns whether a discriminator has the layer that `last_layer` returns."""
    return isinstance(getattr(discriminator, getattr(discriminator, "features_at", "judge"), None), nn.Module)


def last_layer(name: str, discriminator: nn.Module) -> nn.Module:
    """Returns the layer whose input is the features: the child named by `features_at` (default: `judge`).

    Raises:
        RecipeError: the discriminator has no such layer.
    """
    part = getattr(discriminator, getattr(discriminator, "features_at", "judge"), None)
    if not isinstance(part, nn.Module):
        where = f"`regularizers.{name}` needs the input of the discriminator's layer `judge`"
        raise RecipeError(f"{where}, but {type(discriminator).__name__} has no such layer; leave it out")
    return part


def features_of(discriminator: nn.Module, samples: Tensor, **condition: Any) -> Tensor:
    """Computes the discriminator's features `[B, n]`, the flattened input of `last_layer`, in full precision."""
    captured: list[Tensor] = []
    part = last_layer("features", discriminator)
    handle = part.register_forward_pre_hook(lambda module, inputs: captured.append(inputs[0]))
    try:
        uncompiled(discriminator)(samples, **condition)
    finally:
        handle.remove()
    return full_precision(captured[0].flatten(1))


class FeatureMatching(Lazy):
    """Matches the features of fake samples with those of real ones.

    If the discriminator returns features (in a `Judgement`), the term is the mean absolute difference between the
    features of paired samples, summed over layers and discriminators (Kumar et al. 2019, arXiv:1910.06711, section
    2.3). Otherwise it is the squared difference between the batches' mean features (Salimans et al. 2016,
    arXiv:1606.03498, section 3.1).
    """

    name = "feature_matching"
    weight: float = Field(default=1.0, gt=0)

    def prepare(self, adversary: Regularized) -> None:
        if has_last_layer(adversary.network):
            return
        judged = adversary.probe(lambda samples, condition: adversary.judge(samples, **condition))
        if judged is not None and not judged.features:
            last_layer(self.name, adversary.network)

    def generator_terms(self, turn: Turn) -> Terms:
        adversary = turn.adversary

        def term() -> Tensor:
            if turn.fake_judgement.features:
                return feature_distance(turn.real_judgement, turn.fake_judgement)
            with torch.no_grad():
                real = features_of(adversary.network, adversary.augmented(turn.real), **turn.condition)
            fake = features_of(adversary.network, adversary.augmented(turn.fake), **turn.condition)
            return feature_matching(real, fake)

        return self.due(adversary.moment.step, term)


class PullAway(Lazy):
    """The pull-away term, which makes features of different fakes orthogonal (Zhao et al. 2017, arXiv:1609.03126)."""

    name = "pull_away"
    weight: float = Field(default=0.1, gt=0)

    def prepare(self, adversary: Regularized) -> None:
        last_layer(self.name, adversary.network)

    def generator_terms(self, turn: Turn) -> Terms:
        adversary = turn.adversary

        def term() -> Tensor:
            features = features_of(adversary.network, adversary.augmented(turn.fake), **turn.condition)
            with in_full_precision(features):
                return pull_away(features)

        return self.due(adversary.moment.step, term)


class WithStatistics(nn.Module):
    """A last layer that also takes statistics of the batch; maps features `[B, n]` or `[B, C, …]` to logits.

    Args:
        statistics: layer that appends features along axis 1.
        judge: the original layer, with additional inputs for the appended features.
    """

    def __init__(self, statistics: nn.Module, judge: nn.Module):
        super().__init__()
        self.statistics, self.judge = statistics, judge

    def forward(self, features: Tensor) -> Tensor:
        return self.judge(self.statistics(features))


def add_inputs(judge: nn.Module, count: int) -> nn.Module:
    """Adds inputs with zero weights to a last layer, in place, so that its output does not change initially."""
    if isinstance(judge, WithStatistics):
        return WithStatistics(judge.statistics, add_inputs(judge.judge, count))
    old: Tensor = judge.weight  # type: ignore[assignment]
    weight = torch.cat([old.detach(), torch.zeros_like(old[:, :1]).repeat_interleave(count, 1)], dim=1)
    judge.weight = nn.Parameter(weight)
    setattr(judge, "in_features" if isinstance(judge, nn.Linear) else "in_channels", weight.shape[1])
    return judge


class MinibatchStddev(Regularizer):
    """Appends the deviation within a group to the last layer's input (Karras et al. 2018, arXiv:1710.10196, sec. 3).

    Attributes:
        group: number of samples in a group; adjusted to a divisor of the batch size.
    """

    name = "minibatch_stddev"
    group: int = Field(default=4, ge=2)

    def prepare(self, adversary: Regularized) -> None:
        insert_statistics(self.name, adversary, MinibatchDeviation(self.group), count=1)


class MinibatchDiscrimination(Regularizer):
    """Appends each sample's similarity to the batch to the last layer's input (Salimans et al. 2016, sec. 3.2).

    Attributes:
        kernels: number of features appended to each sample, B.
        dimensions: number of dimensions in which distances are computed, C.
    """

    name = "minibatch_discrimination"
    kernels: Size = 100
    dimensions: Size = 5

    def prepare(self, adversary: Regularized) -> None:
        insert_statistics(self.name, adversary, Similarity(self.kernels, self.dimensions), count=self.kernels)


def insert_statistics(name: str, adversary: Regularized, statistics: nn.Module, *, count: int) -> None:
    """Inserts a layer that appends statistics of the batch before the discriminator's last layer.

    Args:
        name: the regularizer's name.
        adversary: adversary whose network is changed.
        statistics: layer that appends features along axis 1.
        count: number of appended features.

    Raises:
        RecipeError: the last layer is neither linear nor a convolution, or is parametrized.
    """
    discriminator = adversary.network
    judge = last_layer(name, discriminator)
    if not isinstance(judge, (*LAST_LAYERS, WithStatistics)):
        kind = type(judge).__name__
        raise RecipeError(f"`regularizers.{name}` needs a linear or convolution last layer, not {kind}; leave it out")
    if is_spectral(discriminator) or is_parametrized(judge):
        how = "spectrally normalised" if is_spectral(discriminator) else "parametrized"
        raise RecipeError(f"`regularizers.{name}` adds inputs to the last layer, which is {how} here; leave it out")
    if isinstance(statistics, Similarity):
        statistics.build_for(name, adversary)
    discriminator.judge = WithStatistics(statistics, add_inputs(judge, count))


class Similarity(nn.Module):
    """Appends `kernels` channels to features `[B, C, …]`: Σⱼ exp(-‖Mᵢ - Mⱼ‖₁) over the other samples j of the batch.

    M is the projection of the features by T; see `MinibatchDiscrimination`.

    Args:
        kernels: B, number of appended channels.
        dimensions: C, number of dimensions of each kernel.
    """

    def __init__(self, kernels: int, dimensions: int):
        super().__init__()
        self.kernels, self.dimensions = kernels, dimensions
        self.project: nn.Linear

    def build_for(self, name: str, adversary: Regularized) -> None:
        """Creates the projection T for the number of features of a discriminator.

        Raises:
            RecipeError: the adversary has no `example` from which to determine that number.
        """
        features = adversary.probe(lambda samples, condition: features_of(adversary.network, samples, **condition))
        if features is None:
            reason = "needs an example to determine the size of its layer, but this adversary has none"
            raise RecipeError(f"`regularizers.{name}` {reason}; give the adversary an `example`, or leave it out")
        self.project = nn.Linear(features.shape[1], self.kernels * self.dimensions, bias=False)
        self.project.to(features.device, features.dtype)

    def forward(self, features: Tensor) -> Tensor:
        projected = self.project(features.flatten(1)).unflatten(1, (self.kernels, self.dimensions))
        by_dimension = projected.permute(2, 0, 1).contiguous()  # [dimensions, B, kernels]: one at a time is faster
        distance = sum(((x[:, None] - x).abs() for x in by_dimension), features.new_zeros(()))  # [B, B, kernels]
        similarity = torch.exp(-distance).sum(dim=1) - 1  # without the sample itself
        similarity = similarity.view(*similarity.shape, *[1] * (features.ndim - 2))
        return torch.cat([features, similarity.expand(-1, -1, *features.shape[2:])], dim=1)
