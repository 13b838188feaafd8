"""Networks, mel spectrograms and losses equal the published implementations.

Fixtures are read from `conformance/`, and from the folders in the environment variable `GAN_CONFORMANCE`.
"""

from pathlib import Path

import pytest
import torch
from torch import nn

import gan_audio
from gan_audio import DOMAIN
from gan_audio.layers.losses import magnitudes, multi_resolution_stft
from gan_audio.systems.wavegan import delayed
from gan_core.play.judgement import Judgement
from gan_core.testing import Fixture, find_fixtures, run_fixture


class Recorded(nn.Module):
    """Phase shuffle with recorded shifts, one per layer."""

    def __init__(self, shifts):
        super().__init__()
        self.shifts = list(shifts)

    def forward(self, x):
        return delayed(x, torch.tensor([self.shifts.pop(0)]))


def with_shifts(network, inputs, arguments):
    (wave,) = inputs
    if arguments.get("phases") is not None:
        network.shuffle = Recorded(arguments["phases"])
    logits = network(wave.transpose(1, 2))
    assert arguments.get("phases") is None or network.shuffle.shifts == []
    return [logits]


def melgan_discriminator(network, inputs, arguments):
    logits, features = network(*inputs)
    return [result for scale, last in zip(features, logits, strict=True) for result in (*scale, last[:, None])]


def hifigan_discriminator(network, inputs, arguments):
    """Returns the logits of all discriminators and then their features, or those of one discriminator."""
    logits, features = network(*inputs)
    if isinstance(logits, torch.Tensor):
        return [logits, *features]
    return [*logits, *(feature for one in features for feature in one)]


def hifigan_losses(network, inputs, arguments):
    """`inputs` are the logits of two discriminators for real and for generated audio, then their features."""
    real, fake = (Judgement(inputs[k : k + 2], [[one] for one in inputs[k + 4 : k + 6]]) for k in (0, 2))
    return [network(real, fake)]


def stft_loss(network, inputs, arguments):
    fake, other = (audio.double() for audio in inputs)
    real = 0.7 * fake.roll(3, dims=-1) + 0.3 * other
    resolutions = network.compute.keywords["resolutions"]
    apart = torch.cat([multi_resolution_stft(real, fake, [resolution]) for resolution in resolutions])
    return [network(real, fake), apart, magnitudes(fake, resolutions[0])]


def midinet_discriminator(network, inputs, arguments):
    """Returns probabilities, logits and the first layer's features; published bars have their channels last."""
    bar, chord = inputs[0].permute(0, 3, 1, 2), inputs[1]
    logits = network(bar, chord)[:, None]
    return [logits.sigmoid(), logits, network.features(bar, chord).permute(0, 2, 3, 1)]


ADAPTERS = {
    "wavegan/generator": lambda network, inputs, arguments: [network(*inputs).transpose(1, 2)],
    "wavegan/discriminator": with_shifts,
    "wavegan/phase_shuffle": lambda network, inputs, arguments: [
        delayed(inputs[0].transpose(1, 2), torch.tensor([shift])).transpose(1, 2) for shift in (2, -2, 1, -1, 0)
    ],
    "specgan/generator": lambda network, inputs, arguments: [network(*inputs).permute(0, 2, 3, 1)],
    "specgan/discriminator": lambda network, inputs, arguments: [network(inputs[0].permute(0, 3, 1, 2))],
    "melgan/audio2mel": lambda network, inputs, arguments: [network.filterbank, network(*inputs)],
    "melgan/discriminator": melgan_discriminator,
    "hifigan/mel_spectrogram": lambda network, inputs, arguments: [network(inputs[0][:, None])],
    "hifigan/mel_spectrogram_loss": lambda network, inputs, arguments: [network(inputs[0][:, None])],
    "hifigan/mpd": hifigan_discriminator,
    "hifigan/msd": hifigan_discriminator,
    "hifigan/losses": hifigan_losses,
    "midinet/generator": lambda network, inputs, arguments: [
        network(*inputs[:2], inputs[2].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    ],
    "midinet/discriminator": midinet_discriminator,
}


@pytest.mark.parametrize("fixture", find_fixtures("audio", Path(__file__).parent / "conformance"))
def test_conformance(fixture: Fixture) -> None:
    if fixture.network.startswith("parallel-wavegan/multi_resolution"):  # a loss that belongs to no system
        loss = gan_audio.load_reference(fixture.network, fixture.state_dict(), **fixture.arguments)
        fixture.check(stft_loss(loss, fixture.make_inputs(), fixture.arguments))
    else:
        run_fixture(DOMAIN, fixture, ADAPTERS)
