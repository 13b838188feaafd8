"""Metrics of sounds, on samples whose figures are known."""

import math
import subprocess
import sys
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from gan_audio import DOMAIN
from gan_audio.measure import classifier, extractors
from gan_audio.measure.classifier import LogMel
from gan_audio.measure.distances import (
    f0_error,
    log_spectral_distance,
    mel_cepstral_distortion,
    mel_cepstrum,
    multi_resolution_stft_distance,
)
from gan_audio.measure.extractors import MAX_LEARNED
from gan_audio.measure.measures import Spectrum, sliced_wasserstein
from gan_audio.mel.contract import slaney_hz, slaney_mel
from gan_audio.metrics import EXTRACTORS, METRICS
from gan_audio.sound.drums import make_drums
from gan_audio.sound.sources import DrumSource
from gan_audio.sound.spec import SoundSpec
from gan_audio.systems import wavegan
from gan_core.cards import resolve
from gan_core.data import FittedData, FixedSource, Spec, TensorDataset, some
from gan_core.errors import InputError
from gan_core.measure.evaluation import Evaluation
from gan_core.measure.features import Extracted, Extractors, fid, inception_score
from gan_core.measure.measures import Recognition
from gan_core.play.game import Game
from gan_core.testing import measured

RATE = 8000


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def voice(hz, samples=8000, rate=16_000):
    """A sound of many harmonics."""
    time = torch.arange(samples, dtype=torch.float64) / rate
    return 0.2 * sum(torch.sin(2 * torch.pi * k * hz * time) / k for k in range(1, 8))


# --- the metrics of a domain


