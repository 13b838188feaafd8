"""Forward and backward pass in channels-last over contiguous memory layout, and over the published code, on one thread.

Each case is one or two networks, one after the other, on a random batch. Copies with equal weights take turns, round by
round. Times are processor times, which other work on the machine affects little. A ratio is the median over the rounds
of one copy's time over the other's in the same round. With `--published`, the published networks take turns too; ours
get their weights, and the outputs must agree to 1e-4 of their standard deviation.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import torch
from _record import Progress, record
from _tables import markdown
from torch import Tensor, nn
from torch.testing import assert_close

import gan_image
from gan_core.nn.translators import PatchDiscriminator, ResNetTranslator, UNetTranslator
from gan_core.training.layout import channels_last, lay_out
from gan_image.systems import convolutional, srresnet


@dataclass(frozen=True)
class Case:
    """Networks that are timed.

    Attributes:
        batch: shape of the input of the first network.
        networks: makes the networks; each gets the output of the one before.
        reference: name of the importer of the published network, if it can be compared.
        published: makes the published network, given its module `networks`.
    """

    batch: tuple[int, ...]
    networks: Callable[[], list[nn.Module]]
    reference: str = ""
    published: Callable[[Any], nn.Module] | None = None


def generator_and_discriminator(family: ModuleType, **settings: Any) -> list[nn.Module]:
    """Makes the networks of the `small` preset of a family of systems."""
    return [
        family.Generator(latent_dim=64, channels=1, **settings, **family.SMALL.network.get("generator", {})),
        family.Discriminator(channels=1, **settings, **family.SMALL.network.get("discriminator", {})),
    ]


def resnet(width: int) -> Case:
    """Returns CycleGAN's generator with 9 blocks at 128 pixels, batch size 1."""
    return Case(
        (1, 3, 128, 128),
        lambda: [ResNetTranslator(width=width)],
        "cyclegan/resnet_generator",
        lambda theirs: theirs.define_G(3, 3, width, "resnet_9blocks", "instance"),
    )


CASES = {
    "dcgan `small`, 32×32, batch 64": Case(
        (64, 64), partial(generator_and_discriminator, convolutional, image_size=32, width=32)
    ),
    "dragan `small`, 16×16, batch 64": Case((64, 64), partial(generator_and_discriminator, srresnet, image_size=16)),
    "ResNet, instance norm, width 16, 128×128": resnet(16),
    "ResNet, instance norm, width 64, 128×128": resnet(64),
    "ResNet, batch norm, width 16, 128×128": Case(
        (1, 3, 128, 128),
        lambda: [ResNetTranslator(width=16, norm="batch")],
        "cyclegan/resnet_generator",
        lambda theirs: theirs.define_G(3, 3, 16, "resnet_9blocks", "batch"),
    ),
    "PatchGAN, instance norm, width 16, 128×128": Case(
        (1, 3, 128, 128),
        lambda: [PatchDiscriminator(width=16, norm="instance")],
        "cyclegan/patchgan_discriminator",
        lambda theirs: theirs.define_D(3, 16, "basic", norm="instance"),
    ),
    "PatchGAN, instance norm, width 64, 128×128": Case(
        (1, 3, 128, 128),
        lambda: [PatchDiscriminator(norm="instance")],
        "cyclegan/patchgan_discriminator",
        lambda theirs: theirs.define_D(3, 64, "basic", norm="instance"),
    ),
    "PatchGAN, batch norm, width 64, 256×256": Case(
        (1, 6, 256, 256),
        lambda: [PatchDiscriminator(in_channels=6)],
        "pix2pix/patchgan_discriminator",
        lambda theirs: theirs.define_D(6, 64, "basic", norm="batch"),
    ),
    "U-Net, batch norm, width 16, 64×64, batch 4": Case(
        (4, 3, 64, 64),
        lambda: [UNetTranslator(width=16, depth=6, dropout=0.0)],
        "pix2pix/unet_generator",
        lambda theirs: theirs.UnetGenerator(3, 3, 6, 16),
    ),
    "U-Net, batch norm, width 64, 256×256": Case(
        (1, 3, 256, 256),
        lambda: [UNetTranslator(dropout=0.0)],
        "pix2pix/unet_generator",
        lambda theirs: theirs.define_G(3, 3, 64, "unet_256", "batch"),
    ),
    "U-Net, instance norm, width 16, 64×64, batch 4": Case(
        (4, 3, 64, 64),
        lambda: [UNetTranslator(width=16, depth=6, norm="instance", dropout=0.0)],
        "pix2pix/unet_generator",
        lambda theirs: theirs.UnetGenerator(3, 3, 6, 16, theirs.get_norm_layer("instance")),
    ),
    "U-Net and PatchGAN, batch norm, width 8, 32×32×32, batch 4": Case(
        (4, 1, 32, 32, 32),
        lambda: [
            UNetTranslator(in_channels=1, out_channels=1, width=8, depth=4, ndim=3),
            PatchDiscriminator(in_channels=1, width=8, layers=2, ndim=3),
        ],
    ),
    "ResNet, instance norm, width 8, 32×32×32": Case(
        (1, 1, 32, 32, 32), lambda: [ResNetTranslator(in_channels=1, out_channels=1, width=8, blocks=3, ndim=3)]
    ),
}


