import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gan_core.errors import DataError
from gan_core.nn.translators import PatchDiscriminator, ResidualBlock, ResNetTranslator, UNetTranslator


def small(network, **settings):
    torch.manual_seed(0)
    return network(**({"width": 2} | settings))


@pytest.mark.parametrize(
    ("network", "settings", "count"),
    [
        (ResNetTranslator, {}, 11_378_179),  # CycleGAN at 256 pixels
        (ResNetTranslator, {"norm": "batch"}, 11_383_427),
        (ResNetTranslator, {"blocks": 6}, 7_837_699),  # CycleGAN at 128 pixels
        (UNetTranslator, {}, 54_413_955),  # pix2pix at 256 pixels
        (UNetTranslator, {"norm": "instance"}, 54_409_603),
        (UNetTranslator, {"depth": 7}, 41_828_995),
        (PatchDiscriminator, {"norm": "instance"}, 2_764_737),  # CycleGAN
        (PatchDiscriminator, {"in_channels": 6}, 2_768_705),  # pix2pix
        (PatchDiscriminator, {"in_channels": 6, "layers": 1}, 139_585),
        (PatchDiscriminator, {"in_channels": 6, "layers": 5}, 11_159_361),
        (PatchDiscriminator, {"in_channels": 6, "layers": 0}, 9_024),
        (PatchDiscriminator, {"norm": "instance", "layers": 0}, 8_705),
    ],
)
def test_networks_of_the_papers_have_the_published_numbers_of_parameters(network, settings, count):
    with torch.device("meta"):
        parameters = network(**settings).parameters()
    assert sum(parameter.numel() for parameter in parameters) == count


@pytest.mark.parametrize("norm", ["batch", "instance", "layer", "none"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_translations_have_the_size_of_the_source_and_the_channels_of_the_target(ndim, norm):
    sides = (16, 8, 24)[:ndim]
    source = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0))
    common = {"in_channels": 3, "out_channels": 2, "norm": norm, "ndim": ndim}
    for network in (small(ResNetTranslator, blocks=1, **common), small(UNetTranslator, depth=3, **common)):
        target = network(source)
        assert target.shape == (2, 2, *sides)
        assert target.abs().max() <= 1
        target.sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(("layers", "patch"), [(0, 1), (1, 16), (2, 34), (3, 70), (4, 142), (5, 286)])
