import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from gan_core import draws
from gan_core.errors import RecipeError
from gan_core.nn.blocks import (
    CONVOLUTIONS,
    NORMS,
    TRANSPOSED,
    AdaptiveInstanceNorm,
    ConditionalBatchNorm,
    NoiseInjection,
    PixelNorm,
    ResidualDown,
    ResidualStem,
    ResidualUp,
    SelfAttention,
    doublings,
    equalized,
    norm,
)
from gan_core.nn.initialization import initialize_normal

SHAPES = {1: (4, 3, 8), 2: (4, 3, 4, 5), 3: (4, 3, 2, 3, 4)}


@pytest.mark.parametrize("ndim", SHAPES)
def test_batch_normalization_is_over_samples_and_space(ndim):
    x = 3 + 2 * torch.randn(SHAPES[ndim], generator=torch.Generator().manual_seed(0))
    y = norm("batch", 3, ndim=ndim)(x).transpose(0, 1).flatten(1)  # [C, B * space]
    assert_close(y.mean(dim=1), torch.zeros(3), atol=1e-5, rtol=0)
    assert_close(y.var(dim=1, unbiased=False), torch.ones(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("ndim", SHAPES)
def test_layer_normalization_is_separate_for_each_sample(ndim):
    x = 3 + 2 * torch.randn(SHAPES[ndim], generator=torch.Generator().manual_seed(0))
    layer = norm("layer", 3, ndim=ndim)
    assert_close(layer(x).flatten(1).mean(dim=1), torch.zeros(4), atol=1e-5, rtol=0)
    assert_close(layer(x)[:1], layer(x[:1]))


INSTANCE_NORMS = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
LAYOUTS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d}


@pytest.mark.parametrize("mean", [0, 3, 100])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("ndim", SHAPES)
def test_instance_normalization_equals_torchs_in_any_memory_layout(ndim, batch, mean):
    x = mean + torch.randn(batch, *SHAPES[ndim][1:], generator=torch.Generator().manual_seed(0))
    expected = INSTANCE_NORMS[ndim](3)(x.double()).float()
    layer = norm("instance", 3, ndim=ndim)
    assert layer.state_dict() == {}
    assert_close(layer(x), expected, atol=1e-4, rtol=0)
    assert_close(layer(x.to(memory_format=LAYOUTS[ndim])), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.1, 100.3])
@pytest.mark.parametrize("ndim", SHAPES)
def test_instance_normalization_maps_a_constant_to_zero(ndim, value):
    x = torch.full(SHAPES[ndim], value).to(memory_format=LAYOUTS[ndim])
    assert torch.equal(norm("instance", 3, ndim=ndim)(x), torch.zeros_like(x))


@pytest.mark.parametrize("ndim", SHAPES)
def test_instance_normalization_can_be_differentiated_twice(ndim):
    x = torch.randn(2, 2, *[3] * ndim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layer = norm("instance", 2, ndim=ndim)
    assert torch.autograd.gradgradcheck(layer, x.requires_grad_())


def test_normal_initialization_has_the_published_moments():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(16, 64, 3), nn.BatchNorm2d(4096), nn.ConvTranspose1d(16, 64, 9), norm("instance", 4)
    )
    biases = [layer.bias.clone() for layer in network[:3]]
    network.apply(initialize_normal)
    for layer, mean in zip(network[:3], (0.0, 1.0, 0.0), strict=True):
        assert layer.weight.mean().item() == pytest.approx(mean, abs=2e-3)
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert all(torch.equal(layer.bias, bias) for layer, bias in zip(network[:3], biases, strict=True))


@pytest.mark.parametrize("ndim", SHAPES)
def test_the_norm_none_is_the_identity(ndim):
    x = torch.randn(SHAPES[ndim])
    assert torch.equal(norm("none", 3, ndim=ndim)(x), x)


def test_an_unknown_norm_is_refused_with_the_nearest_name():
    with pytest.raises(RecipeError, match=r"^unknown norm `bacth`; did you mean `batch`\?$"):
        norm("bacth", 3)
    with pytest.raises(RecipeError, match=rf"^unknown norm `spam`; known: {', '.join(sorted(NORMS))}$"):
        norm("spam", 3)


