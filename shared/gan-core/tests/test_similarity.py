"""Measures of pairs by their closed form: a known error, a known shift, hand-made heads."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from gan_core.errors import CheckpointError, InputError
from gan_core.measure.similarity import LPIPS, SMALLEST_MULTISCALE, load_lpips, ms_ssim, psnr, ssim


def noise(size: int, *, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def blurred(images: Tensor, times: int) -> Tensor:
    for _ in range(times):
        images = nn.functional.avg_pool2d(nn.functional.pad(images, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    return images


def test_psnr_of_a_known_error_is_computed_for_each_pair():
    a = torch.zeros(2, 3, 4, 4)
    b = a + torch.tensor([0.2, 0.02])[:, None, None, None]  # 0.1 and 0.01 on [0, 1]
    assert_close(psnr(a, b), torch.tensor([20.0, 40.0]), check_dtype=False, atol=1e-4, rtol=0)
    assert psnr(a, a).tolist() == [math.inf, math.inf]


def test_ssim_of_flat_images_is_its_luminance_term():
    a, b = torch.full((2, 1, 16, 16), -0.2), torch.full((2, 1, 16, 16), 0.4)  # 0.4 and 0.7 on [0, 1]
    expected = (2 * 0.4 * 0.7 + 0.01**2) / (0.4**2 + 0.7**2 + 0.01**2)  # variances are 0: the second factor is 1
    assert_close(ssim(a, b), torch.full((2,), expected), check_dtype=False, atol=1e-6, rtol=0)


def by_definition(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and its second factor on [0, 255], written out, where the window fits."""
    gauss = torch.exp(-((torch.arange(11.0, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = torch.outer(gauss, gauss)[None, None] / gauss.sum() ** 2

    def mean(x: Tensor) -> Tensor:
        return nn.functional.conv2d(x.flatten(0, 1)[:, None], window)[:, 0].unflatten(0, x.shape[:2])

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    spread = mean(a * a) + mean(b * b) - mean(a) ** 2 - mean(b) ** 2
    contrast = (2 * (mean(a * b) - mean(a) * mean(b)) + c2) / (spread + c2)
    light = (2 * mean(a) * mean(b) + c1) / (mean(a) ** 2 + mean(b) ** 2 + c1)
    return (light * contrast).mean((1, 2, 3)), contrast.mean((1, 2, 3))


def test_ssim_follows_its_definition():
    a, b = noise(20), blurred(noise(20), 1)
    expected, _ = by_definition((a.double() + 1) * 127.5, (b.double() + 1) * 127.5)
    assert_close(ssim(a, b), expected, atol=1e-9, rtol=1e-9)


def test_ms_ssim_follows_its_definition():
    a = noise(181)  # an odd side: its last row has no place in the next scale
    x, y = ((images.double() + 1) * 127.5 for images in (a, blurred(a, 1)))
    expected = torch.ones(2, dtype=torch.float64)
    for k, exponent in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        expected *= by_definition(x, y)[k < 4] ** exponent
        x, y = nn.functional.avg_pool2d(x, 2), nn.functional.avg_pool2d(y, 2)
    assert_close(ms_ssim(a, blurred(a, 1)), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("measure", [ssim, ms_ssim])
def test_equal_images_have_the_highest_similarity_and_order_does_not_matter(measure):
    a = noise(SMALLEST_MULTISCALE)
    b = blurred(a, 1)
    assert_close(measure(a, a), torch.ones(2), check_dtype=False, atol=1e-6, rtol=0)
    assert_close(measure(a, b), measure(b, a))


def test_ms_ssim_decreases_with_blur():
    a = noise(SMALLEST_MULTISCALE)
    first, second, third = (ms_ssim(a, blurred(a, times)) for times in (1, 2, 4))
    assert (first > second + 0.01).all()
    assert (second > third + 0.01).all()


@pytest.mark.parametrize(("measure", "smallest"), [(ssim, 11), (ms_ssim, 176)])
def test_images_that_are_too_small_are_refused(measure, smallest):
    enough = noise(smallest)
    assert measure(enough, enough).shape == (2,)
    small = noise(smallest - 1)
    message = f"needs images of at least {smallest}x{smallest} pixels; these are {smallest - 1}x{smallest - 1}"
    with pytest.raises(InputError, match=message):
        measure(small, small)


def test_clips_are_means_of_their_frames_and_psnr_takes_any_number_of_axes():
    a, b = (torch.stack([noise(16, seed=seed + k) for k in range(3)], dim=2) for seed in (0, 10))  # [2, 3, 3, 16, 16]
    assert_close(ssim(a, b), torch.stack([ssim(a[:, :, k], b[:, :, k]) for k in range(3)]).mean(0))
    assert_close(psnr(a, b), psnr(a.flatten(2), b.flatten(2)))
    volume = a[:, :1]
    assert ssim(volume, volume).tolist() == pytest.approx([1.0, 1.0])
    with pytest.raises(InputError, match="needs images of at least 11x11 pixels; these are 8x16"):
        ssim(a[..., :8], b[..., :8])


# --- LPIPS


def identity(channels: int = 3) -> nn.Sequential:
    layer = nn.Conv2d(channels, channels, 1, bias=False)
    layer.weight.data.copy_(torch.eye(channels)[:, :, None, None])
    return nn.Sequential(layer, nn.Identity())


def of_colour(*values: float) -> Tensor:
    """A flat image whose scaled pixels are `values`."""
    scale, shift = torch.tensor(LPIPS.SCALE), torch.tensor(LPIPS.SHIFT)
    return (torch.tensor(values) * scale + shift)[None, :, None, None].expand(1, 3, 32, 32)


def test_lpips_of_hand_made_heads():
    network = LPIPS(identity(), (1, 2), [torch.tensor([1.0, 10.0, 100.0]), torch.tensor([0.0, 2.0, 0.0])])
    a, b = of_colour(3.0, 4.0, 0.0), of_colour(0.0, 0.0, 7.0)  # of unit length: (0.6, 0.8, 0) and (0, 0, 1)
    first, second = 0.36 + 10 * 0.64 + 100, 2 * 0.64
    assert_close(network(a, b), torch.tensor([first + second]))
    assert_close(network(a, b), network(b, a))
    assert network(a, a).tolist() == [0.0]


def test_lpips_averages_over_places():
    network = LPIPS(identity(), (1,), [torch.ones(3)])
    a = of_colour(1.0, 0.0, 0.0).clone()
    b = a.clone()
    b[..., :8] = of_colour(0.0, 1.0, 0.0)[..., :8]  # a quarter of the places, each 2 apart
    assert_close(network(a, b), torch.tensor([0.5]))


def heads(*widths: int) -> dict[str, Tensor]:
    return {f"lin{k}.model.1.weight": torch.full((1, width, 1, 1), 0.1) for k, width in enumerate(widths)}


def test_published_files_are_recognised_by_their_keys(tmp_path):
    import torchvision

    torch.manual_seed(0)
    alexnet = torchvision.models.alexnet(weights=None).features
    torch.save(heads(64, 192, 384, 256, 256), tmp_path / "alex.pth")
    torch.save({f"features.{key}": value for key, value in alexnet.state_dict().items()}, tmp_path / "alexnet.pth")
    files = [tmp_path / "alexnet.pth", tmp_path / "alex.pth"]
    a, b = noise(32, seed=1), noise(32, seed=2)
    network = load_lpips(files)
    assert_close(network(a, b), load_lpips(files[::-1])(a, b))
    assert (network(a, b) > 0.01).all()
    grey = noise(32, channels=1)
    assert_close(network(grey, -grey), network(grey.expand(-1, 3, -1, -1), -grey.expand(-1, 3, -1, -1)))

    # by hand, with AlexNet's own layers: the activations after the five ReLUs
    def taps(x: Tensor) -> list[Tensor]:
        x, found = (x - torch.tensor(LPIPS.SHIFT)[:, None, None]) / torch.tensor(LPIPS.SCALE)[:, None, None], []
        for layer in alexnet[:12]:  # the last pooling is not used
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                found.append(nn.functional.normalize(x.clone(), dim=1, eps=1e-10))
        return found

    with torch.no_grad():
        by_hand = sum(0.1 * (x - y).square().sum(1).mean((1, 2)) for x, y in zip(taps(a), taps(b), strict=True))
    assert_close(network(a, b), by_hand)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (heads(64, 192), "lpips needs its linear heads"),
        (heads(1, 2, 3, 4, 5), r"the heads have the widths \[1, 2, 3, 4, 5\]"),
        (heads(64, 128, 256, 512, 512), "the heads belong to vgg16, whose weights are missing"),
        (heads(64, 192, 384, 256, 256) | {"features.0.weight": torch.zeros(1)}, "does not fit"),
    ],
)
def test_unsuitable_weights_are_refused(tmp_path, weights, words):
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=words):
        load_lpips([tmp_path / "weights.pth"])