def test_a_logit_depends_on_one_patch_of_the_published_size(layers, patch):
    network = small(PatchDiscriminator, in_channels=1, layers=layers, norm="none", ndim=1)
    for parameter in network.parameters():  # positive, so that no two paths cancel
        parameter.data.abs_().add_(0.1)
    samples = torch.ones(1, 1, 900, requires_grad=True)
    logits = network(samples)
    (gradient,) = torch.autograd.grad(logits[0, 0, logits.shape[2] // 2], samples)
    (reached,) = gradient[0, 0].nonzero(as_tuple=True)
    assert reached.max() - reached.min() + 1 == patch


@pytest.mark.parametrize(
    ("layers", "sides", "logits"), [(0, (5, 7), (5, 7)), (1, (32, 28), (14, 12)), (3, (256, 256), (30, 30))]
)
def test_there_is_a_map_of_logits_for_every_sample(layers, sides, logits):
    assert small(PatchDiscriminator, layers=layers)(torch.randn(2, 3, *sides)).shape == (2, 1, *logits)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_residual_block_sees_no_border_in_a_constant_sample(ndim):
    torch.manual_seed(0)
    sample = torch.randn(1, 3, *[1] * ndim).expand(1, 3, *[5] * ndim)
    y = ResidualBlock(3, "none", 0.0, ndim)(sample)
    assert_close(y, y[:, :, :1].flatten(2)[..., :1].view(1, 3, *[1] * ndim).expand_as(y))


@pytest.mark.parametrize("depth", [2, 5, 6, 8])
def test_dropout_is_in_the_decoder_next_to_the_innermost_resolution(depth):
    network = small(UNetTranslator, depth=depth, width=1)
    levels = [level for level, up in enumerate(network.up) if any(isinstance(part, nn.Dropout) for part in up)]
    assert levels == list(range(4, depth - 1))


def test_dropout_makes_translations_differ_in_training_and_not_in_evaluation():
    source = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    networks = small(UNetTranslator, depth=6), small(ResNetTranslator, blocks=1, dropout=0.5)
    for network in networks:
        assert not torch.equal(network(source), network(source))
        network.eval()
        assert torch.equal(network(source), network(source))
    assert torch.equal(*(small(ResNetTranslator, blocks=1)(source) for _ in range(2)))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_unet_joins_encoder_and_decoder_at_every_resolution(level):
    network = small(UNetTranslator, depth=4, norm="none")
    nn.init.zeros_(network.up[level + 1][1].weight)  # nothing arrives from lower resolutions
    source = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    target = network(source)
    assert not torch.equal(target[0], target[1])


def test_the_source_is_not_changed():
    for network in (small(ResNetTranslator, blocks=1), small(UNetTranslator, depth=3), small(PatchDiscriminator)):
        source = torch.randn(1, 3, 32, 32)
        before = source.clone()
        network(source)
        assert torch.equal(source, before)


@pytest.mark.parametrize("network", [ResNetTranslator, UNetTranslator, PatchDiscriminator])
def test_biases_begin_at_zero_and_weights_are_small_and_normal(network):
    torch.manual_seed(0)
    network = network(width=8, norm="batch")
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif parameter.ndim > 1 and parameter.numel() > 2000:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1)
            assert abs(parameter.mean().item()) < 2e-3
    gains = torch.cat([m.weight for m in network.modules() if isinstance(m, nn.BatchNorm2d)])
    assert gains.mean().item() == pytest.approx(1, abs=0.01)
    assert gains.std().item() == pytest.approx(0.02, rel=0.3)


REFUSED = [
    (
        ResNetTranslator,
        {},
        (64, 66),
        "the sample's size is 64x66; a ResNet translator needs sides of multiples of 4, "
        "at least 8. Resize, crop or pad it.",
    ),
    (
        ResNetTranslator,
        {},
        (4, 8),
        "the sample's size is 4x8; a ResNet translator needs sides of multiples of 4, "
        "at least 8. Resize, crop or pad it.",
    ),
    (
        UNetTranslator,
        {"depth": 5},
        (64, 48),
        "the sample's size is 64x48; a U-Net of depth 5 needs sides of multiples "
        "of 32, at least 32. Resize, crop or pad it, or lower `depth`.",
    ),
    (
        PatchDiscriminator,
        {},
        (23, 64),
        "the sample's size is 23x64; a PatchGAN of 3 layers needs sides of 24 or more. Enlarge it or lower `layers`.",
    ),
]


@pytest.mark.parametrize(("network", "settings", "sides", "message"), REFUSED)
def test_a_size_that_does_not_fit_is_refused(network, settings, sides, message):
    with pytest.raises(DataError) as error:
        small(network, **settings)(torch.zeros(1, 3, *sides))
    assert str(error.value) == message


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("settings", [{"layers": layers} for layers in (0, 1, 2, 3)])
def test_the_shortest_sides_are_accepted(settings, norm):
    network = small(PatchDiscriminator, norm=norm, **settings)
    assert network(torch.zeros(2, 3, network.least, network.least)).numel() == 2
    for network in (
        small(ResNetTranslator, norm=norm, blocks=1),
        small(UNetTranslator, norm=norm, depth=1),
        small(UNetTranslator, norm=norm, depth=3),
    ):
        assert network(torch.zeros(1, 3, network.least, network.least)).shape == (1, 3, network.least, network.least)


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize(
    ("network", "settings", "radius"),
    [
        (ResNetTranslator, {"blocks": 0}, 12),
        (ResNetTranslator, {"blocks": 3}, 36),
        (UNetTranslator, {"depth": 1}, 3),
        (UNetTranslator, {"depth": 3}, 21),
        (UNetTranslator, {"depth": 4}, 45),
    ],
)
def test_outputs_depend_on_inputs_within_the_receptive_radius(network, settings, radius, norm):
    translator = small(network, norm=norm, in_channels=1, out_channels=1, ndim=1, dropout=0.0, **settings).eval()
    assert translator.receptive_radius == radius
    for parameter in translator.parameters():  # positive, so that no two paths cancel
        parameter.data.abs_().add_(0.001)
    translator.double()
    source = torch.ones(1, 1, 256, dtype=torch.double, requires_grad=True)
    far = 0
    for place in range(120, 120 + translator.multiple):
        (gradient,) = torch.autograd.grad(translator(source)[0, 0, place], source)
        far = max(far, int((gradient[0, 0].nonzero().flatten() - place).abs().max()))
    assert far == radius


@pytest.mark.parametrize("norm", ["instance", "layer"])
def test_there_is_no_receptive_radius_where_a_norm_uses_the_whole_sample(norm):
    assert small(ResNetTranslator, norm=norm).receptive_radius is None
    assert small(UNetTranslator, norm=norm, depth=3).receptive_radius is None