def test_convolutions_are_found_by_the_number_of_axes():
    assert [CONVOLUTIONS[n] for n in (1, 2, 3)] == [nn.Conv1d, nn.Conv2d, nn.Conv3d]
    assert [TRANSPOSED[n] for n in (1, 2, 3)] == [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]


@pytest.mark.parametrize("spectral", [True, False])
@pytest.mark.parametrize("shape", [(2, 16, 8), (2, 16, 4, 6), (2, 16, 2, 4, 2)])
def test_attention_adds_nothing_initially_and_its_strength_is_learnt(shape, spectral):
    layer, x = SelfAttention(16, ndim=len(shape) - 2, spectral=spectral), torch.randn(shape)
    y = layer(x)
    assert torch.equal(y, x)
    y.square().sum().backward()
    assert layer.gamma.grad != 0
    assert [name for name, p in layer.named_parameters() if p.grad.any()] == ["gamma"]


def attending(**weights):
    """Returns attention over 8 channels with γ = 1; the matrices that are not given are ones."""
    layer = SelfAttention(8, ndim=1, spectral=False).requires_grad_(False)
    layer.gamma.fill_(1)
    for name in ("query", "key", "value", "output"):
        part = getattr(layer, name).weight
        part.copy_(weights.get(name, torch.ones(part.shape[:2]))[..., None])
    return layer


def test_attention_weighs_the_largest_of_every_two_values_by_unscaled_products_of_queries_and_keys():
    x = torch.zeros(1, 8, 4)
    x[0, 0] = torch.tensor([0.1, 0.3, -0.2, -0.4])
    added = (attending()(x) - x)[0]
    for place, query in enumerate([0.1, 0.3, -0.2, -0.4]):
        scores = [math.exp(query * key) for key in (0.3, -0.2)]
        taken = (scores[0] * 0.3 + scores[1] * -0.2) / sum(scores)
        assert_close(added[:, place], torch.full((8,), 4 * taken))  # the output sums 4 channels of the value


def test_attention_covers_every_position_and_each_sample_separately():
    x = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(0))
    moved = x.clone()
    moved[1, :, 15] += 5
    changed = (attending(value=torch.eye(4, 8))(moved) - attending(value=torch.eye(4, 8))(x)).abs().amax(dim=1)
    assert (changed[1] > 1e-6).all()
    assert not changed[[0, 2]].any()


def test_too_few_channels_for_attention_are_refused():
    with pytest.raises(
        RecipeError, match=r"^self-attention needs 8 or more channels, not 7; raise the network's `width`$"
    ):
        SelfAttention(7)


@pytest.mark.parametrize(("size", "start", "count"), [(8, 4, 1), (64, 4, 4), (4, 4, 0), (96, 3, 5), (1024, 4, 8)])
def test_the_number_of_doublings_leads_from_the_start_to_the_size(size, start, count):
    assert doublings(size, start, least=0) == count
    assert start * 2**count == size


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("size", [0, 1, 3, 5, 15, 17, 31, 48, 100, 1000])
def test_a_size_that_is_not_a_doubling_is_refused_with_a_valid_one(size, least):
    with pytest.raises(RecipeError) as error:
        doublings(size, 4, least=least)
    words, _, hint = str(error.value).removesuffix(".").rpartition(" ")
    valid = {1: "8, 16, 32, 64", 2: "16, 32, 64, 128"}[least]
    assert words == f"`image_size` is {size}; expected {valid} … Try"
    assert doublings(int(hint), 4, least=least) >= least


def test_conditional_gains_begin_near_one_and_biases_at_zero():
    torch.manual_seed(0)
    layer = ConditionalBatchNorm(40, 50)
    gains, biases = layer.embedding.weight.detach().chunk(2, dim=1)
    assert gains.mean().item() == pytest.approx(1, abs=2e-3)
    assert gains.std().item() == pytest.approx(0.02, rel=0.05)
    assert not biases.any()
    assert "norm.weight" not in layer.state_dict()  # the gains are the classes' only


