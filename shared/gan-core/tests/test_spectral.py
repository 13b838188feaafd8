"""Spectral normalization: its iteration, its singular vectors, and folding."""

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize
from torch.nn.utils import parametrizations, spectral_norm
from torch.testing import assert_close

from gan_core.nn.blocks import SelfAttention
from gan_core.nn.spectral import folded_copy, is_spectral, singular_vectors, spectrally_normalised, unnormalised_weight

LAYERS = [
    lambda: nn.Linear(30, 40),
    lambda: nn.Conv2d(8, 6, 3),
    lambda: nn.ConvTranspose1d(8, 6, 5),
    lambda: nn.Embedding(5, 20),
]
INPUTS = {nn.Linear: (3, 30), nn.Conv2d: (3, 8, 7, 7), nn.ConvTranspose1d: (3, 8, 7)}


def input_of(layer):
    for kind, shape in INPUTS.items():
        if isinstance(layer, kind):
            return torch.randn(shape)
    return torch.tensor([4, 0, 2])


def largest_singular_value(layer):
    outputs = 1 if isinstance(layer, nn.ConvTranspose1d) else 0
    return torch.linalg.matrix_norm(layer.weight.movedim(outputs, 0).flatten(1), 2).item()


def torchs_layer(make):
    """A layer under torch's older implementation, with the singular vectors after 15 iterations."""
    torch.manual_seed(0)
    layer = spectral_norm(make(), n_power_iterations=15)
    layer(input_of(layer))
    torch.manual_seed(0)
    again = spectral_norm(make())
    again.load_state_dict(layer.state_dict())
    return again


@pytest.mark.parametrize("make", LAYERS)
def test_a_new_layer_has_a_largest_singular_value_of_one(make):
    torch.manual_seed(0)
    layer = spectrally_normalised(make())
    assert largest_singular_value(layer) == pytest.approx(1, abs=0.05)  # 3 to 18 with torch's initial vectors


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", LAYERS)
def test_outputs_gradients_and_vectors_equal_those_of_torchs_older_implementation(make, training):
    theirs = torchs_layer(make).train(training)
    torch.manual_seed(0)
    ours = spectrally_normalised(make()).train(training)
    for step in range(3):
        torch.manual_seed(step)
        x = input_of(ours)
        y, expected = ours(x), theirs(x)
        assert torch.equal(y, expected)
        for layer, output in ((ours, y), (theirs, expected)):
            layer.zero_grad()
            output.square().sum().backward()
        kept = ours.parametrizations.weight
        assert torch.equal(kept.original.grad, theirs.weight_orig.grad)
        assert torch.equal(kept[0].u, theirs.weight_u)
        assert torch.equal(kept[0].v, theirs.weight_v)
        with torch.no_grad():
            for weight in (kept.original, theirs.weight_orig):
                weight -= 0.1 * weight.grad


def test_every_forward_pass_of_training_makes_one_iteration_as_in_algorithm_1():
    torch.manual_seed(0)
    layer = spectrally_normalised(nn.Linear(6, 4))
    with torch.no_grad():
        layer.parametrizations.weight.original += torch.randn(4, 6)
    weight, u = unnormalised_weight(layer), layer.parametrizations.weight[0].u.clone()
    v = normalize(weight.T @ u, dim=0)
    u = normalize(weight @ v, dim=0)
    y = layer(torch.eye(6))
    assert_close(y - layer.bias, (weight / (u @ weight @ v)).T)
    assert_close(layer.parametrizations.weight[0].u, u)
    layer.eval()(torch.eye(6))
    assert_close(layer.parametrizations.weight[0].u, u)  # none in evaluation mode


def test_two_forward_passes_can_be_differentiated_together():
    layer = spectrally_normalised(nn.Linear(6, 4))
    (layer(torch.ones(2, 6)) - layer(torch.zeros(2, 6))).sum().backward()
    assert layer.parametrizations.weight.original.grad.isfinite().all()


def test_a_layer_is_built_on_the_meta_device():
    with torch.device("meta"):
        layer = spectrally_normalised(nn.Linear(6, 4))
    state = spectrally_normalised(nn.Linear(6, 4)).state_dict()
    assert layer.state_dict().keys() == state.keys()
    layer.load_state_dict(state, assign=True)
    assert torch.equal(layer.parametrizations.weight[0].u, state["parametrizations.weight.0.u"])


NORMALISE = {
    "ours": (spectrally_normalised, {"parametrizations.weight.0.u", "parametrizations.weight.0.v"}),
    "torch's parametrization": (
        parametrizations.spectral_norm,
        {"parametrizations.weight.0._u", "parametrizations.weight.0._v"},
    ),
    "torch's hook": (spectral_norm, {"weight_u", "weight_v"}),
}


@pytest.mark.parametrize("kind", NORMALISE)
def test_the_singular_vectors_of_every_implementation_are_found(kind):
    normalise, names = NORMALISE[kind]
    layer = normalise(nn.Linear(6, 4))
    assert set(singular_vectors(layer)) == names
    network = nn.Sequential(nn.Linear(5, 6), layer)
    vectors = set(singular_vectors(network))
    assert vectors == {f"1.{name}" for name in names}
    assert all(network.state_dict()[name].norm().item() == pytest.approx(1) for name in vectors)
    assert is_spectral(network)
    assert not is_spectral(network[0])


@pytest.mark.parametrize("kind", NORMALISE)
def test_the_unnormalised_weight_is_the_parameter(kind):
    layer = NORMALISE[kind][0](nn.Linear(6, 4))
    before = {name: layer.state_dict()[name].clone() for name in singular_vectors(layer)}
    weight = unnormalised_weight(layer)
    assert any(weight is parameter for parameter in layer.parameters())
    assert all(torch.equal(layer.state_dict()[name], vector) for name, vector in before.items())
    plain = nn.Linear(6, 4)
    assert unnormalised_weight(plain) is plain.weight


@pytest.mark.parametrize("kind", NORMALISE)
def test_a_folded_copy_has_the_normalised_weights_as_parameters(kind):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 6), NORMALISE[kind][0](nn.Linear(6, 4)))
    x = torch.randn(3, 5)
    network(x).sum().backward()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = folded_copy(network)
    weight = network.eval()[1].weight
    network.train()
    assert any(torch.equal(parameter, weight) for parameter in folded.parameters())
    assert not list(folded.buffers())
    assert network.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert_close(folded(x), network.eval()(x))


def test_the_layers_of_attention_are_spectrally_normalised():
    torch.manual_seed(0)
    attention = SelfAttention(16, ndim=2)
    layers = [layer for layer in attention.children() if isinstance(layer, nn.Conv2d)]
    assert len(layers) == 4
    for layer in layers:
        assert is_spectral(layer)
        assert largest_singular_value(layer) == pytest.approx(1, abs=0.02)
