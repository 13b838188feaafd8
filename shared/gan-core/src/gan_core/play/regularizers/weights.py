"""Constraints on the weights: clipping, spectral normalization, orthogonality."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from gan_core.errors import RecipeError
from gan_core.nn.blocks import CONVOLUTIONS, TRANSPOSED
from gan_core.nn.precision import in_full_precision
from gan_core.nn.spectral import is_spectral, spectrally_normalised, unnormalised_weight
from gan_core.play.objectives import Terms
from gan_core.play.regularizers.base import Lazy, Regularized, Regularizer, Turn

WEIGHTED: tuple[type[nn.Module], ...] = (nn.Linear, nn.Embedding, *CONVOLUTIONS.values(), *TRANSPOSED.values())
"""Classes of the layers that `weighted_layers` returns."""


def weighted_layers(network: nn.Module) -> Iterator[nn.Module]:
    """Returns the linear, embedding and convolution layers of a network."""
    return (module for module in network.modules() if isinstance(module, WEIGHTED))


def discriminator_layers(adversary: Regularized) -> list[nn.Module]:
    """Returns the linear, embedding and convolution layers that the discriminator's player trains."""
    return [layer for network in adversary.trained for layer in weighted_layers(network)]


def orthogonality(weight: Tensor) -> Tensor:
    """Computes ‖WᵀW ⊙ (1 - I)‖²_F over the filters of W `[outputs, …]` (Brock et al. 2019, arXiv:1809.11096, eq. 3)."""
    filters = weight.flatten(1)
    products = filters @ filters.T
    return products.square().sum() - products.diagonal().square().sum()


class WeightClipping(Regularizer):
    """Clips the discriminator's parameters to ±`bound` after each turn (Arjovsky et al. 2017, arXiv:1701.07875).

    Attributes:
        bound: maximum magnitude of a parameter.
    """

    name = "weight_clipping"
    bound: float = Field(default=0.01, gt=0)

    def prepare(self, adversary: Regularized) -> None:
        if is_spectral(adversary.network) or any(r.name == SpectralNorm.name for r in adversary.regularizers):
            raise RecipeError(
                "`regularizers.weight_clipping` and spectral normalization bound the same weights; use one"
            )
        if any(is_parametrized(layer) for layer in discriminator_layers(adversary)):
            raise RecipeError(
                "`regularizers.weight_clipping`: this discriminator's weights are parametrized; leave it out"
            )

    @torch.no_grad()
    def after_turn(self, adversary: Regularized, values: Terms) -> None:
        for network in adversary.trained:
            for parameter in network.parameters():
                parameter.clamp_(-self.bound, self.bound)


class SpectralNorm(Regularizer):
    """Spectral normalization of all linear, embedding and convolution layers (Miyato et al. 2018, arXiv:1802.05957).

    Each forward pass in training mode runs one power iteration; see `gan_core.nn.spectral.SpectralNorm`.
    """

    name = "spectral_norm"

    def prepare(self, adversary: Regularized) -> None:
        if is_spectral(adversary.network):
            raise RecipeError(
                "`regularizers.spectral_norm`: this discriminator is spectrally normalised already; leave it out"
            )
        layers = discriminator_layers(adversary)
        if not layers:
            raise RecipeError(
                "`regularizers.spectral_norm`: this discriminator has no linear, embedding or convolution layer; "
                "leave it out"
            )
        if any(is_parametrized(layer) for layer in layers):
            raise RecipeError(
                "`regularizers.spectral_norm`: this discriminator's weights are parametrized; leave it out"
            )
        for layer in layers:
            spectrally_normalised(layer)


class Orthogonal(Lazy):
    """A penalty on correlations between the filters of a layer (Brock et al. 2019, arXiv:1809.11096, eq. 3).

    It is applied to the discriminator, and also to the generator if the adversary has `generation`.
    """

    name = "orthogonal"
    weight: float = Field(default=1e-4, gt=0)

    def discriminator_terms(self, turn: Turn) -> Terms:
        return self._terms(turn, discriminator_layers(turn.adversary))

    def generator_terms(self, turn: Turn) -> Terms:
        generation = turn.adversary.generation
        return {} if generation is None else self._terms(turn, list(weighted_layers(generation.network)))

    def _terms(self, turn: Turn, layers: list[nn.Module]) -> Terms:
        matrices = (layer for layer in layers if not isinstance(layer, nn.Embedding))
        weights = [unnormalised_weight(layer) for layer in matrices]

        def term() -> Tensor:
            with in_full_precision(turn.fake):
                return torch.stack([orthogonality(weight) for weight in weights]).sum()

        return self.due(turn.adversary.moment.step, term)