@pytest.mark.parametrize("ndim", SHAPES)
def test_conditional_batch_normalization_scales_and_shifts_by_class(ndim):
    x = 3 + 2 * torch.randn(SHAPES[ndim], generator=torch.Generator().manual_seed(0))
    layer = ConditionalBatchNorm(3, 2, ndim=ndim)
    layer.embedding.weight.data = torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0, 0.5], [-1.0, 0.0, 1.0, 4.0, 5.0, 6.0]])
    y = layer(x, torch.tensor([0, 1, 1, 0]))
    plain = norm("batch", 3, ndim=ndim)(x)
    ones = [1] * ndim
    assert_close(
        y[0], plain[0] * torch.tensor([1.0, 2.0, 3.0]).view(3, *ones) + torch.tensor([0, 0, 0.5]).view(3, *ones)
    )
    assert_close(
        y[2], plain[2] * torch.tensor([-1.0, 0, 1.0]).view(3, *ones) + torch.tensor([4.0, 5, 6]).view(3, *ones)
    )


# --- blocks of style


@pytest.mark.parametrize("ndim", SHAPES)
def test_pixel_norm_gives_every_position_a_root_mean_square_of_one(ndim):
    x = 3 + 2 * torch.randn(SHAPES[ndim], generator=torch.Generator().manual_seed(0))
    y = PixelNorm()(x)
    assert_close(y.square().mean(dim=1), torch.ones_like(x[:, 0]))
    assert_close(y / y[:, :1], x / x[:, :1])  # directions are kept
    assert torch.equal(PixelNorm()(torch.zeros(1, 3, 2)), torch.zeros(1, 3, 2))


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0.0), (300.0, 1.0)])
def test_pixel_norm_holds_in_half_precision(value, expected):
    x = torch.full((1, 4, 2), value, dtype=torch.float16)
    assert torch.equal(PixelNorm()(x), torch.full_like(x, expected))


@pytest.mark.parametrize("ndim", SHAPES)
def test_adaptive_instance_norm_gives_each_channel_the_styles_moments(ndim):
    x = 3 + 2 * torch.randn(SHAPES[ndim], generator=torch.Generator().manual_seed(0))
    layer = AdaptiveInstanceNorm(3, 5)
    style = torch.zeros(4, 5)
    plain = layer(x, style).flatten(2)  # gains are 1, biases 0
    assert_close(plain.mean(dim=2), torch.zeros(4, 3), atol=1e-5, rtol=0)
    assert_close(plain.var(dim=2, unbiased=False), torch.ones(4, 3), atol=1e-3, rtol=0)
    style = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    gain, bias = layer.affine(style).chunk(2, dim=1)
    styled = layer(x, style).flatten(2)
    assert_close(styled.mean(dim=2), bias, atol=1e-4, rtol=0)
    assert_close(styled.std(dim=2, unbiased=False), gain.abs(), atol=1e-2, rtol=0)


@pytest.mark.parametrize("ndim", SHAPES)
def test_noise_is_initially_zero_and_the_same_for_all_channels(ndim):
    x = torch.randn(SHAPES[ndim], generator=torch.Generator().manual_seed(0))
    layer = NoiseInjection(3)
    assert torch.equal(layer(x), x)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.0, 1.0, -2.0]))
    with draws.drawing(5, torch.device("cpu"), rows=4, total=4):
        added = layer(x) - x
    assert_close(added[:, 0], torch.zeros_like(added[:, 0]))
    assert_close(added[:, 2], -2 * added[:, 1], atol=1e-5, rtol=0)
    assert added[:, 1].flatten().unique().numel() == added[:, 1].numel()  # different at every position
    with draws.drawing(5, torch.device("cpu"), start=2, rows=2, total=4):  # another process's part of the batch
        assert_close(layer(x[2:]) - x[2:], added[2:])


