"""WaveGAN and SpecGAN: padding, phase shuffle, latents, spectrograms, published checkpoints."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv1d, conv2d, pad
from torch.testing import assert_close

from gan_audio.layers.griffin_lim import griffin_lim, overlapped, spectrum
from gan_audio.layers.strided import SameConvolution, SameTransposed
from gan_audio.published.wavegan import IMPORTERS
from gan_audio.sound.spec import SoundSpec
from gan_audio.systems import specgan, wavegan
from gan_audio.systems.specgan import SpecGAN, Spectrogram
from gan_audio.systems.wavegan import PhaseShuffle, WaveGAN, delayed
from gan_core import draws, train
from gan_core.data import TensorDataset
from gan_core.errors import DataError, RecipeError
from gan_core.measure.metrics import sliced_wasserstein
from gan_core.play.interpolation import interpolate

CPU = torch.device("cpu")
SMALL = {"samples": 256, "width": 4}


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# --- networks


@pytest.mark.parametrize(
    ("samples", "generator", "discriminator"),
    [(16_384, 19_065_345, 17_427_969), (32_768, 73_149_953, 69_875_201), (65_536, 73_149_953, 69_875_201)],
)
def test_wavegan_has_the_published_number_of_parameters(samples, generator, discriminator):
    with torch.device("meta"):
        networks = wavegan.Generator(samples=samples), wavegan.Discriminator(samples=samples)
        audio = networks[0](torch.empty(2, 100))
    assert [count(network) for network in networks] == [generator, discriminator]
    assert audio.shape == (2, 1, samples)
    assert networks[1](audio).shape == (2,)


def test_specgan_has_the_published_number_of_parameters():
    with torch.device("meta"):
        networks = specgan.Generator(), specgan.Discriminator()
        spectrograms = networks[0](torch.empty(2, 100))
    assert [count(network) for network in networks] == [19_065_345, 17_427_969]
    assert spectrograms.shape == (2, 1, 128, 128)
    assert networks[1](spectrograms).shape == (2,)


@pytest.mark.parametrize(
    ("kernel", "stride", "front", "back"), [(25, 4, 10, 11), (25, 2, 11, 12), (25, 1, 12, 12), (24, 4, 10, 10)]
)
def test_same_padding_is_larger_at_the_end(kernel, stride, front, back):
    layer, x = SameConvolution(2, 3, kernel, stride=stride), torch.randn(2, 2, 64)
    expected = conv1d(pad(x, (front, back)), layer.conv.weight, layer.conv.bias, stride)
    assert_close(layer(x), expected)
    assert layer(x).shape == (2, 3, 64 // stride)


def test_same_padding_is_equal_along_both_axes_of_images():
    layer, x = SameConvolution(2, 3, 5, stride=2, ndim=2), torch.randn(2, 2, 8, 8)
    assert_close(layer(x), conv2d(pad(x, (1, 2, 1, 2)), layer.conv.weight, layer.conv.bias, 2))


@pytest.mark.parametrize(("kernel", "stride", "ndim"), [(25, 4, 1), (25, 2, 1), (24, 4, 1), (5, 2, 2)])
def test_transposed_convolutions_are_the_adjoint(kernel, stride, ndim):
    down = SameConvolution(2, 3, kernel, stride=stride, ndim=ndim).double()
    up = SameTransposed(3, 2, kernel, stride=stride, ndim=ndim).double()
    with torch.no_grad():
        up.conv.weight.copy_(down.conv.weight)
        up.conv.bias.zero_()
        down.conv.bias.zero_()
    x = torch.randn(1, 2, *[8 * stride] * ndim, dtype=torch.double)
    y = torch.randn(1, 3, *[8] * ndim, dtype=torch.double)
    assert_close((down(x) * y).sum(), (x * up(y)).sum())


@pytest.mark.parametrize("samples", [100, 64, 12_288])
def test_invalid_numbers_of_samples_are_refused(samples):
    for network in (wavegan.Generator, wavegan.Discriminator):
        with pytest.raises(RecipeError, match=rf"^`samples` is {samples}; expected 128, 256, 512, 1024 … Try"):
            network(samples=samples)


@pytest.mark.parametrize(("samples", "nearest"), [(512, 256), (100, 256), (12_000, 16_384), (16_000, 16_384)])
def test_spectrograms_must_be_square(samples, nearest):
    for network in (specgan.Generator, specgan.Discriminator):
        message = rf"^`samples` is {samples}; expected a power of 4 of at least 256\. Try {nearest}\.$"
        with pytest.raises(RecipeError, match=message):
            network(samples=samples)


def test_the_published_discriminator_uses_batch_statistics_in_evaluation():
    network = wavegan.Discriminator(**SMALL, batch_norm=True, phase_shuffle=0)
    audio = torch.randn(4, 1, 256)
    assert_close(network.train()(audio), network.eval()(audio))
    assert isinstance(network.down[0][1], nn.Identity)


def test_the_post_filter_filters_channels_separately():
    generator, x = wavegan.Generator(**SMALL, channels=2, post_filter=8), torch.randn(3, 2, 64)
    taps = generator.post_filter[1].weight  # [2, 1, 8]
    assert_close(generator.post_filter(x), conv1d(pad(x, (3, 4)), taps, groups=2))


def test_samples_beyond_1_after_the_post_filter_are_clipped():
    game = WaveGAN(wavegan.Generator(**SMALL, post_filter=8), wavegan.Discriminator(**SMALL)).eval()
    with torch.no_grad():
        game.generator.post_filter[1].weight.fill_(1e3)
    assert game.fakes(4).abs().max() > 1
    assert game.generate(4, seed=0).abs().max() == 1


# --- classes


@pytest.mark.parametrize("family", [wavegan, specgan])
def test_classes_change_samples_but_hardly_the_logits_of_a_new_discriminator(family):
    generator = family.Generator(**SMALL, num_classes=10)
    discriminator = family.Discriminator(**SMALL, num_classes=10).eval()
    with torch.no_grad():
        made = generator(torch.zeros(10, 100), torch.arange(10))
        logits = discriminator(made[:1].expand(10, *made.shape[1:]), torch.arange(10))
    assert torch.pdist(made.flatten(1)).min() > 0
    assert 0 < logits.std() < 0.1


# --- phase shuffle


def by_padding(x, shift):
    """Shifts as the published code does: reflection padding at one end, truncation at the other."""
    padded = pad(x, (max(shift, 0), max(-shift, 0)), mode="reflect")
    return padded[..., max(-shift, 0) :][..., : x.shape[-1]]


@pytest.mark.parametrize("shift", range(-3, 4))
def test_a_delay_is_reflected_without_repeating_the_edge(shift):
    x = torch.randn(3, 2, 9)
    assert torch.equal(delayed(x, torch.tensor([shift])), by_padding(x, shift))


def shifts(x, shuffled, radius=2):
    """Returns the shift of each sample."""
    tried = range(-radius, radius + 1)
    found = [[s for s in tried if torch.equal(by_padding(a, s), b)] for a, b in zip(x, shuffled, strict=True)]
    return [each[0] for each in found]


def test_a_batch_has_one_shift_and_every_shift_occurs():
    shuffle, x, seen = PhaseShuffle(radius=2), torch.randn(4, 3, 20), set()
    for _ in range(100):
        found = shifts(x, shuffle(x))
        assert len(set(found)) == 1
        seen |= set(found)
    assert seen == {-2, -1, 0, 1, 2}


def test_samples_can_have_their_own_shifts():
    x = torch.randn(100, 3, 20)
    assert set(shifts(x, PhaseShuffle(radius=2, per_example=True)(x))) == {-2, -1, 0, 1, 2}


def test_radius_0_and_evaluation_mode_disable_phase_shuffle():
    x = torch.randn(4, 3, 20)
    for shuffle in (PhaseShuffle(radius=0), PhaseShuffle(radius=2).eval()):
        assert all(torch.equal(shuffle(x), x) for _ in range(20))


def test_gradients_flow_through_a_shift():
    x = torch.randn(1, 1, 6, requires_grad=True)
    delayed(x, torch.tensor([2])).sum().backward()
    assert x.grad.tolist() == [[[1.0, 2.0, 2.0, 1.0, 0.0, 0.0]]]  # the outputs are inputs 2, 1, 0, 1, 2, 3


@pytest.mark.parametrize("per_example", [False, True])
def test_several_processes_draw_the_shifts_of_one(per_example):
    shuffle, x = PhaseShuffle(radius=5, per_example=per_example), torch.randn(32, 1, 20)
    for seed in range(5):
        with draws.drawing(seed, CPU, rows=32, total=32):
            whole = shuffle(x)
        parts = []
        for start in (0, 16):
            with draws.drawing(seed, CPU, start=start, rows=16, total=32):
                parts.append(shuffle(x[start : start + 16]))
        assert torch.equal(torch.cat(parts), whole)


def test_phase_shuffle_does_not_synchronise_with_the_host():
    """Tensors on the `meta` device have no values, so reading one would fail."""
    for per_example in (False, True):
        assert PhaseShuffle(per_example=per_example)(torch.empty(2, 3, 20, device="meta")).shape == (2, 3, 20)


@pytest.mark.parametrize(("samples", "layers"), [(1024, 2), (4096, 3), (16_384, 4), (32_768, 4), (65_536, 4)])
def test_features_are_shifted_after_the_first_four_layers_and_never_after_the_last(samples, layers):
    network, seen = wavegan.Discriminator(samples=samples, width=1), []
    network.shuffle.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[2]))
    network(torch.randn(1, 1, samples))
    assert seen == [samples // 4**layer for layer in range(1, layers + 1)]


def test_shuffle_per_example_without_phase_shuffle_is_refused():
    with pytest.raises(RecipeError, match=r"^`shuffle_per_example` has no effect: `phase_shuffle` is 0"):
        wavegan.Discriminator(**SMALL, phase_shuffle=0, shuffle_per_example=True)


# --- the game


def test_latents_are_uniform_up_to_the_truncation():
    game = WaveGAN(wavegan.Generator(**SMALL), wavegan.Discriminator(**SMALL))
    z, truncated = game.latent(2000), game.latent(2000, truncation=0.5)
    assert z.abs().max() <= 1 < 1.001 * z.abs().max()
    assert_close(z.var(), torch.tensor(1 / 3), rtol=0.01, atol=0)
    assert truncated.abs().max() <= 0.5 < 1.001 * truncated.abs().max()
    assert not torch.equal(game.generate(2, seed=0, truncation=0.5), game.generate(2, seed=0))


@torch.no_grad()
def test_interpolated_sounds_are_renderings_of_latents_on_the_line():
    game = WaveGAN(wavegan.Generator(**SMALL), wavegan.Discriminator(**SMALL)).eval()
    made = interpolate(game, rows=3, steps=5, seed=2)
    with draws.drawing(2, game.device, rows=6, total=6):
        start, end = game.latent(6).chunk(2)
    latents = game.between(start, end, torch.linspace(0, 1, 5))
    assert latents.abs().max() <= 1
    assert_close(latents[:, 2], (start + end) / 2)
    assert_close(made.flatten(0, 1), game.render(latents.flatten(0, 1)))
    assert_close(made[:, 0], game.render(start))
    assert_close(made[:, -1], game.render(end))


def test_the_papers_training():
    for preset in (wavegan.WAVEGAN, specgan.SPECGAN):
        recipe = preset.recipe()
        assert recipe.objective == "wasserstein"
        assert recipe.regularizers["gradient_penalty"]["weight"] == 10
        assert recipe.players["discriminator"].turns == 5
        assert (recipe.optimizer.learning_rate, recipe.optimizer.betas) == (1e-4, (0.5, 0.9))
        assert (recipe.train.batch_size, recipe.train.steps) == (64, 200_000)
        assert recipe.network["samples"] == 16_384
        assert preset.build().spec == SoundSpec(samples=16_384, sample_rate=16_000, channels=1, peak=1.0)


def tones(*pitches, count=512, samples=256):
    """Returns tones of alternating frequencies in Hz and random phases at 8,000 Hz, `[count, 1, samples]`."""
    cycles = torch.tensor(pitches).repeat(count // len(pitches))[:, None] * torch.arange(samples) / 8000
    return 0.7 * torch.sin(2 * torch.pi * (cycles + torch.rand(count, 1)))[:, None]


def trained(game, audio, folder, **changes):
    """Returns the game after a short training."""
    settings = {"steps": 300, "sample_every": None, "checkpoint_every": None, "device": "cpu", "shown": False}
    train(game, data={"audio": audio}, out=folder, changes={"optimizer.learning_rate": 1e-3, **changes}, **settings)
    return game


@pytest.mark.slow
def test_wavegan_learns_a_pitch(tmp_path):
    def purity(audio):  # the share of the energy that is near 1000 Hz
        power = torch.fft.rfft(audio[:, 0] * torch.hann_window(256)).abs().square()
        return float((power[:, 30:35].sum(dim=1) / power.sum(dim=1)).mean())

    game = wavegan.SMALL.but(network={"samples": 256, "width": 8, "latent_dim": 8}).build().eval()
    before = purity(game.generate(64, seed=0))
    after = purity(trained(game, tones(1000.0), tmp_path / "run").generate(64, seed=0))
    assert before < 0.1
    assert after > 0.5


@pytest.mark.slow
def test_specgan_learns_spectrograms(tmp_path):
    """Uses two frequencies, because the statistics of the spectrogram already describe a single one."""
    audio = tones(1000.0, 2500.0)
    game = specgan.SMALL.but(network={"samples": 256, "width": 8, "latent_dim": 8}).build().eval()
    game.study(TensorDataset({"audio": audio}))
    real = game.spectrogram(audio).flatten(1).numpy()

    @torch.no_grad()
    def distance():
        return sliced_wasserstein(real, game.fakes(512).flatten(1).numpy())

    before = distance()
    trained(game, audio, tmp_path / "run", **{"players.discriminator.turns": 3})
    assert distance() < 0.6 * before


# --- spectrograms


def sounds(count=6, samples=4096):
    """Returns decaying tones with a little noise, `[count, 1, samples]`."""
    time = torch.arange(samples) / 8000
    pitches = torch.linspace(100, 1500, count)[:, None]
    tones = torch.sin(2 * torch.pi * pitches * time) * torch.exp(-8 * time)
    return (0.5 * tones + 0.01 * torch.randn(count, samples))[:, None]


def test_log_magnitudes_equal_torchs_transform():
    audio, size = sounds(), 64
    window = torch.hann_window(2 * size)
    transform = torch.stft(
        pad(audio[:, 0], (0, size)), 2 * size, size, window=window, center=False, return_complex=True
    )
    expected = torch.log(transform.abs() + 1e-6).transpose(1, 2)[:, None]
    assert_close(Spectrogram(size).logarithms(audio), expected)


def test_every_frequency_is_standardised_by_the_data():
    audio, spectrogram = sounds(), Spectrogram(64)
    spectrogram.measure([audio[:1], audio[1:]])
    logarithms = spectrogram.logarithms(audio)[:, 0].flatten(0, 1).numpy()
    assert_close(spectrogram.mean, torch.from_numpy(logarithms.mean(axis=0)))
    assert_close(spectrogram.deviation, torch.from_numpy(logarithms.std(axis=0)), rtol=1e-4, atol=1e-5)
    standard = (logarithms - logarithms.mean(axis=0)) / logarithms.std(axis=0)
    expected = torch.from_numpy(np.clip(standard / 3, -1, 1)[:, :-1]).view(6, 1, 64, 64)
    assert_close(spectrogram(audio), expected, rtol=1e-3, atol=1e-4)


def test_silence_is_standardised_to_0_and_no_data_is_refused():
    spectrogram = Spectrogram(16)
    spectrogram.measure([torch.zeros(2, 1, 256)])
    assert torch.equal(spectrogram(torch.zeros(2, 1, 256)), torch.zeros(2, 1, 16, 16))
    assert spectrogram.inverse(torch.zeros(2, 1, 16, 16), iterations=2).abs().max() < 1e-3
    with pytest.raises(DataError, match=r"^there are no sounds to compute the statistics of spectrograms from"):
        spectrogram.measure([])


def test_complex_spectra_are_inverted_exactly():
    audio = sounds()[:, 0].double()
    inner = slice(64, -64)  # the ends fade
    assert_close(overlapped(spectrum(audio, 64), 64)[:, inner], audio[:, inner])


def test_griffin_lim_approaches_the_spectrogram():
    magnitudes = spectrum(pad(sounds()[:, 0], (0, 64)), 64).abs()

    def distance(iterations):
        made = spectrum(griffin_lim(magnitudes, 64, iterations=iterations), 64).abs()
        return float((made - magnitudes).norm() / magnitudes.norm())

    start, found = distance(0), distance(16)
    assert found < 0.6 * start
    assert found < 0.18


def test_inverting_a_spectrogram_approximates_the_sound():
    audio, spectrogram = sounds(), Spectrogram(64)
    spectrogram.measure([audio])
    again = spectrogram.inverse(spectrogram(audio), iterations=16)
    assert again.shape == audio.shape
    assert (spectrogram(again) - spectrogram(audio)).abs().mean() < 0.35 * spectrogram(audio).abs().mean()
    assert 0.8 < again.norm() / audio.norm() < 1.1


def spec_game(**rules):
    generator, discriminator = specgan.Generator(**SMALL), specgan.Discriminator(**SMALL)
    return SpecGAN(generator, discriminator, **rules)


def test_the_discriminator_judges_spectrograms_and_samples_are_sounds():
    game, judged = spec_game(), []
    game.discriminator.network.register_forward_hook(lambda module, inputs, output: judged.append(inputs[0]))
    audio = torch.randn(3, 1, 256).clamp(-1, 1)
    game.discriminator_loss({"audio": audio})
    game.generator_loss({"audio": audio})
    assert [samples.shape for samples in judged] == [(3, 1, 16, 16)] * 3
    assert torch.equal(judged[0], game.spectrogram(audio))
    sound = game.generate(3, seed=0)
    assert sound.shape == (3, 1, 256)
    assert sound.abs().max() <= 1


def test_a_saved_model_stores_the_statistics_of_the_data(tmp_path):
    game, data = spec_game(), TensorDataset({"audio": sounds(samples=256), "label": torch.arange(6)})
    untouched = game.generate(2, seed=0)
    game.study(data)
    restored = spec_game().restore(game.save_pretrained(tmp_path / "model"))
    logarithms = game.spectrogram.logarithms(data.tensors["audio"])
    assert_close(restored.spectrogram.mean, logarithms.mean(dim=(0, 1, 2)))
    assert torch.equal(restored.generate(2, seed=0), game.generate(2, seed=0))
    assert not torch.allclose(restored.generate(2, seed=0), untouched)


# --- published checkpoints


def generator_state(widths, kernel, *, latent_dim=6, nearest=False):
    state = {"z_project.weight": torch.randn(16 * widths[0], latent_dim)}
    state["z_project.bias"] = torch.randn(16 * widths[0])
    for number, (a, b) in enumerate(pairwise(widths)):
        state |= {
            f"upconv_{number}.weight": torch.randn(*((b, a) if nearest else (a, b)), *kernel),
            f"upconv_{number}.bias": torch.randn(b),
        }
    return state


def discriminator_state(widths, kernel):
    state = {"output.weight": torch.randn(1, 16 * widths[-1]), "output.bias": torch.randn(1)}
    for number, (a, b) in enumerate(pairwise(widths)):
        state |= {f"downconv_{number}.weight": torch.randn(b, a, *kernel), f"downconv_{number}.bias": torch.randn(b)}
        for part in ("weight", "bias", "running_mean", "running_var") if number else ():
            state[f"bn_{number}.{part}"] = torch.ones(b)
    return state


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize(("told", "samples"), [({}, 1024), ({"slice_len": 512}, 512)])
def test_wavegans_settings_are_inferred_from_shapes_except_the_last_stride(nearest, told, samples):
    state = generator_state([8, 4, 2, 3], [9], nearest=nearest)
    published = IMPORTERS["wavegan/generator"](state, **told)
    assert published.settings == {
        "samples": samples,
        "channels": 3,
        "latent_dim": 6,
        "width": 2,
        "kernel": 9,
        "batch_norm": False,
        "upsampling": "nearest" if nearest else "zeros",
    }
    assert published.build()(torch.zeros(2, 6)).shape == (2, 3, samples)
    judging = IMPORTERS["wavegan/discriminator"](discriminator_state([3, 2, 4, 8], [9]), **told)
    assert judging.settings == {"samples": samples, "channels": 3, "width": 2, "kernel": 9, "batch_norm": True}
    assert judging.build()(torch.randn(2, 3, samples)).shape == (2,)


def test_specgans_settings_are_inferred_from_shapes():
    generator = IMPORTERS["specgan/generator"](generator_state([8, 4, 2], [5, 5], nearest=True))
    assert generator.settings == {
        "samples": 256,
        "channels": 2,
        "latent_dim": 6,
        "width": 4,
        "kernel": 5,
        "batch_norm": False,
        "upsampling": "nearest",
    }
    assert generator.build()(torch.zeros(3, 6)).shape == (3, 2, 16, 16)
    discriminator = IMPORTERS["specgan/discriminator"](discriminator_state([2, 4, 8], [5, 5]))
    assert discriminator.build()(torch.randn(3, 2, 16, 16)).shape == (3,)


def test_the_layer_of_stride_2_is_the_last_one():
    assert wavegan.strides(32_768) == [4, 4, 4, 4, 4, 2]
