"""Importers of published checkpoints: settings are inferred from the shapes, for any size and number of channels."""

import subprocess
import sys
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import gan_image
from gan_core.cli import game_around
from gan_core.errors import CheckpointError, RecipeError
from gan_core.models.reference import read_reference
from gan_core.nn.blocks import SelfAttention
from gan_core.testing import find_fixtures
from gan_image import DOMAIN
from gan_image.reference import IMPORTERS


def norm(state, name, channels):
    for part in ("weight", "bias", "running_mean", "running_var"):
        state[f"{name}.{part}"] = torch.ones(channels)
    state[f"{name}.num_batches_tracked"] = torch.tensor(0)


def dcgan_generator(*, image_size, channels, width=4, latent_dim=6):
    stages, state = image_size.bit_length() - 3, {}
    widths = [latent_dim, *(width << stage for stage in reversed(range(stages))), channels]
    for number in range(stages + 1):
        state[f"main.{3 * number}.weight"] = torch.randn(widths[number], widths[number + 1], 4, 4)
        if number < stages:
            norm(state, f"main.{3 * number + 1}", widths[number + 1])
    return state


def dcgan_discriminator(*, image_size, channels, width=4):
    stages = image_size.bit_length() - 3
    widths = [channels, *(width << stage for stage in range(stages))]
    state = {"main.0.weight": torch.randn(width, channels, 4, 4)}
    for number in range(1, stages):
        state[f"main.{3 * number - 1}.weight"] = torch.randn(widths[number + 1], widths[number], 4, 4)
        norm(state, f"main.{3 * number}", widths[number + 1])
    return state | {f"main.{3 * stages - 1}.weight": torch.randn(1, widths[-1], 4, 4)}


def block(state, name, inputs, outputs, *, hidden, shortcut, norms):
    for layer, (a, b, size) in {
        "c1": (inputs, hidden, 3),
        "c2": (hidden, outputs, 3),
        "c_sc": (inputs, outputs, 1),
    }.items():
        if layer != "c_sc" or shortcut:
            state |= {f"{name}.{layer}.weight": torch.randn(b, a, size, size), f"{name}.{layer}.bias": torch.randn(b)}
    for layer, channels in {"b1": inputs, "b2": hidden}.items():
        if norms:
            norm(state, f"{name}.{layer}", channels)


def mimicry_generator(*, width=4, latent_dim=6):
    state = {"l1.weight": torch.randn(16 * width, latent_dim), "l1.bias": torch.randn(16 * width)}
    for number in (2, 3, 4):
        block(state, f"block{number}", width, width, hidden=width, shortcut=True, norms=True)
    norm(state, "b5", width)
    return state | {"c5.weight": torch.randn(3, width, 3, 3), "c5.bias": torch.randn(3)}


def mimicry_discriminator(*, width=4):
    state = {"l5.weight": torch.randn(1, width), "l5.bias": torch.randn(1)}
    block(state, "block1", 3, width, hidden=width, shortcut=True, norms=False)
    block(state, "block2", width, width, hidden=width, shortcut=True, norms=False)
    for number in (3, 4):
        block(state, f"block{number}", width, width, hidden=width, shortcut=False, norms=False)
    return state


def spectral(state, name, *shape, bias=True):
    """Adds a layer with Mimicry's spectral normalization."""
    state |= {
        f"{name}.weight": torch.randn(shape),
        f"{name}.sn_u": torch.randn(1, shape[0]),
        f"{name}.sn_sigma": torch.ones(1),
    }
    if bias:
        state[f"{name}.bias"] = torch.randn(shape[0])


def spectral_block(state, name, inputs, outputs, *, hidden, shortcut=True):
    spectral(state, f"{name}.c1", hidden, inputs, 3, 3)
    spectral(state, f"{name}.c2", outputs, hidden, 3, 3)
    if shortcut:
        spectral(state, f"{name}.c_sc", outputs, inputs, 1, 1)


