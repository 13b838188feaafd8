"""Exported audio networks compute the same in ONNX Runtime, also for lengths other than those of the export."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn.utils.parametrize import is_parametrized
from torch.testing import assert_close

import gan_audio
from gan_audio.mel.contract import MelContract
from gan_core.models.export import export_onnx
from gan_core.testing.onnx import read_metadata, run_onnx

for library in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(library)


NETWORKS = {
    "hifigan": {"sizes": (3,), "dilations": ((1, 3),)},
    "melgan": {"generator": {"width": 16, "depth": 1}},
    "bigvgan": {"sizes": (3,), "dilations": ((1,),)},
}
"""Network settings that make the small presets smaller, since exporting a layer takes most of the time."""


@pytest.mark.parametrize("system", NETWORKS)
def test_vocoders_take_mels_of_any_length(system, tmp_path):
    game, path = gan_audio.create(system, **NETWORKS[system]), tmp_path / "vocoder.onnx"
    file = export_onnx(game, path)
    bands, hop, least = game.contract.mels, game.contract.hop, game.generator.min_frames
    assert file.inputs["mel"].shape == ("batch", bands, "frames")
    assert file.outputs["audio"].shape == ("batch", 1, f"{hop}*frames")
    assert file.axes["frames"].least == least
    for count, frames in ((1, least), (3, 50), (1, 131)):
        mel = torch.randn(count, bands, frames)
        assert_close(run_onnx(path, mel=mel)[0], game.vocode(mel), atol=1e-4, rtol=1e-3)
    facts = read_metadata(path)
    assert facts["sample_rate"] == str(game.contract.sample_rate)
    assert MelContract.model_validate(json.loads(facts["mel"])) == game.contract
    normalised = [any(map(is_parametrized, one.modules())) for one in (game.exports()["generator"].network, game)]
    assert normalised == [False, True]  # only the exported copy has no weight normalisation


def test_exported_mel_generators_return_mels_of_the_contract(tmp_path):
    game, path = gan_audio.create("melspec", num_classes=4), tmp_path / "mels.onnx"
    game.spectrogram.mean.normal_()
    export_onnx(game, path)
    z, label = game.latent(5), torch.tensor([3, 0, 1, 1, 2])
    with torch.no_grad():
        expected = game.eval().spectrogram.inverse(game.generator(z, label))
    assert_close(run_onnx(path, z=z, label=label)[0], expected, atol=1e-4, rtol=1e-3)
    assert MelContract.model_validate(json.loads(read_metadata(path)["mel"])) == game.contract


def test_exported_generators_store_their_sample_rate(tmp_path):
    file = export_onnx(gan_audio.create("wavegan"), tmp_path / "sounds.onnx")
    assert file.inputs["z"].values == "uniform in [-1, 1]"
    assert file.outputs["samples"].shape == ("batch", 1, 4096)
    assert read_metadata(tmp_path / "sounds.onnx")["sample_rate"] == "8000"


def test_the_exported_midinet_takes_a_chord_and_the_previous_bar(tmp_path):
    game, path = gan_audio.create("midinet").eval(), tmp_path / "bars.onnx"
    file = export_onnx(game, path)
    assert list(file.inputs) == ["z", "chord", "previous"]
    inputs = {"z": torch.randn(4, 32), "chord": torch.eye(13)[:4], "previous": torch.rand(4, 1, 16, 128).round()}
    with torch.no_grad():
        expected = game.generator(*inputs.values())
    assert_close(run_onnx(path, **inputs)[0], expected, atol=1e-4, rtol=1e-3)
