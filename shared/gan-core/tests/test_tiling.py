"""Tiled inference equals inference on the whole item if the margins cover the network's receptive radius."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from gan_core.errors import InputError
from gan_core.nn.blocks import CONVOLUTIONS, TRANSPOSED
from gan_core.nn.tiling import Needs, Tiling, spans, tiled
from gan_core.nn.translators import ResNetTranslator, UNetTranslator


def strided(ndim: int) -> nn.Module:
    """Halves and doubles; an output depends on inputs up to 4 away, 1 + 1.5 + 1.5."""
    torch.manual_seed(0)
    return nn.Sequential(
        CONVOLUTIONS[ndim](2, 4, 3, padding=1, padding_mode="reflect"),
        nn.Tanh(),
        CONVOLUTIONS[ndim](4, 4, 4, stride=2, padding=1),
        nn.Tanh(),
        TRANSPOSED[ndim](4, 3, 4, stride=2, padding=1),
    )


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def whole(network: nn.Module, x: Tensor, multiple: int) -> Tensor:
    """The network on all of the item, extended by reflection and cropped."""
    sides = x.shape[2:]
    more = [amount for side in reversed(sides) for amount in (0, -side % multiple)]
    return network(F.pad(x, more, mode="reflect") if any(more) else x)[(..., *map(slice, sides))]


@pytest.mark.parametrize("blend", [0, 1, 4])
@pytest.mark.parametrize(
    ("shape", "tile"), [((101,), 24), ((64,), 24), ((50, 37), 24), ((48, 10), (24, 30)), ((42, 44, 9), (20, 22, 22))]
)
def test_tiles_with_margins_give_what_the_whole_gives(shape: tuple[int, ...], tile: Any, blend: int) -> None:
    network, x = strided(len(shape)), noise(2, 2, *shape)
    seen: list[tuple[int, ...]] = []

    def watched(part: Tensor) -> Tensor:
        seen.append(tuple(part.shape[2:]))
        return network(part)

    found = tiled(watched, x, Tiling(tile, margin=4, blend=blend, multiple=2))
    assert len(seen) > 1
    most = [tile] * len(shape) if isinstance(tile, int) else tile
    assert all(side <= limit for sides in seen for side, limit in zip(sides, most, strict=True))
    assert_close(found, whole(network, x, 2), atol=1e-5, rtol=1e-4)
    apart = tiled(network, x, Tiling(tile, margin=2, multiple=2))  # less than its receptive radius
    assert not torch.allclose(apart, whole(network, x, 2), atol=1e-3)


@pytest.mark.parametrize("ndim", [1, 2])
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize(
    ("kind", "settings", "tile"), [(ResNetTranslator, {"blocks": 1}, 56), (UNetTranslator, {"depth": 2}, 40)]
)
def test_translators_whose_reach_is_known_are_the_same_in_tiles(
    kind: type[nn.Module], settings: dict[str, Any], tile: int, norm: str, ndim: int
) -> None:
    torch.manual_seed(0)
    network: Any = kind(in_channels=1, out_channels=2, width=4, norm=norm, ndim=ndim, **settings)
    for part in network.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean, part.running_var = noise(part.num_features) / 4, noise(part.num_features).exp()
        elif isinstance(part, nn.modules.conv._ConvNd):
            part.weight.data.mul_(10)  # so that the outputs differ from place to place
    network.eval()
    x = noise(1, 1, *(93, 61)[:ndim])
    tiling = Needs.of([network]).tiling(tile)
    assert tiling.divides(x.shape[2:])
    assert (tiling.margin, tiling.blend) == (network.receptive_radius, 0)
    found, wanted = tiled(network, x, tiling), whole(network, x, network.multiple)
    assert wanted.std() > 0.01
    assert_close(found, wanted, atol=1e-3 * float(wanted.std()), rtol=0)


def test_instance_normalization_differs_in_tiles_and_has_no_reach() -> None:
    torch.manual_seed(0)
    network = ResNetTranslator(in_channels=1, out_channels=1, width=4, blocks=1).eval()
    assert network.receptive_radius is None
    x = noise(1, 1, 96, 96) * torch.linspace(0.1, 1, 96)
    found, wanted = tiled(network, x, Needs.of([network]).tiling(64)), whole(network, x, 4)
    assert (found - wanted).abs().mean() > 0.1 * wanted.std()


@pytest.mark.parametrize("blend", [0, 3])
@pytest.mark.parametrize("scale", [(3,), (2, 2), (1, 3)])
def test_larger_results_have_their_place(scale: tuple[int, ...], blend: int) -> None:
    x = noise(1, 2, *(41, 30)[: len(scale)])

    def larger(part: Tensor) -> Tensor:
        for axis, factor in enumerate(scale, start=2):
            part = part.repeat_interleave(factor, dim=axis)
        return part

    assert_close(tiled(larger, x, Tiling(16, margin=1, blend=blend)), larger(x))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_tiles_that_differ_are_faded_linearly_into_each_other(ndim: int) -> None:
    """A tile's result is its number along the first axis, plus 10, 100 times those along the others."""
    starts: list[dict[int, int]] = [{} for _ in range(ndim)]
    x = torch.stack(torch.meshgrid(*[torch.arange(32.0)] * ndim, indexing="ij"))[None]

    def numbered(part: Tensor) -> Tensor:
        total = 0.0
        for axis, known in enumerate(starts):
            start = int(part[:, axis].min())
            total += 10**axis * known.setdefault(start, len(known))
        return torch.full_like(part[:, :1], total)

    found = tiled(numbered, x, Tiling(20, blend=4))[0, 0]  # two tiles on each axis: the cut is at 16
    line = torch.tensor([0.0] * 14 + [0.125, 0.375, 0.625, 0.875] + [1.0] * 14)
    wanted = sum(
        10**axis * line.view([-1 if k == axis else 1 for k in range(ndim)]).expand([32] * ndim) for axis in range(ndim)
    )
    assert_close(found, wanted)


