"""Augmentations: their effects, their frequencies, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from gan_core import draws
from gan_core.errors import RecipeError
from gan_core.nn.augment import AdaptiveStrength, AugmentPipe, adaptive, color, cutout, diff_augment, translation
from gan_core.nn.augment.adaptive import GROUPS

CPU = torch.device("cpu")
EVERYTHING = ("blit", "geom", "color", "filter", "noise", "cutout")


def images(count: int = 6, *, channels: int = 3, height: int = 16, width: int = 16) -> Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def pipe(*transforms: str, p: float = 1.0, quantile: float | None = None) -> AugmentPipe:
    made = AugmentPipe(transforms, quantile=quantile)
    made.p.fill_(p)
    return made


# DiffAugment.


def test_colours_are_changed_in_the_published_order() -> None:
    gray = torch.full((1, 3, 2, 2), 0.25)
    one, half = torch.ones(1), torch.full((1,), 0.5)
    assert_close(color(gray, one, half, half), gray + 0.5)
    assert_close(color(images(1), half, half, half), images(1))
    assert_close(color(images(1), half, torch.zeros(1), half), images(1).mean(dim=1, keepdim=True).expand(1, 3, 16, 16))
    flat = color(images(1), half, half, torch.full((1,), -0.5))
    assert_close(flat, images(1).mean().expand_as(flat))


def test_a_shifted_image_is_zero_outside_of_the_original() -> None:
    moved = translation(images(2), torch.tensor([2, -3]), torch.tensor([0, 1]))
    assert torch.equal(moved[0, :, :14], images(2)[0, :, 2:])
    assert (moved[0, :, 14:] == 0).all()
    assert torch.equal(moved[1, :, 3:, :15], images(2)[1, :, :13, 1:])
    assert (moved[1, :, :3] == 0).all()
    assert (moved[1, :, :, 15:] == 0).all()


def test_a_rectangle_is_cut_out() -> None:
    white = torch.ones(2, 1, 8, 8)
    cut = cutout(white, torch.tensor([4, 0]), torch.tensor([4, 8]), height=4, width=4)
    assert cut[0].sum() == 64 - 16
    assert (cut[0, 0, 2:6, 2:6] == 0).all()
    assert (cut[1, 0, :2, 6:] == 0).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_image_is_changed_differently(channels: int) -> None:
    same = images(1, channels=channels, width=12).expand(8, -1, -1, -1)
    changed = diff_augment(same)
    assert changed.shape == same.shape
    assert len({tuple(image.flatten().tolist()) for image in changed}) == 8


@pytest.mark.parametrize(("size", "count"), [(8, 9), (6, 6)])
def test_every_place_is_cut_out_equally_often(size: int, count: int) -> None:
    """The rectangle has half the size, 4 or 3 pixels, and its centre is any pixel, or the end of an even axis."""
    torch.manual_seed(0)
    cut = diff_augment(torch.ones(4000, 1, size, 24), ("cutout",)) == 0
    rows = cut.any(dim=3)[:, 0]
    places, times = rows.unique(dim=0, return_counts=True)
    assert len(places) == count
    assert (times - 4000 / count).abs().max() < 4 * (4000 / count) ** 0.5
    columns, times = cut.any(dim=2)[:, 0].unique(dim=0, return_counts=True)
    assert len(columns) == 25
    assert (times - 4000 / 25).abs().max() < 4 * (4000 / 25) ** 0.5


def test_every_shift_happens_equally_often() -> None:
    """Shifts are whole pixels up to an eighth of the size, 2 rows and 3 columns."""
    torch.manual_seed(0)
    black = diff_augment(torch.ones(4000, 1, 16, 24), ("translation",)) == 0
    for axis, count in ((3, 5), (2, 7)):
        places, times = black.all(dim=axis)[:, 0].unique(dim=0, return_counts=True)
        assert len(places) == count
        assert (times - 4000 / count).abs().max() < 4 * (4000 / count) ** 0.5


def test_augmentation_does_not_depend_on_how_a_batch_is_divided() -> None:
    made = pipe(*EVERYTHING, p=0.7)

    def part(start: int, rows: int) -> Tensor:
        with draws.drawing(3, CPU, start=start, rows=rows, total=32):
            return made(diff_augment(images(32)[start : start + rows]))

    whole = part(0, 32)
    assert_close(torch.cat([part(0, 16), part(16, 16)]), whole, atol=2e-5, rtol=0)
    assert not torch.allclose(whole, images(32))


@pytest.mark.parametrize("transforms", [("blit", "geom"), ("color",), ("filter",), ("cutout",)])
def test_gradients_of_the_pipe_are_those_of_finite_differences(transforms: tuple[str, ...]) -> None:
    made = pipe(*transforms).double()
    x = images(2, height=6, width=6).double().requires_grad_()

    def changed(x: Tensor) -> Tensor:
        with draws.drawing(5, CPU, rows=2, total=2):
            return made(x)

    assert torch.autograd.gradcheck(changed, x)


def test_a_penalty_on_gradients_can_be_taken_through_the_pipe() -> None:
    made = pipe("blit", "geom", "color").double()
    x = images(1, height=5, width=5).double().requires_grad_()

    def judged(x: Tensor) -> Tensor:
        with draws.drawing(5, CPU):
            return made(x).square()

    assert torch.autograd.gradgradcheck(judged, x)


# ADA.


def test_at_strength_zero_images_do_not_change() -> None:
    assert torch.equal(pipe("color", "noise", "cutout", p=0.0)(images()), images())
    assert_close(pipe("blit", "geom", p=0.0)(images()), images(), atol=0.25, rtol=0)  # two low-pass filters
    smooth = torch.linspace(-1, 1, 16).expand(1, 3, 16, 16)
    assert_close(pipe("blit", "geom", p=0.0)(smooth)[..., 2:-2], smooth[..., 2:-2], atol=5e-3, rtol=0)


def test_flips_and_quarter_turns_are_those_of_the_image() -> None:
    smooth = torch.nn.functional.interpolate(images(1, height=4, width=4), 16, mode="bicubic")
    plain = pipe("xflip", quantile=0.2)(smooth)
    assert_close(pipe("xflip", quantile=0.8)(smooth), plain.flip(3), atol=0.06, rtol=0)
    assert_close(pipe("rotate90", quantile=0.3)(smooth), plain.rot90(1, (2, 3)), atol=0.06, rtol=0)
    assert_close(pipe("rotate90", quantile=0.6)(smooth), plain.rot90(2, (2, 3)), atol=0.06, rtol=0)
    moved = pipe("xint", quantile=1.0)(smooth)  # by an eighth of 16 pixels to the right and down
    assert_close(moved[..., 2:, 2:], plain[..., :-2, :-2], atol=0.06, rtol=0)
    assert_close(moved[..., :2, 2:], plain[..., 1:3, :-2].flip(2), atol=0.06, rtol=0)  # the border is a mirror


@pytest.mark.parametrize("p", [0.3, 0.8])
def test_a_transform_is_applied_with_the_probability_of_the_strength(p: float) -> None:
    torch.manual_seed(0)
    many = images(1, channels=1, height=4, width=4).expand(4000, -1, -1, -1)
    for name, share in (("brightness", p), ("lumaflip", p / 2), ("cutout", p)):
        changed = (pipe(name, p=p)(many) != many).flatten(1).any(dim=1).float().mean()
        assert abs(float(changed) - share) < 0.03, name


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["diffaugment", *GROUPS])
def test_all_frames_of_a_clip_are_augmented_alike(name: str, channels: int) -> None:
    clip = images(8, channels=channels, width=12)[:, :, None].expand(-1, -1, 5, -1, -1)
    augment = diff_augment if name == "diffaugment" else pipe(name)
    torch.manual_seed(0)
    frames = augment(clip)
    assert frames.shape == clip.shape
    assert_close(frames, frames[:, :, :1].expand_as(frames))
    assert not torch.allclose(frames, clip)
    torch.manual_seed(0)
    assert_close(augment(clip[:, :, 0]), frames[:, :, 0], atol=1e-5, rtol=1e-4)  # as an image by the same draws


def test_half_of_the_selected_images_are_flipped() -> None:
    torch.manual_seed(0)
    flipped = pipe("xflip", p=0.6).geometry(images(1).expand(4000, -1, -1, -1))[:, 0, 0] == -1
    assert abs(float(flipped.float().mean()) - 0.3) < 0.03


def test_both_rotations_together_have_the_probability_of_the_strength() -> None:
    torch.manual_seed(0)
    made = pipe("rotate", p=0.6)
    upright = (made.geometry(images(1).expand(4000, -1, -1, -1)) == torch.eye(3)).flatten(1).all(dim=1)
    assert abs(float(upright.float().mean()) - 0.4) < 0.03


def test_hue_and_saturation_do_not_change_gray() -> None:
    gray = images(4, channels=1).expand(-1, 3, -1, -1)
    assert_close(pipe("hue", "saturation")(gray), gray, atol=1e-5, rtol=0)
    assert torch.equal(pipe("hue", "saturation")(gray[:, :1]), gray[:, :1])


def test_bands_sum_to_the_identity_and_the_filter_keeps_the_expected_power() -> None:
    made = pipe("filter")
    impulse = torch.zeros(43)
    impulse[21] = 1
    assert_close(made.bands.sum(dim=0), impulse, atol=1e-6, rtol=0)
    assert_close(pipe("filter", p=0.0)(images()), images(), atol=1e-5, rtol=0)
    gain = 2 ** float(torch.erfinv(torch.tensor(0.8)))  # the same in all bands, each of which is divided by its power
    powers = [(1 - share + share * gain**2) ** 0.5 for share in made.power.tolist()]
    assert_close(pipe("filter", quantile=0.9)(images()), images() * (gain / math.prod(powers)) ** 2, atol=1e-5, rtol=0)


def test_images_may_be_small_and_not_square() -> None:
    torch.manual_seed(0)
    for height, width in ((8, 20), (20, 8)):
        small = images(4, height=height, width=width)
        assert pipe(*EVERYTHING)(small).shape == small.shape


def test_wider_margins_than_needed_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On accelerators the margins are always the widest, since computing them would wait for the device."""
    made, given = pipe("blit", "geom", p=0.8), images(16, height=12, width=20)
    torch.manual_seed(0)
    narrow = made(given)
    monkeypatch.setattr(adaptive, "margins", lambda inverse, height, width, border: (19, 11, 19, 11))
    torch.manual_seed(0)
    assert_close(made(given), narrow, atol=5e-5, rtol=0)