@pytest.fixture(scope="module", autouse=True)
def _learn_less():
    """400 drums need fewer than 400 steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "STEPS", 120)
        yield


@pytest.fixture(scope="module")
def source():
    return DrumSource(name="drums", count=400)


@pytest.fixture(scope="module")
def dataset(source):
    return source.fit(SoundSpec(samples=4096, sample_rate=RATE))


@pytest.fixture(scope="module")
def unseen():
    """200 further drums, of class `i % 5` at `i`."""
    return make_drums(range(400, 600), samples=4096, sample_rate=RATE)[0]


@pytest.fixture(scope="module")
def extractor(source, dataset):
    """The classifier of the drums, trained once."""
    return Extractors(EXTRACTORS, dataset, source.facts, "audio")("classifier")


@pytest.fixture(scope="module")
def recognised(source, dataset, extractor):
    """The metric `recognition` of samples."""
    every = {"classifier": extractor}
    return lambda samples: measured(Recognition, samples, dataset, source.facts, extractors=every.__getitem__)


def test_real_drums_are_recognised(recognised, unseen):
    figures = recognised(unseen)
    assert figures["accuracy"] > 0.97
    assert figures["classes_found"] == 5
    assert figures["accuracy_on_real"] > 0.97


def test_drums_in_the_wrong_order_and_noise_are_not_recognised(recognised, unseen):
    assert recognised(unseen.roll(1, dims=0))["accuracy"] < 0.02
    one_kind = recognised(unseen[3].expand(100, -1, -1))
    assert (one_kind["accuracy"], one_kind["classes_found"]) == (0.2, 1)
    assert recognised(noise(100, 1, 4096))["accuracy"] == pytest.approx(0.2)


def test_the_classifier_is_an_extractor_of_features(extractor, dataset, unseen):
    features, logits = extractor(unseen)
    assert features.shape == (200, 48)
    assert (logits.argmax(dim=1) == torch.arange(200) % 5).double().mean() > 0.97
    assert "8,000 Hz" in extractor.protocol["input"]

    def extracted(samples):
        return Extracted(*(each.numpy() for each in extractor(samples)))

    real = extracted(some(dataset, MAX_LEARNED)["audio"])
    assert 0 <= fid(real, extracted(unseen))["fid"] < 0.1 * fid(real, extracted(noise(200, 1, 4096)))["fid"]
    assert inception_score(real, extracted(unseen))["inception_score"] > 4.5  # of 5
    assert inception_score(real, extracted(unseen[::5]))["inception_score"] < 1.1


def test_the_classifier_is_the_same_every_time(source, dataset, extractor, unseen, tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_DATA_HOME", str(tmp_path))  # where the first is not kept
    again = extractors.classifier(None, None, dataset, source.facts, "audio")
    assert again.protocol == extractor.protocol
    assert_close(again(unseen.expand(-1, 2, -1)).features, extractor(unseen).features, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="accepts neither an argument nor `--weights`"):
        extractors.classifier("x", None, dataset, source.facts, "audio")
    with pytest.raises(InputError, match=r"the extractor takes sounds \[B, channels, samples\]$"):
        extractors.checked(torch.zeros(2, 2))
    with pytest.raises(InputError, match=r"^the samples have non-finite values; check the model that generated them$"):
        extractors.checked(torch.full((1, 1, 4096), torch.nan))


def test_without_labels_the_bands_are_features(source, dataset, unseen):
    extractor = extractors.spectrogram(None, None, dataset, source.facts, "audio")
    features, logits = extractor(unseen)
    assert (features.shape, logits) == ((200, 128), None)
    louder = extractor(unseen / 2).features - features
    assert_close(
        louder[:, :64].amin(), torch.tensor(-math.log(2)), atol=1e-3, rtol=0
    )  # if all bands are above the floor
    assert extractor.protocol["features"] == "mean and deviation over time of each band, 128"


def test_the_mean_spectrum_of_softer_drums_differs_by_the_gain(source, dataset):
    real = some(dataset, 400)["audio"]
    assert measured(Spectrum, real, dataset, source.facts)["spectrum"] == pytest.approx(0, abs=1e-6)
    assert measured(Spectrum, real / 2, dataset, source.facts)["spectrum"] == pytest.approx(
        20 * math.log10(2), abs=0.05
    )
    assert 0 < measured(Spectrum, real, dataset, source.facts)["spectrum_of_real"] < 3


def test_the_sliced_distance_of_the_data_is_zero(source, dataset, unseen):
    real = some(dataset, 400)["audio"]
    figures = measured(sliced_wasserstein, real, dataset, source.facts)
    assert figures["sliced_wasserstein"] == pytest.approx(0, abs=1e-6)
    apart = measured(sliced_wasserstein, noise(200, 1, 4096), dataset, source.facts)["sliced_wasserstein"]
    assert apart > 3 * figures["sliced_wasserstein_of_real"] > 0


@pytest.mark.parametrize(("samples", "rate"), [(4096, 8000), (16_384, 16_000), (65_536, 44_100), (700, 16_000)])
def test_spectrograms_have_a_bounded_size_at_every_length_and_rate(samples, rate):
    spectrogram = LogMel(samples, rate)
    found = spectrogram(noise(2, 1, samples))
    assert found.shape[:2] == (2, 64)
    assert found.shape[2] <= 64
    assert not (spectrogram.mel.filterbank.sum(dim=1) == 0).any()  # no band without a bin


def test_every_card_names_a_function_and_what_it_needs():
    assert all(callable(resolve(card.measure)) for card in METRICS)
    assert all(callable(resolve(card.make)) for card in EXTRACTORS)
    assert [card.name for card in EXTRACTORS] == ["classifier", "spectrogram"]  # the first that suits is the default


def test_listing_the_metrics_loads_no_torch():
    code = "import sys, gan_audio.metrics; sys.exit(bool({'torch', 'sklearn', 'numpy', 'librosa'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- pairs


def test_the_distances_of_equal_sounds_are_zero():
    audio = noise(2, 1, 8000)
    assert multi_resolution_stft_distance(audio, audio) == 0
    assert log_spectral_distance(audio, audio, sample_rate=16_000) == 0
    assert mel_cepstral_distortion(audio, audio, sample_rate=16_000) == 0


@pytest.mark.parametrize("gain", [0.5, 0.9, 1.5])
def test_the_distances_of_a_louder_sound_are_its_gain(gain):
    audio = noise(1, 8000)
    found = multi_resolution_stft_distance(audio, gain * audio)
    assert found == pytest.approx(abs(1 - gain) + abs(math.log(gain)), rel=1e-3)
    distance = log_spectral_distance(audio, gain * audio, sample_rate=16_000)
    assert distance == pytest.approx(abs(20 * math.log10(gain)), rel=1e-3)
    assert mel_cepstral_distortion(audio, gain * audio, sample_rate=16_000) == pytest.approx(0, abs=1e-6)


def test_distances_are_means_over_sounds_and_channels():
    audio = noise(3, 2, 6000)
    other = audio * torch.tensor([0.5, 0.9, 1.5])[:, None, None]
    audio = audio * torch.tensor([0.1, 1.0, 0.3])[:, None, None]  # loud sounds have no larger weight
    other = other * torch.tensor([0.1, 1.0, 0.3])[:, None, None]
    for distance in (
        multi_resolution_stft_distance,
        partial(log_spectral_distance, sample_rate=8000),
        partial(mel_cepstral_distortion, sample_rate=8000),
    ):
        alone = [distance(audio[k, c], other[k, c]) for k in range(3) for c in range(2)]
        assert distance(audio, other) == pytest.approx(sum(alone) / 6)


def test_the_cepstrum_is_the_cosine_transform_of_the_levels():
    audio = noise(8000)
    c = mel_cepstrum(audio, sample_rate=16_000)
    k, m = torch.arange(80, dtype=torch.float64), torch.arange(80, dtype=torch.float64) + 0.5
    basis = (torch.pi / 80 * torch.outer(m, k)).cos() * torch.where(k == 0, 1.0, 2.0)
    bands = basis @ c  # L_m = c_0 + 2 Σ c_k cos(π k (m + ½) / 80)
    other = basis @ mel_cepstrum(noise(8000, seed=1), sample_rate=16_000)
    apart = c - mel_cepstrum(noise(8000, seed=1), sample_rate=16_000)
    squares = apart[0].square() + 2 * apart[1:].square().sum(dim=0)
    assert_close((bands - other).square().mean(dim=0), squares)  # Parseval
    level = 10 * math.log10(math.e) * float(bands.mean())
    expected = 10 * math.log10(0.01 * 4 * 1.5 / 512)  # a noise of variance 0.01, in the window's 1.5 bins
    assert expected - 2.5 < level < expected  # the mean of logarithms is below the logarithm of the mean


def test_the_cepstrum_is_librosas_bands_by_scipys_transform():
    from librosa import filters, stft
    from scipy.fft import dct

    audio = noise(8000).double()
    power = (
        abs(stft(audio.numpy(), n_fft=512, hop_length=128, center=False)) ** 2 / 128**2
    )  # a Hann window's sum is 256
    weights = filters.mel(sr=16_000, n_fft=512, n_mels=80)
    logarithms = np.log(weights / weights.sum(axis=1, keepdims=True) @ power)
    assert_close(mel_cepstrum(audio, sample_rate=16_000).numpy(), dct(logarithms, axis=0) / 160, atol=1e-6, rtol=0)


def test_the_distortion_of_a_known_filter_is_that_of_its_response():
    audio = noise(64_000).double()
    filtered = audio + 0.5 * torch.cat([torch.zeros(1), audio[:-1]])
    hz = slaney_hz(torch.linspace(0, slaney_mel(8000), 1001, dtype=torch.float64))
    response = (1 + 0.5 * torch.exp(-2j * torch.pi * hz / 16_000)).abs().log10() * 20
    found = mel_cepstral_distortion(audio, filtered, sample_rate=16_000)
    assert found == pytest.approx(float(response.std()), rel=0.05)  # 13 coefficients represent such a smooth response


@pytest.mark.parametrize("cents", [-100, 50])
def test_the_f0_error_of_a_shifted_voice_is_the_shift(cents):
    figures = f0_error(voice(200), voice(200 * 2 ** (cents / 1200)), sample_rate=16_000)
    assert figures["f0_rmse"] == pytest.approx(abs(cents), abs=10)  # the resolution is a tenth of a semitone
    assert figures["voicing_error"] == 0


def test_a_voice_and_noise_have_no_voiced_frames_in_common():
    figures = f0_error(voice(200), noise(8000).double(), sample_rate=16_000)
    assert figures["voicing_error"] > 0.9
    assert math.isnan(figures["f0_rmse"]) or figures["f0_rmse"] > 100


def test_sounds_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match=r"^the sounds have the shapes \[100\] and \[99\]; cut them to one length$"):
        log_spectral_distance(noise(100), noise(99), sample_rate=16_000)
    with pytest.raises(InputError, match=r"^the sounds are 100 samples long; a frame at 16,000 Hz needs 512$"):
        mel_cepstral_distortion(noise(100), noise(100), sample_rate=16_000)


class Halver(Game):
    """A game that halves the level of sounds."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.5))

    def players(self):
        return ()

    results: ClassVar = {"halved": "audio"}
    compared: ClassVar = {"halved": "audio"}

    def apply(self, batch):
        return {"halved": self.gain * batch["audio"]}