@pytest.mark.parametrize(
    "layer", [nn.Linear(200, 300), nn.Conv1d(40, 300, 5), nn.Conv2d(20, 300, 3), nn.Conv3d(8, 300, 3)]
)
def test_an_equalized_layer_has_the_initial_deviation_of_he_and_changes_by_the_rate(layer):
    torch.manual_seed(0)
    equalized(layer, rate=0.5)
    fan_in = layer.weight[0].numel()
    assert float(layer.weight.detach().std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
    assert torch.equal(layer.bias, torch.zeros(300))
    kept = layer.parametrizations.weight.original
    assert float(kept.detach().std()) == pytest.approx(2, rel=0.02)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        kept += 0.1
        layer.parametrizations.bias.original += 0.1
    assert_close(layer.weight - before, torch.full_like(before, 0.1 * 2**0.5 * 0.5 / fan_in**0.5), atol=1e-6, rtol=1e-3)
    assert_close(layer.bias, torch.full((300,), 0.05))


def test_an_equalized_layer_without_bias_is_saved_under_its_own_names():
    layer = equalized(nn.Conv2d(2, 3, 1, bias=False))
    assert list(layer.state_dict()) == ["parametrizations.weight.original"]


# --- residual blocks


def without_branch(block: nn.Module) -> nn.Module:
    """Returns a block whose branch adds 0."""
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    return block


def by_hand(shortcut: nn.Module, x: Tensor) -> Tensor:
    """Returns the result of a convolution of size 1."""
    return torch.einsum("oi,bi...->bo...", shortcut.weight.flatten(1), x) + shortcut.bias.view(-1, *[1] * (x.ndim - 2))


def halved(x: Tensor) -> Tensor:
    """Averages pairs of neighbours along every axis."""
    for axis in range(2, x.ndim):
        x = x.unflatten(axis, (-1, 2)).mean(dim=axis + 1)
    return x


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_an_upsampling_block_adds_its_branch_to_the_repeated_input(ndim):
    x = torch.randn(2, 3, *[4] * ndim)
    repeated = x
    for axis in range(2, x.ndim):
        repeated = repeated.repeat_interleave(2, dim=axis)
    block = without_branch(ResidualUp(3, 5, ndim=ndim))
    assert_close(block(x), by_hand(block.shortcut, repeated))


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_downsampling_block_adds_its_branch_to_its_input(ndim, halves):
    x = torch.randn(2, 3, *[4] * ndim)
    for rectified in (True, False):
        block = without_branch(ResidualDown(3, 5, ndim=ndim, halves=halves, rectified_shortcut=rectified))
        shortcut = by_hand(block.shortcut, x.relu() if rectified else x)
        assert_close(block(x), halved(shortcut) if halves else shortcut)
    assert torch.equal(without_branch(ResidualDown(3, 3, ndim=ndim, halves=False))(x), x)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_first_block_does_not_rectify_its_input(ndim):
    x = torch.randn(2, 3, *[4] * ndim)
    block = ResidualStem(3, 5, ndim=ndim)
    branch = halved(block.conv2(block.conv1(x).relu()))
    assert_close(block(x), branch + by_hand(block.shortcut, halved(x)))


def test_a_smooth_block_interpolates_linearly():
    x = torch.arange(4.0).expand(2, 3, 4)
    assert_close(ResidualUp(3, 5, ndim=1, smooth=True).upsample(x)[0, 0], torch.tensor([0, 1, 3, 5, 7, 9, 11, 12]) / 4)


def test_an_upsampling_block_depends_on_the_class():
    x, label = torch.randn(1, 3, 4).expand(2, 3, 4), torch.tensor([0, 1])
    block = ResidualUp(3, 5, num_classes=2, ndim=1)
    with torch.no_grad():
        block.norm1.embedding.weight[1] = block.norm1.embedding.weight[0]
        block.norm2.embedding.weight[1] = block.norm2.embedding.weight[0]
        one, other = block(x, label)
        assert_close(one, other)
        block.norm2.embedding.weight[1] += 1
        one, other = block(x, label)
    assert not torch.allclose(one, other)