def test_the_pipeline_computes_in_full_precision() -> None:
    made, given = pipe(*EVERYTHING, p=0.8), images().bfloat16()

    def changed(x: Tensor) -> Tensor:
        with draws.drawing(3, CPU, rows=6, total=6):
            return made(x)

    exact = changed(given.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(changed(given.float()), exact)
        assert torch.equal(changed(given), exact.bfloat16())


def test_unknown_transforms_and_other_channels_are_refused() -> None:
    with pytest.raises(RecipeError, match="unknown transform `colour`; did you mean `color`"):
        AugmentPipe(("blit", "colour"))
    with pytest.raises(RecipeError, match="1 or 3 channels, but these have 4"):
        AugmentPipe()(images(channels=4))
    with pytest.raises(RecipeError, match="unknown transform `cut_out`; did you mean `cutout`"):
        diff_augment(images(), ("cut_out",))


def test_the_strength_follows_the_sign_of_the_real_logits() -> None:
    strength, p = AdaptiveStrength(target=0.6, speed=1000, interval=2), torch.zeros(())
    seen = []
    for sign in (1.0, 1.0, 1.0, 0.4, 0.0, 0.0, 0.0, 0.0, 0.9, 0.9):
        strength.update(p, torch.tensor(sign), 10)
        seen.append(round(float(p), 4))
    assert seen == [0, 0.02, 0.02, 0.04, 0.04, 0.02, 0.02, 0.0, 0.0, 0.02]
    for _ in range(4):
        strength.update(p, torch.tensor(-1.0), 10)
    assert float(p) == 0  # not lower


def test_the_strength_is_part_of_the_state() -> None:
    made = pipe("color", p=0.4)
    again = AugmentPipe(("color",))
    again.load_state_dict(made.state_dict())
    assert float(again.p) == pytest.approx(0.4)


def test_a_strength_restored_within_an_interval_continues_as_before() -> None:
    strength, p = AdaptiveStrength(speed=1000), torch.full((), 0.5)
    for sign in (0.9, 0.9, 0.8):
        strength.update(p, torch.tensor(sign), 10)
    again = AdaptiveStrength(speed=1000)
    again.load_state_dict(strength.state_dict())
    again.update(p, torch.tensor(-0.3), 10)  # the mean of the four is 0.575
    assert float(p) == pytest.approx(0.46)
