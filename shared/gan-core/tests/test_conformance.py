"""Augmentations agree with the published code."""

from pathlib import Path

import pytest
import torch

from gan_core.nn.augment import AugmentPipe, color, cutout, translation
from gan_core.testing import Fixture, find_fixtures


def diff_augment(fixture):
    images, *rest = fixture.make_inputs()
    *colors, rows, columns, cut_rows, cut_columns = rest
    shift, (height, width) = fixture.arguments["shift"], fixture.arguments["cutout"]

    def moved(x):
        return translation(x, rows - shift[0], columns - shift[1])

    def cut(x):
        return cutout(x, cut_rows, cut_columns, height=height, width=width)

    return [color(images, *colors), moved(images), cut(images), cut(moved(color(images, *colors)))]


def augment_pipe(fixture):
    (images,) = fixture.make_inputs()
    made = []
    for output in fixture.arguments["outputs"]:
        pipe = AugmentPipe(output["enabled"], quantile=output["percentile"])
        made.append(pipe(images))
    return made


TARGETS = {"diffaugment/augment": diff_augment, "ada/augment_pipe": augment_pipe}


@pytest.mark.parametrize("fixture", find_fixtures("core", Path(__file__).parent / "conformance"))
def test_conformance(fixture: Fixture) -> None:
    if fixture.network not in TARGETS:
        pytest.skip(f"gan-core has no `{fixture.network}` yet")
    fixture.check(TARGETS[fixture.network](fixture))


def test_the_filters_are_the_published_ones() -> None:
    (fixture,) = (
        p.values[0] for p in find_fixtures("core", Path(__file__).parent / "conformance") if p.id == "ada_augment_pipe"
    )
    pipe, published = AugmentPipe(), fixture.state_dict()
    torch.testing.assert_close(pipe.lowpass, published["Hz_geom"])
    torch.testing.assert_close(pipe.bands, published["Hz_fbank"])