def mimicry_attention(state, channels):
    state["attn_block.gamma"] = torch.tensor(0.5)
    for name, outputs in (("theta", channels // 8), ("phi", channels // 8), ("g", channels // 2)):
        spectral(state, f"attn_block.{name}", outputs, channels, 1, 1, bias=False)
    spectral(state, "attn_block.o", channels, channels // 2, 1, 1, bias=False)


def mimicry_sagan_generator(*, width=128, latent_dim=6, classes=3):
    """Returns a checkpoint for 128 pixels."""
    state = {}
    spectral(state, "l1", 16 * width, latent_dim)
    widths = [width, *(width >> block for block in range(5))]
    for number, (inputs, outputs) in enumerate(pairwise(widths), start=2):
        spectral_block(state, f"block{number}", inputs, outputs, hidden=outputs)
        for layer, channels in (("b1", inputs), ("b2", outputs)):
            norm(state, f"block{number}.{layer}.bn", channels)
            del state[f"block{number}.{layer}.bn.weight"], state[f"block{number}.{layer}.bn.bias"]
            state[f"block{number}.{layer}.embed.weight"] = torch.randn(classes, 2 * channels)
    mimicry_attention(state, width // 4)
    norm(state, "b7", widths[-1])
    spectral(state, "c7", 3, widths[-1], 3, 3)
    return state


def mimicry_sagan_discriminator(*, width=128, classes=3):
    """Returns a checkpoint for 128 pixels."""
    state = {}
    widths = [*(width >> block for block in reversed(range(5))), width]
    spectral_block(state, "block1", 3, widths[0], hidden=widths[0])
    for number, (inputs, outputs) in enumerate(pairwise(widths), start=2):
        spectral_block(state, f"block{number}", inputs, outputs, hidden=inputs, shortcut=number < 6)
    mimicry_attention(state, width // 8)
    spectral(state, "l7", 1, width)
    spectral(state, "l_y", classes, width, bias=False)
    return state


def layers(shapes):
    """Returns weights and biases of layers, whose weights have these shapes."""
    state = {f"{name}.module.weight": torch.randn(shape) for name, shape in shapes.items()}
    return state | {f"{name}.module.bias": torch.randn(shape[0]) for name, shape in shapes.items()}


def progan_generator(widths, channels, *, latent_dim=9):
    shapes = {"formatLayer": (16 * widths[0], latent_dim), "groupScale0.0": (widths[0], widths[0], 3, 3)}
    shapes |= {f"toRGBLayers.{scale}": (channels, width, 1, 1) for scale, width in enumerate(widths)}
    for scale, (inputs, outputs) in enumerate(pairwise(widths)):
        shapes |= {f"scaleLayers.{scale}.{part}": (outputs, (inputs, outputs)[part], 3, 3) for part in (0, 1)}
    return layers(shapes)


def progan_discriminator(widths, channels):
    first = widths[0]
    shapes = {"groupScaleZero.0": (first, first + 1, 3, 3), "groupScaleZero.1": (first, 16 * first)}
    shapes |= {"decisionLayer": (1, first)}
    shapes |= {f"fromRGBLayers.{scale}": (width, channels, 1, 1) for scale, width in enumerate(widths)}
    for scale, (outputs, inputs) in enumerate(pairwise(widths)):
        shapes |= {f"scaleLayers.{scale}.{part}": ((inputs, outputs)[part], inputs, 3, 3) for part in (0, 1)}
    return layers(shapes)


@cache
def _recorded(name, size):
    return next(f for f in FIXTURES if f.network == name and f.name.endswith(size)).state_dict()


def recorded(name, size=""):
    """Returns the weights of a published network, from its first fixture whose name ends with `size`."""
    return dict(_recorded(name, size))


FIXTURES = [parameter.values[0] for parameter in find_fixtures("image", Path(__file__).parent / "conformance")]
DISTINCT = ("dcgan", "infogan", "progan", "sagan")
ALIKE = [{name for name in IMPORTERS if name.endswith("/generator") and not name.startswith(DISTINCT)}]
ALIKE.append({"cyclegan/patchgan_discriminator", "pix2pix/patchgan_discriminator"})
ALIKE.append({"progan/discriminator", "progan/gradient_penalty"})
"""Groups of importers of the same published networks."""
UNREAD = ("num_batches_tracked", "sn_sigma", "sv0")
"""Tensors that may be missing: old checkpoints lack them, or the outputs do not depend on them."""
MADE = {
    "ssgan/generator": mimicry_generator,
    "infomax-gan/generator": mimicry_generator,
    "dcgan/generator": partial(dcgan_generator, image_size=64, channels=3),
    "dcgan/discriminator": partial(dcgan_discriminator, image_size=64, channels=3),
    "wgan-gp/generator": mimicry_generator,
    "wgan-gp/discriminator": mimicry_discriminator,
}
"""Checkpoints at the usual size of networks whose fixtures are smaller, or that have none."""


@cache
def _state_of(name):
    return MADE[name]() if name in MADE else recorded(name)


def state_of(name):
    """Returns a checkpoint of a published network."""
    return dict(_state_of(name))


def blank_network(published):
    """Returns the network that a checkpoint is converted to, without memory."""
    with torch.device("meta"):
        return published.network(**published.settings)


def is_refused(name, state, whole, blank):
    """Returns whether a checkpoint is refused.

    Only a network with other settings than those of the whole checkpoint is built.

    Args:
        name: name of the published network.
        state: the checkpoint.
        whole: conversion of the whole checkpoint.
        blank: its network, which is changed.
    """
    try:
        published = read_reference(IMPORTERS, name, state, {})
        if published.settings != whole.settings:
            published.build()
        else:
            blank.load_state_dict(published.weights, assign=True)  # as `Published.build` compares the shapes
    except (CheckpointError, RuntimeError):
        return True
    return False


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", [16, 32, 64, 128])
def test_the_size_and_channels_of_a_dcgan_are_inferred_from_its_shapes(image_size, channels):
    state = dcgan_generator(image_size=image_size, channels=channels)
    settings = read_reference(IMPORTERS, "dcgan/generator", state, {}).settings
    assert settings == {"image_size": image_size, "channels": channels, "latent_dim": 6, "width": 4}
    images = gan_image.load_reference("dcgan/generator", state)(torch.randn(2, 6, 1, 1))
    assert images.shape == (2, channels, image_size, image_size)
    state = dcgan_discriminator(image_size=image_size, channels=channels)
    settings = read_reference(IMPORTERS, "dcgan/discriminator", state, {}).settings
    assert settings == {"image_size": image_size, "channels": channels, "width": 4}
    assert gan_image.load_reference("dcgan/discriminator", state)(images).shape == (2,)


@pytest.mark.parametrize(("width", "latent_dim"), [(4, 6), (9, 2)])
def test_the_widths_of_a_residual_network_are_inferred_from_its_shapes(width, latent_dim):
    generator = gan_image.load_reference("wgan-gp/generator", mimicry_generator(width=width, latent_dim=latent_dim))
    images = generator(torch.randn(2, latent_dim))
    assert images.shape == (2, 3, 32, 32)
    assert gan_image.load_reference("wgan-gp/discriminator", mimicry_discriminator(width=width))(images).shape == (2,)


@pytest.mark.parametrize(("name", "attention"), [("sagan/generator", 32), ("sagan/discriminator", 16)])
def test_the_settings_of_a_biggan_checkpoint_are_inferred_from_its_shapes(name, attention):
    settings = read_reference(IMPORTERS, name, recorded(name, "_64"), {}).settings
    width = 128  # 16 times the published `ch`
    common = {"image_size": 64, "channels": 3, "width": width, "tapered": True, "num_classes": 5, "layout": "biggan"}
    own = {"latent_dim": 24, "spectral_generator": True} if name == "sagan/generator" else {}
    assert settings == {**common, **own, "attention": attention}


@pytest.mark.parametrize("name", ["sagan/generator", "sagan/discriminator"])
def test_a_biggan_checkpoint_with_a_tensor_missing_or_of_another_shape_is_refused(name):
    state = recorded(name, "_64")
    whole = read_reference(IMPORTERS, name, state, {})
    blank = blank_network(whole)
    one_of_each = {tuple(part for part in key.split(".") if not part.isdigit()): key for key in state}
    for key in one_of_each.values():
        if not key.endswith(UNREAD):
            without = {other: value for other, value in state.items() if other != key}
            assert is_refused(name, without, whole, blank), f"{key} is missing"
            assert is_refused(name, state | {key: torch.zeros(7, 7, 7)}, whole, blank), key


@pytest.mark.parametrize("scales", [0, 1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_sizes_of_a_progan_are_inferred_from_its_shapes(scales, channels):
    widths = (5, 7, 4, 6)[: scales + 1]
    both = {"image_size": 4 << scales, "channels": channels, "widths": widths}
    generator, discriminator = progan_generator(widths, channels), progan_discriminator(widths, channels)
    assert read_reference(IMPORTERS, "progan/generator", generator, {}).settings == {**both, "latent_dim": 9}
    assert read_reference(IMPORTERS, "progan/discriminator", discriminator, {}).settings == both
    images = gan_image.load_reference("progan/generator", generator)(torch.randn(4, 9))
    assert images.shape == (4, channels, 4 << scales, 4 << scales)
    assert gan_image.load_reference("progan/discriminator", discriminator)(images).shape == (4,)


def test_the_place_of_attention_in_mimicrys_tapered_sagan_is_inferred_from_its_channels():
    generator = gan_image.load_reference("sagan/generator", mimicry_sagan_generator())
    label = torch.tensor([0, 2])
    images = generator(torch.randn(2, 6), label)
    assert images.shape == (2, 3, 128, 128)
    discriminator = gan_image.load_reference("sagan/discriminator", mimicry_sagan_discriminator())
    assert discriminator(images, label).shape == (2,)
    for network, after in ((generator, 2), (discriminator, 1)):  # 32 pixels in both
        assert [isinstance(block, SelfAttention) for block in network.blocks].index(True) == after + 1


@pytest.mark.parametrize("name", [name for name in IMPORTERS if not name.startswith("progan/")])
def test_every_weight_of_the_checkpoint_is_in_the_network(name):
    state = state_of(name)
    ours = gan_image.load_reference(name, state).state_dict()
    assert len(ours) == len(state)
    derived = ("sn_sigma", "_v", ".v")
    kept = [[value for key, value in tensors.items() if not key.endswith(derived)] for tensors in (ours, state)]
    sums = [sorted(float(tensor.double().sum()) for tensor in tensors) for tensors in kept]
    assert sums[0] == sums[1]


@pytest.mark.parametrize("name", IMPORTERS)
def test_published_arguments_may_be_given_if_they_agree_with_the_checkpoint(name):
    arguments = read_reference(IMPORTERS, name, state_of(name), {}).arguments
    assert gan_image.load_reference(name, state_of(name), **arguments) is not None
    for key, value in arguments.items():
        if isinstance(value, str):
            continue
        other = [*value, 1] if isinstance(value, list) else value + 1
        with pytest.raises(CheckpointError) as error:
            gan_image.load_reference(name, state_of(name), **{key: other})
        assert str(error.value) == f"{name}: `{key}` is {other}, but {value} in the checkpoint; omit it"


def test_an_argument_that_the_published_network_does_not_have_is_refused():
    with pytest.raises(CheckpointError) as error:
        gan_image.load_reference("dcgan/generator", state_of("dcgan/generator"), nfg=4)
    assert str(error.value) == "unknown argument of dcgan/generator `nfg`; did you mean `ngf`?"


@pytest.mark.parametrize("name", IMPORTERS)
@pytest.mark.parametrize("other", IMPORTERS)
def test_a_checkpoint_of_another_network_is_refused(name, other):
    if name == other or any({name, other} <= alike for alike in ALIKE):
        assert gan_image.load_reference(name, state_of(other)) is not None
        return
    with pytest.raises(CheckpointError):
        gan_image.load_reference(name, state_of(other))


@pytest.mark.parametrize("name", IMPORTERS)
def test_a_checkpoint_with_a_tensor_missing_or_of_another_shape_is_refused(name):
    state = state_of(name)
    whole = read_reference(IMPORTERS, name, state, {})
    blank = blank_network(whole)
    assert not is_refused(name, state, whole, blank)
    for key in state:
        if key.endswith("sn_sigma"):
            continue
        if not key.endswith(UNREAD):
            without = {other: value for other, value in state.items() if other != key}
            assert is_refused(name, without, whole, blank), f"{key} is missing"
        assert is_refused(name, state | {key: torch.zeros(7, 7, 7)}, whole, blank), key


def test_a_checkpoint_without_a_tensor_or_with_one_of_another_shape_is_an_error_of_one_line():
    name, state = "dcgan/generator", state_of("dcgan/generator")
    with pytest.raises(
        CheckpointError, match=r"^dcgan/generator: the checkpoint is of another network \('main\.0\.weig"
    ):
        gan_image.load_reference(name, {key: value for key, value in state.items() if key != "main.0.weight"})
    with pytest.raises(
        CheckpointError, match=r"^the checkpoint does not fit: Error.* Missing key.* \"up\.0\.1\.bias\""
    ):
        gan_image.load_reference(name, {key: value for key, value in state.items() if key != "main.4.bias"})
    with pytest.raises(
        CheckpointError, match=r"^the checkpoint does not fit: Error.* size mismatch for up\.0\.1\.bias"
    ):
        gan_image.load_reference(name, state | {"main.4.bias": torch.zeros(7)})


def test_every_importer_has_the_name_of_a_system_and_one_of_its_networks():
    for name in IMPORTERS:
        system, _, network = name.partition("/")
        place = read_reference(IMPORTERS, name, state_of(name), {}).place or network
        assert place.removesuffix("_q") in DOMAIN.preset(system, "paper").networks


TRANSLATORS = [name for name in IMPORTERS if name.startswith(("cyclegan/", "pix2pix/"))]


def output_of(name, state, **arguments):
    network = gan_image.load_reference(name, state, **arguments).eval()
    channels = next(tensor.shape[1] for tensor in state.values() if tensor.ndim == 4)
    side = max(64, getattr(network, "multiple", 1))
    return network(torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0)))


def test_dropout_shifts_the_index_of_the_second_convolution_in_a_published_block():
    name, state = "cyclegan/resnet_generator", recorded("cyclegan/resnet_generator", "_batchnorm")
    moved = {}
    for key, tensor in state.items():
        block, found, part = key.partition(".conv_block.")
        number, _, rest = part.partition(".")
        moved[f"{block}{found}{int(number) + (int(number) > 4)}.{rest}" if found else key] = tensor
    published = read_reference(IMPORTERS, name, moved, {"use_dropout": True})
    assert published.settings == {
        "source_channels": 3,
        "target_channels": 3,
        "width": 6,
        "blocks": 6,
        "norm": "batch",
        "dropout": 0.5,
    }
    assert torch.equal(output_of(name, moved), output_of(name, state))


@pytest.mark.parametrize(("name", "first"), [("cyclegan/resnet_generator", 0), ("cyclegan/patchgan_discriminator", 1)])
def test_running_statistics_without_gains_belong_to_an_old_instance_norm(name, first):
    state = recorded(name)
    biases = [key for key in state if key.endswith(".bias")]
    old = dict(state)
    for key in biases[first:-1]:  # of the convolutions that a norm follows
        place, _, layer = key.removesuffix(".bias").rpartition(".")
        for part in ("running_mean", "running_var"):
            old[f"{place}.{int(layer) + 1}.{part}"] = torch.full((len(state[key]),), 7.0)
        old[f"{place}.{int(layer) + 1}.num_batches_tracked"] = torch.tensor(7)
    assert read_reference(IMPORTERS, name, old, {}).arguments["norm"] == "instance"
    assert torch.equal(output_of(name, old), output_of(name, state))


@pytest.mark.parametrize("name", TRANSLATORS)
def test_published_layers_without_norms_have_no_biases_in_between(name):
    state = recorded(name)
    norms = {key.removesuffix("running_mean") for key in state if key.endswith("running_mean")}
    state = {key: tensor for key, tensor in state.items() if not any(key.startswith(norm) for norm in norms)}
    biases = [key for key in state if key.endswith(".bias")]
    ends = {"cyclegan/resnet_generator": biases[-1:], "cyclegan/patchgan_discriminator": [biases[0], biases[-1]]}
    state = {key: tensor for key, tensor in state.items() if key not in biases or key in ends.get(name, biases)}
    published = read_reference(IMPORTERS, name, state, {"norm": "none"})
    assert published.settings["norm"] == "none"
    built = published.build()
    assert sum(key.endswith(".bias") for key in built.state_dict()) == sum(key.endswith(".bias") for key in state)
    with pytest.raises(CheckpointError) as error:
        gan_image.load_reference(name, state, norm="batch")
    assert str(error.value) == f"{name}: `norm` is 'batch', but 'none' in the checkpoint; omit it"


def test_the_dropout_of_a_published_unet_is_an_argument_because_it_has_no_weights():
    name, state = "pix2pix/unet_generator", recorded("pix2pix/unet_generator", "unet256_generator")
    assert read_reference(IMPORTERS, name, state, {}).settings["dropout"] == 0.5
    assert read_reference(IMPORTERS, name, state, {"use_dropout": False}).settings["dropout"] == 0
    assert torch.equal(output_of(name, state, use_dropout=True), output_of(name, state, use_dropout=False))


def test_nothing_larger_than_the_checkpoint_is_allocated_for_one_that_does_not_fit():
    state = recorded("cyclegan/patchgan_discriminator")
    state["model.0.weight"] = torch.zeros(1 << 16, 3, 4, 4)  # of such a width, the second layer alone has 512 GiB
    with pytest.raises(
        CheckpointError, match=r"^the checkpoint does not fit: Error.* size mismatch for features\.0\.0\.bias"
    ):
        gan_image.load_reference("cyclegan/patchgan_discriminator", state)


@pytest.mark.parametrize(("place", "key", "result"), [(None, "source", "to_target"), ("b_to_a", "target", "to_source")])
def test_a_published_translator_of_one_direction_is_imported_loaded_and_used(tmp_path, place, key, result):
    name = "cyclegan/resnet_generator"
    state = resnet_generator(in_channels=3, out_channels=1)
    game = game_around(DOMAIN, name, read_reference(IMPORTERS, name, state, {}), place)
    folder = game.save_pretrained(tmp_path / "model")
    loaded = gan_image.load(folder)
    channels = {"source": 3, "target": 1} if place is None else {"source": 1, "target": 3}
    assert loaded.data_spec().channels == channels
    assert set(loaded.absent) == {"a_to_b", "b_to_a", "discriminator_a", "discriminator_b"} - {place or "a_to_b"}
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        made = loaded.apply({key: picture})
        assert made.keys() == {result}
        assert torch.equal(made[result], gan_image.load_reference(name, state).eval()(picture))
        other = "b_to_a" if place is None else "a_to_b"
        with pytest.raises(CheckpointError, match=f"this model has no weights for the network `{other}`"):
            loaded.apply({"target" if key == "source" else "source": picture[:, :1]})


def test_a_place_that_a_published_network_cannot_have_is_refused():
    name = "cyclegan/resnet_generator"
    published = read_reference(IMPORTERS, name, resnet_generator(in_channels=3, out_channels=3), {})
    with pytest.raises(RecipeError, match="target network of cyclegan/resnet_generator `discriminator_a`"):
        game_around(DOMAIN, name, published, "discriminator_a")


def resnet_generator(*, in_channels, out_channels, width=4, blocks=2):
    """Returns a published checkpoint of a translator with instance norm."""
    drawn = torch.Generator().manual_seed(0)

    def layer(key, *shape):
        bias = shape[1] if key in ("model.12", "model.15") else shape[0]  # transposed convolutions
        return {
            f"{key}.weight": 0.1 * torch.randn(shape, generator=drawn),
            f"{key}.bias": torch.randn(bias, generator=drawn),
        }

    state = layer("model.1", width, in_channels, 7, 7) | layer("model.4", 2 * width, width, 3, 3)
    state |= layer("model.7", 4 * width, 2 * width, 3, 3)
    for block in range(blocks):
        for part in (1, 5):
            state |= layer(f"model.{10 + block}.conv_block.{part}", 4 * width, 4 * width, 3, 3)
    state |= layer("model.12", 4 * width, 2 * width, 3, 3) | layer("model.15", 2 * width, width, 3, 3)
    return state | layer("model.19", out_channels, width, 7, 7)


# --- hostile files


MEASURED = """if True:
    import sys
    import torch
    from gan_image import DOMAIN
    from gan_core.api import Toolkit
    from gan_core.cli import main

    def peak():
        return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024

    DOMAIN.reference, DOMAIN.presets("dcgan"), Toolkit
    before = peak()
    try:
        main(DOMAIN)
    except SystemExit as end:
        print(end.code, round(peak() - before))
"""
"""Runs a command; prints its exit status, and by how many MiB the peak of memory grew."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("form", ["narrow", "many", "wide", "strides", "fitting strides"])
def test_small_files_of_large_networks_are_refused_before_memory_is_allocated(tmp_path, form):
    layers = {f"main.{3 * number}.weight": torch.zeros(1, 1, 1, 1) for number in range(100 if form == "many" else 4)}
    layers["main.9.weight"] = torch.zeros({"wide": 2**20, "many": 1}.get(form, 2048), 1, 1, 1)
    if form == "fitting strides":
        with torch.device("meta"):
            layers = dcgan_generator(image_size=32, channels=3, width=1024)
    file = tmp_path / ("w.pth" if form.endswith("strides") else "w.safetensors")
    if file.suffix == ".pth":
        torch.save({key: torch.zeros(()).expand(value.shape) for key, value in layers.items()}, file)
    else:
        save_file(layers, file)
    command = [sys.executable, "-c", MEASURED, "import", "dcgan/generator", str(file), "--out", str(tmp_path / "m")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    status, grown = map(int, answer.stdout.split())
    assert (status, answer.stderr.count("\n")) == (2, 1)
    assert grown < 64


def test_networks_are_built_on_meta_without_the_compiler():
    """Importing torch's compiler takes seconds and 150 MB."""
    code = """if True:
        import sys
        from gan_core.play.preset import on_meta
        from gan_image import DOMAIN
        for system in ("dcgan", "sngan", "progan", "cyclegan"):
            with on_meta():
                DOMAIN.preset(system).build()
        print("torch._dynamo" in sys.modules)
    """
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"
