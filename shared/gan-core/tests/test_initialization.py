"""Initial weights shared by several families of networks."""

import pytest
import torch
from torch import nn

from gan_core.nn.initialization import initialize_weights


@pytest.mark.parametrize("layer", [nn.Linear(100, 200), nn.Conv1d(20, 50, 20), nn.ConvTranspose2d(20, 50, 5)])
def test_weights_have_the_deviation_and_biases_are_zero(layer):
    torch.manual_seed(0)
    initialize_weights(layer, 0.3)
    assert abs(float(layer.weight.detach().mean())) < 0.01
    assert float(layer.weight.detach().std()) == pytest.approx(0.3, rel=0.02)
    assert not layer.bias.any()


def test_layers_without_biases_norms_and_embeddings_are_accepted():
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Embedding(3, 2))
    before = network[2].weight.detach().clone()
    network.apply(initialize_weights)
    assert torch.equal(network[1].weight, torch.ones(2))
    assert torch.equal(network[2].weight, before)