def test_all_tiles_start_at_multiples_cover_the_axis_and_are_large_enough() -> None:
    least = 8
    settings = itertools.product(range(8, 200, 8), (32, 44), (0, 3), (0, 2, 5), (1, 4))
    for size, tile, margin, blend, multiple in settings:
        found = spans(size, tile=tile, margin=margin, blend=blend, multiple=multiple, least=least)
        assert found[0].start == found[0].first == 0
        assert found[-1].stop == found[-1].last == size
        for span in found:
            assert span.start % multiple == span.stop % multiple == 0
            assert least <= span.stop - span.start <= tile
            assert span.stop - span.start == found[0].stop  # so that memory is used again
            assert span.start == 0 or span.first - span.start >= margin
            assert span.stop == size or span.stop - span.last >= margin
        for one, after in itertools.pairwise(found):
            assert one.last - after.first == blend
        for one, _, third in zip(found, found[1:], found[2:], strict=False):
            assert one.last <= third.first


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({"tile": 16, "margin": 8}, 17),
        ({"tile": 16, "blend": 8}, 24),
        ({"tile": 32, "margin": 5, "multiple": 16}, 48),
        ({"tile": 7, "least": 8}, 16),
    ],
)
def test_a_tile_that_is_too_small_is_refused_with_the_size_that_is_enough(settings: Any, least: int) -> None:
    with pytest.raises(InputError, match=rf"^a tile of \d+ is too small .*; make it {least} or more$"):
        spans(160, **settings)
    assert len(spans(160, **settings | {"tile": least})) > 1


def test_an_item_that_is_smaller_than_the_network_takes_is_extended_by_reflection() -> None:
    seen: list[Tensor] = []

    def kept(part: Tensor) -> Tensor:
        seen.append(part)
        return part

    x = torch.tensor([[[1.0, 2.0, 3.0]]])
    assert torch.equal(tiled(kept, x, Tiling(16, multiple=4, least=8)), x)
    assert seen[0].flatten().tolist() == [1, 2, 3, 2, 1, 2, 3, 2]
    assert tiled(kept, x[..., :1], Tiling(16, multiple=4)).flatten().tolist() == [1]
    assert seen[1].flatten().tolist() == [1, 1, 1, 1]


def test_a_file_is_read_and_written_part_by_part(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", noise(1, 1, 40, 40).numpy())
    source = np.load(tmp_path / "in.npy", mmap_mode="r")
    out = np.memmap(tmp_path / "out.raw", np.float32, "w+", shape=(1, 1, 80, 80))
    shown: list[tuple[int, int]] = []
    out[:] = np.nan  # what a buffer holds before does not matter
    doubled = tiled(
        lambda part: F.interpolate(part, scale_factor=2),
        source,
        Tiling(16, blend=4),
        out=out.reshape,
        show=lambda number, total: shown.append((number, total)),
    )
    assert_close(torch.from_numpy(np.array(doubled)), F.interpolate(torch.tensor(np.array(source)), scale_factor=2))
    assert shown == [(k, 16) for k in range(1, 17)]


def test_results_of_a_size_that_cannot_be_put_together_are_refused() -> None:
    with pytest.raises(InputError, match=r"^the network maps 14 to 12; tiling needs outputs"):
        tiled(nn.Conv1d(1, 1, 3), noise(1, 1, 40), Tiling(16))


def test_tiles_fit_what_the_networks_need() -> None:
    resnet, unet = ResNetTranslator(width=2, blocks=9, norm="batch"), UNetTranslator(width=2, depth=4)
    assert Needs.of([resnet]) == Needs(4, 8, 84)
    assert Needs.of([resnet, unet]) == Needs(16, 16, 84)
    assert Needs.of([resnet, nn.Conv2d(3, 3, 3)]) == Needs(4, 8, None)
    assert Needs.of([]).receptive_radius is None
    assert Needs.of([nn.Sequential(unet, nn.Tanh())]) == Needs(unet.multiple, unet.least, None)  # of its parts
    assert Needs.of([resnet]).tiling() == Tiling(512, margin=84, multiple=4, least=8)
    exact = Needs.of([resnet]).exact_from
    assert exact == 184
    assert Needs.of([resnet]).tiling(exact).margin == 84
    assert len(Needs.of([resnet]).tiling(exact).spans([1000])[0]) > 1
    assert Needs.of([resnet]).tiling(exact - 1) == Tiling(183, margin=11, blend=22, multiple=4, least=8)
    for depth in range(1, 11):  # the default fits to every U-Net
        tiling = Needs(2**depth, 2**depth, 3 * (2**depth - 1)).tiling()
        assert tiling.divides([4096, 100])
        assert not tiling.divides([512, 100])