def test_a_model_that_transforms_sounds_is_measured_by_pairs():
    source = FixedSource(TensorDataset({"audio": noise(3, 1, 8000)}), name="noise", facts={"sample_rate": RATE})
    evaluation = Evaluation(DOMAIN.metrics, FittedData(source, Spec()), Halver(), count=1000)
    figures, protocols = evaluation.measure(Halver())
    assert list(figures) == ["fid", "distances", "f0"]
    assert figures["distances"]["log_spectral_distance"] == pytest.approx(20 * math.log10(2), rel=1e-3)
    assert figures["distances"]["mel_cepstral_distortion"] == pytest.approx(0, abs=1e-3)  # the level is excluded
    assert figures["distances"]["stft_distance"] == pytest.approx(0.5 + math.log(2), rel=1e-3)
    assert protocols["distances"]["samples"] == 3
    scales = evaluation.scales(figures)
    assert {name: str(scale) for name, scale in scales.items()} == {
        "fid": "lower is better",
        "mel_cepstral_distortion": "dB, lower is better",
        "log_spectral_distance": "dB, lower is better",
        "stft_distance": "lower is better",
        "f0_rmse": "cents, lower is better",
        "voicing_error": "share of frames, lower is better",
    }


def test_integers_that_are_not_pixels_reach_the_game_unchanged():
    class Reader(Halver):
        def apply(self, batch):
            self.read = batch["source"]
            return super().apply(batch)

    tokens = torch.full((3, 1, 8), 7, dtype=torch.uint8)
    dataset = TensorDataset({"audio": noise(3, 1, 8000), "source": tokens}, pixels=())
    source, game = FixedSource(dataset, name="noise", facts={"sample_rate": RATE}), Reader()
    Evaluation(DOMAIN.metrics, FittedData(source, Spec()), game, metrics=["distances"]).measure(game)
    assert torch.equal(game.read, tokens)


@pytest.mark.parametrize(
    ("game", "metric", "why"),
    [
        (Halver(), "spectrum", "measures generated samples, but this model only transforms items"),
        (
            wavegan.SMALL.create(samples=128, width=1, latent_dim=2),
            "distances",
            "compares results with paired targets, which this model does not have",
        ),
    ],
)
def test_a_metric_of_the_other_kind_of_model_is_refused(game, metric, why):
    source = FixedSource(TensorDataset({"audio": noise(3, 1, 8000)}), name="noise", facts={"sample_rate": RATE})
    with pytest.raises(InputError, match=f"^the metric `{metric}` {why}$"):
        Evaluation(DOMAIN.metrics, FittedData(source, Spec()), game, metrics=[metric])
