import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from gan_audio.sound.drums import DRUMS, make_drums


@pytest.fixture(scope="module")
def drums():
    """Returns 200 sounds of 0.512 s, their labels, the frequencies in Hz `[bins]`, and power spectra `[200, bins]`."""
    audio, labels = make_drums(range(200))
    power = torch.fft.rfft(audio[:, 0]).abs().square()
    return audio[:, 0], labels, torch.fft.rfftfreq(8192, 1 / 16_000), power


def share(drums, name, low, high):
    """Returns the minimum share of the power between two frequencies over the sounds of a class."""
    _, labels, hz, power = drums
    chosen = power[labels == DRUMS.index(name)]
    return float((chosen[:, (hz >= low) & (hz < high)].sum(1) / chosen.sum(1)).min())


def test_a_sound_depends_only_on_its_number():
    every, labels = make_drums(range(40))
    some, their_labels = make_drums([33, 2, 17])
    assert torch.equal(some, every[[33, 2, 17]])
    assert torch.equal(their_labels, labels[[33, 2, 17]])
    assert labels.tolist() == [k % 5 for k in range(40)]


def test_a_sound_is_the_same_in_every_process():
    code = "from gan_audio.sound.drums import make_drums; print(make_drums([7, 123])[0].numpy().tobytes().hex())"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert bytes.fromhex(answer.stdout.strip()) == make_drums([7, 123])[0].numpy().tobytes()


def test_sounds_have_different_levels_and_end_in_silence(drums):
    audio, *_ = drums
    peaks = audio.abs().amax(dim=1)
    assert float(peaks.min()) > 0.34
    assert float(peaks.max()) < 0.96
    assert float(peaks.std()) > 0.1
    assert float(audio[:, -1].abs().max()) < 1e-3
    assert float(audio.mean(dim=1).abs().max()) < 0.05


def test_each_class_has_its_frequency_range(drums):
    assert share(drums, "kick", 20, 400) > 0.9
    assert share(drums, "tom", 60, 500) > 0.9
    assert share(drums, "hat", 2000, 8000) > 0.95
    assert share(drums, "clap", 250, 8000) > 0.9
    assert share(drums, "snare", 120, 500) > 0.02
    assert share(drums, "snare", 500, 8000) > 0.05


def test_the_sounds_of_a_class_differ(drums):
    audio, labels, *_ = drums
    for k in range(5):
        of_kind = audio[labels == k]
        alike = torch.corrcoef(of_kind) - torch.eye(len(of_kind))
        assert float(alike.abs().max()) < 0.99


def test_a_kicks_pitch_falls():
    audio = make_drums(range(0, 100, 5))[0][:, 0]
    early, late = (crossings(audio[:, part]) for part in (slice(0, 640), slice(3200, 6400)))
    assert (early > 1.5 * late).all()
    assert ((late > 30) & (late < 80)).all()


def crossings(audio):
    """Returns the frequency in Hz, from the number of sign changes."""
    return (audio.sign().diff(dim=1) != 0).sum(dim=1) * 16_000 / audio.shape[1] / 2


def test_a_clap_is_several_bursts():
    audio = make_drums(range(4, 100, 5))[0][:, 0]
    power = audio.square().unfold(1, 32, 16).mean(dim=2)[:, :50]  # every millisecond
    peaks = (power[:, 1:-1] > power[:, :-2]) & (power[:, 1:-1] >= power[:, 2:]) & (power[:, 1:-1] > 0.1 * power.amax())
    valleys = power[:, 2:25].amin(dim=1) / power.amax(dim=1)
    assert float(peaks.sum(dim=1).double().mean()) > 3
    assert float(valleys.median()) < 0.1


@pytest.mark.parametrize(("rate", "samples"), [(8000, 4096), (44_100, 22_050), (48_000, 1000), (4000, 77)])
def test_a_number_gives_the_same_drum_at_other_sample_rates(rate, samples):
    numbers = [0, 5, 3, 8]  # kicks and toms, which are nearly all tone
    audio, labels = make_drums(numbers, samples=samples, sample_rate=rate)
    assert audio.shape == (4, 1, samples)
    assert audio.abs().max() <= 1
    assert labels.tolist() == [0, 0, 3, 3]
    length = min(samples, round(0.512 * rate))
    stop = round(0.4 * length)  # before the fade, which is at the end of each
    reference = make_drums(numbers)[0][:, 0].double().numpy()
    times = np.arange(stop) / rate * 16_000
    for ours, theirs in zip(audio[:, 0, :stop].double().numpy(), reference, strict=True):
        alike = np.corrcoef(ours, np.interp(times, np.arange(8192), theirs))[0, 1]
        assert alike > 0.85


def test_sounds_are_silent_after_one_second():
    audio, _ = make_drums(range(10), samples=20_000)
    assert not audio[:, :, 16_000:].any()
    assert_close(audio[:, :, :16_000], make_drums(range(10), samples=16_000)[0], atol=0, rtol=0)
