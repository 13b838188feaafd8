"""Exported image networks compute the same in onnxruntime, at sizes other than those of the export."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

import gan_image
from gan_core.models.export import export_onnx
from gan_core.testing.onnx import run_onnx

for library in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(library)

SMALLER: dict[str, dict[str, Any]] = {
    "dcgan": {"image_size": 16, "num_classes": 10},
    "cgan": {},
    "sngan": {"image_size": 16, "num_classes": 3},
    "began": {},
    "infogan": {},
}


@pytest.mark.parametrize("system", SMALLER)
def test_generators_take_any_number_of_latents_and_classes(system, tmp_path):
    game = gan_image.create(system, **SMALLER[system]).eval()
    file = export_onnx(game, tmp_path / "g.onnx")
    assert file.difference < 1e-4
    assert file.outputs["samples"].values == "[-1, 1]"
    for count in (1, 7):
        inputs = {"z": game.latent(count)}
        if game.num_classes is not None:
            inputs["label"] = torch.arange(count).flip(0) % game.num_classes
        assert inputs.keys() == file.inputs.keys()
        with torch.no_grad():
            expected = game.generator(*inputs.values())
        assert_close(run_onnx(tmp_path / "g.onnx", **inputs)[0], expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("system", "network", "taken", "made", "multiple", "least"),
    [
        ("pix2pix", "generator", "source", "target", 16, 16),
        ("cyclegan", "a_to_b", "source", "target", 4, 8),
        ("cyclegan", "b_to_a", "target", "source", 4, 8),
    ],
)
def test_translators_take_images_of_any_size(system, network, taken, made, multiple, least, tmp_path):
    game, path = gan_image.create(system, source_channels=1, target_channels=3).eval(), tmp_path / "t.onnx"
    file = export_onnx(game, path, network)
    channels = {"source": 1, "target": 3}
    assert file.inputs[taken].shape == ("batch", channels[taken], "height", "width")
    assert file.outputs[made].shape == ("batch", channels[made], "height", "width")
    assert {(axis.multiple, axis.least) for name, axis in file.axes.items() if name != "batch"} == {(multiple, least)}
    for count, height, width in ((1, least, least), (2, 5 * multiple, 2 * least), (1, 4 * least, 9 * multiple)):
        images = torch.rand(count, channels[taken], height, width) * 2 - 1
        with torch.no_grad():
            expected = game.get_submodule(network)(images)
        assert_close(run_onnx(path, **{taken: images})[0], expected, atol=1e-4, rtol=1e-3)