def seconds(networks: Sequence[nn.Module], batch: Tensor) -> float:
    """Returns the processor time of a forward and a backward pass."""
    start = time.process_time()
    x = batch
    for network in networks:
        x = network(x)
    torch.autograd.backward(x.square().mean())
    taken = time.process_time() - start
    for network in networks:
        network.zero_grad()
    return taken


def published_code(folder: Path) -> Any:
    """Imports the published networks."""
    spec = importlib.util.spec_from_file_location("published_networks", folder / "models" / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def share_weights(case: Case, theirs: nn.Module, ours: nn.Module, batch: Tensor) -> None:
    """Gives our network the published one's weights and checks that the outputs agree."""
    ours.load_state_dict(gan_image.load_reference(case.reference, theirs.state_dict()).state_dict())
    expected = theirs(batch).detach()
    assert_close(ours(batch).detach() / expected.std(), expected / expected.std(), atol=1e-4, rtol=0)


def is_channels_last(networks: Sequence[nn.Module]) -> bool:
    """Returns whether training puts the channels of the networks' weights last."""
    weights = [parameter for network in networks for parameter in network.parameters() if parameter.ndim > 3]
    return any(not weight.is_contiguous() for weight in weights)


def compare(case: Case, rounds: int, folder: Path | None) -> dict[str, Any]:
    """Times a case in both layouts, and the published network if its folder is given."""
    torch.manual_seed(0)
    networks, batch = case.networks(), torch.randn(case.batch)
    timed: dict[str, Sequence[nn.Module]] = {"contiguous": networks}
    if folder is not None and case.published is not None:
        timed["published"] = [case.published(published_code(folder))]
        share_weights(case, timed["published"][0], networks[0], batch)
    timed["channels last"], trained = deepcopy(networks), deepcopy(networks)
    for last, chosen in zip(timed["channels last"], trained, strict=True):
        channels_last(last.parameters())
        lay_out(chosen)
    layout = "channels last" if is_channels_last(trained) else "contiguous"
    taken: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(rounds + 1):
        for name, copies in timed.items():
            spent = seconds(copies, batch)
            if number:  # the first round warms up
                taken[name].append(spent)

    def ratio(name: str, other: str) -> float:
        return round(median(a / b for a, b in zip(taken[name], taken[other], strict=True)), 3)

    figures = {
        "milliseconds": {name: round(1000 * median(found), 1) for name, found in taken.items()},
        "channels last / contiguous": ratio("channels last", "contiguous"),
        "layout": layout,
    }
    if "published" in taken:
        figures["ours / published"] = ratio(layout, "published")
    return figures


def table(figures: Mapping[str, Any]) -> str:
    """Formats the table of the results page."""

    def row(case: str, found: Mapping[str, Any]) -> list[str]:
        beside = found.get("ours / published")
        return [
            case,
            f"{found['milliseconds']['contiguous']:,.0f} ms",
            f"{found['channels last / contiguous']:.2f}",
            found["layout"],
            "" if beside is None else f"{beside:.2f}",
        ]

    head = ["networks", "contiguous", "channels last / contiguous", "used", "used / published code"]
    return markdown(head, [row(case, found) for case, found in figures.items()])


def main(arguments: Sequence[str] | None = None) -> None:
    """Times every case and records the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds that are counted (default: 9)")
    parser.add_argument(
        "--published",
        type=Path,
        metavar="FOLDER",
        help="where junyanz/pytorch-CycleGAN-and-pix2pix or a fork of it is cloned",
    )
    parser.add_argument("--progress", type=Path, help="file that keeps results, to continue an interrupted benchmark")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    progress = Progress(options.progress)
    figures = {
        name: progress.take(name, partial(compare, case, options.rounds, options.published))
        for name, case in CASES.items()
    }
    record("layout", figures, " ".join((__doc__ or "").split()))


if __name__ == "__main__":
    main()
