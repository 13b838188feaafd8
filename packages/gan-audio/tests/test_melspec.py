"""MelSpec: mels from noise, written with their contract and converted to sound by a vocoder."""

import json
import math
import sys

import pytest
import torch
from torch.testing import assert_close

import gan_audio
from gan_audio import DOMAIN
from gan_audio.mel.contract import CONTRACTS, MelSpectrogram
from gan_audio.mel.files import read_mel
from gan_audio.sound.drums import make_drums
from gan_audio.systems import melspec, specgan, wavegan
from gan_core.cli import main
from gan_core.errors import RecipeError
from gan_core.measure.metrics import sliced_wasserstein
from gan_core.play.regularizers import DiffAugment

CONTRACT = CONTRACTS["hifigan-22k"].but(sample_rate=8000, fft_size=128, window=128, hop=32, mels=20, high_hz=None)
NETWORK = {"mel": CONTRACT.model_dump(), "samples": 1024, "width": 8, "latent_dim": 8}


def make(**network):
    torch.manual_seed(0)
    return melspec.SMALL.but(network=NETWORK | network).build().eval()


def drums(count=256):
    return make_drums(range(count), samples=1024, sample_rate=8000)[0]


def test_samples_are_mels_of_the_contract():
    game = make(num_classes=3)
    game.spectrogram.mean.fill_(-11.5)
    mels = game.generate(6, seed=0, label=torch.arange(6) % 3)
    assert mels.shape == (6, 20, 32)
    assert float(mels.min()) == pytest.approx(math.log(CONTRACT.floor))  # some of it is below


def test_mels_are_standardised_and_inverted():
    game, audio = make(), drums()
    game.study(torch.utils.data.StackDataset(audio=audio))
    mels = MelSpectrogram(CONTRACT)(audio)
    assert_close(game.spectrogram.mean, mels.mean(dim=(0, 2)), atol=1e-4, rtol=1e-4)
    seen = game.spectrogram(audio)
    assert seen.shape == (256, 1, 32, 20)
    inside = mels.transpose(1, 2)[:, None].sub(game.spectrogram.mean).abs() < 2.9 * game.spectrogram.deviation
    assert inside.double().mean() > 0.95
    back = game.spectrogram.inverse(seen)
    assert_close(back.transpose(1, 2)[:, None][inside], mels.transpose(1, 2)[:, None][inside], atol=1e-4, rtol=1e-4)


def test_excess_bands_are_dropped_by_the_generator_and_padded_in_the_discriminator():
    """20 bands are rounded up to 32."""
    game = make()
    assert game.generator.start_size == (2, 2)
    assert game.generator(game.latent(2)).shape == (2, 1, 32, 20)
    logits = game.discriminator.network(torch.zeros(2, 1, 32, 20))
    assert_close(logits, super(melspec.Discriminator, game.discriminator.network).forward(torch.zeros(2, 1, 32, 32)))


@pytest.mark.parametrize(("samples", "nearest"), [(1000, 1024), (100, 512), (700, 512)])
def test_samples_without_a_multiple_of_16_frames_are_refused(samples, nearest):
    message = rf"^`samples` is {samples}; expected a multiple of 512, 16 hops of the mel\. Try {nearest}\.$"
    for network in (melspec.Generator, melspec.Discriminator):
        with pytest.raises(RecipeError, match=message):
            network(mel=CONTRACT, samples=samples)


@pytest.fixture
def gan(capsys, monkeypatch):
    """Runs `gan-audio WORDS…`: its exit status, standard output and standard error."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["gan-audio", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main(DOMAIN)
        return end.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Returns the folder of a run with 160 steps on drums."""
    folder = tmp_path_factory.mktemp("melspec") / "run"
    settings = {
        "train.sample_every": None,
        "train.checkpoint_every": None,
        "train.ema": None,
        "optimizer.learning_rate": 2e-3,
        "players.discriminator.turns": 2,
    }
    changes = {f"network.{key}": value for key, value in NETWORK.items()} | settings
    gan_audio.train("melspec", data="drums", out=folder, steps=160, changes=changes, shown=False)
    return folder


@pytest.mark.slow
def test_melspec_learns_mels(model):
    real = MelSpectrogram(CONTRACT)(drums(512)).flatten(1).numpy()
    untrained = make()
    untrained.study(torch.utils.data.StackDataset(audio=drums()))
    before, after = (
        sliced_wasserstein(real, game.generate(512, seed=0).flatten(1).numpy())
        for game in (untrained, gan_audio.load(model))
    )
    assert after < 0.7 * before


def test_mels_are_written_with_their_contract_and_vocoded(model, tmp_path, gan):
    mels = tmp_path / "mels"
    assert gan("generate", model, "-n", 2, "--out", mels)[0] == 0
    written = [read_mel(mels / f"0000{k}.mel.safetensors") for k in range(2)]
    assert_close(torch.cat([mel for mel, _ in written]), gan_audio.load(model).generate(2, seed=0))
    assert all(contract == CONTRACT for _, contract in written)
    vocoder, sound = tmp_path / "vocoder", tmp_path / "sound"
    small = {"width": 4, "depth": 1}
    torch.manual_seed(0)
    gan_audio.create("melgan", mel=CONTRACT.model_dump(), rates=(8, 4), generator=small).save_pretrained(vocoder)
    status, out, err = gan("vocode", vocoder, mels, "--out", sound, "--json")
    assert status == 0, err
    assert sorted(json.loads(out)["files"]) == [str(sound / f"0000{k}.wav") for k in range(2)]


def test_commands_for_sounds_are_refused_for_mels(model, tmp_path, gan):
    status, _, err = gan("interpolate", model, "--out", tmp_path / "a.wav")
    assert (status, err.strip().splitlines()[-1]) == (
        2,
        f"gan-audio: {tmp_path / 'a.wav'}: samples of melspec are not sounds; use a model that generates sounds",
    )
    status, _, err = gan("evaluate", model, "--data", "drums", "-n", 4, "--metrics", "spectrum")
    assert status == 2
    assert (
        "the metric `spectrum` measures sounds, but this model generates mels; convert them with `gan-audio vocode`"
        in err
    )


@pytest.mark.parametrize("preset", [melspec.SMALL, specgan.SMALL])
def test_image_augmentation_of_spectrograms_is_refused(preset):
    with pytest.raises(RecipeError, match=r"^`regularizers\.diffaugment` needs images, but the axes"):
        preset.but(regularizers=[DiffAugment()]).build()


def test_the_papers_training_is_specgans():
    ours, theirs = melspec.MELSPEC.recipe(), wavegan.WAVEGAN.recipe()
    assert (ours.optimizer, ours.players, ours.train) == (theirs.optimizer, theirs.players, theirs.train)
