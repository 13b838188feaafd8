from __future__ import annotations

import math
import subprocess
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.testing import assert_close

import gan_audio
import gan_core
from gan_audio.layers import losses
from gan_audio.layers.convolution import Convolution, TransposedConvolution
from gan_audio.layers.filtering import MinimalConvolution, is_faster_filtered
from gan_audio.layers.inference import fold, inference_copy
from gan_audio.layers.losses import Resolution
from gan_audio.layers.streaming import apply_in_pieces, input_span
from gan_audio.mel.contract import CONTRACTS, MelSpectrogram
from gan_audio.sound.spec import SoundSpec
from gan_audio.systems import bigvgan, hifigan, melgan
from gan_audio.systems.vocoder import FRAMES_AT_ONCE, MIN_FILTERED_FRAMES, Discriminators
from gan_core.draws import drawing
from gan_core.errors import CheckpointError, DataError, RecipeError
from gan_core.models.card import model_card
from gan_core.play.adversary import Adversary
from gan_core.play.judgement import Judgement
from gan_core.play.objectives import hinge, least_squares
from gan_core.play.regularizers import FeatureMatching
from gan_core.testing import find_fixtures

TINY = CONTRACTS["hifigan-22k"].but(mels=5, hop=8, fft_size=32, window=32, high_hz=None)
SIZES = {"mel": TINY.model_dump(), "rates": (4, 2)}
BLOCKS = {"up_sizes": (8, 4), "sizes": (3, 5), "dilations": ((1, 2), (3,)), "generator": {"width": 8}}
MPD, MSD, MRD = (
    {"periods": (2, 3), "width": 1},
    {"scales": 2, "width": 16},
    {"width": 1, "resolutions": ((32, 8, 16),)},
)
GAMES = {
    "melgan": lambda **more: melgan.MELGAN.create(
        **SIZES, generator={"width": 4, "depth": 2}, discriminator={"scales": 2, "width": 4, "depth": 1}, **more
    ),
    "hifigan": lambda **more: hifigan.V1.create(**SIZES, **BLOCKS, mpd=MPD, msd=MSD, **more),
    "hifigan v3": lambda **more: hifigan.V3.create(**SIZES, **BLOCKS, mpd=MPD, msd=MSD, **more),
    "bigvgan": lambda **more: bigvgan.BASE.create(**SIZES, **BLOCKS, mpd=MPD, mrd=MRD, **more),
}


def make(name, **more):
    torch.manual_seed(0)
    return GAMES[name](**more)


def wide():
    """Returns a game with four convolutions that minimal filters replace, with 7 and 11 taps and 128 channels."""
    torch.manual_seed(0)
    blocks = {"up_sizes": (8, 4), "sizes": (3, 7, 11), "dilations": ((1,), (1,), (3,)), "generator": {"width": 256}}
    return hifigan.V1.create(**SIZES, **blocks, mpd=MPD, msd=MSD).eval()


def mel_of(frames, *, seed=0):
    return torch.randn(1, TINY.mels, frames, generator=torch.Generator().manual_seed(seed))


def noise(samples, *, batch=1):
    return 0.5 * torch.rand(batch, 1, samples, generator=torch.Generator().manual_seed(0)) - 0.25


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("preset", "counts"),
    [
        (melgan.MELGAN, {"generator": 4_266_050, "discriminator": 16_924_086}),
        (hifigan.V1, {"generator": 13_936_130, "mpd": 41_105_770, "msd": 29_618_821}),
        (hifigan.V2, {"generator": 928_514}),
        (hifigan.V3, {"generator": 1_464_322}),
        (bigvgan.BIGVGAN, {"generator": 112_446_290}),
        (bigvgan.BASE, {"generator": 14_025_154}),
    ],
)
def test_networks_have_the_published_number_of_parameters(preset, counts):
    with torch.device("meta"):
        game = preset.build()
    assert {name: count(game.get_submodule(name)) for name in counts} == counts


@pytest.mark.parametrize(
    ("preset", "parameters"), [(hifigan.V1, 13_926_017), (hifigan.V2, 925_985), (hifigan.V3, 1_462_273)]
)
def test_folded_generators_have_the_published_number_of_parameters(preset, parameters):
    with torch.device("meta"):
        assert count(preset.create(folded=True).generator) == parameters


# Generators: inference, streams, folding.


@pytest.mark.parametrize("name", GAMES)
def test_the_context_is_the_exact_span_of_frames_that_affect_a_frame(name):
    generator = make(name).generator.double()
    frame, frames = 30, 60
    mel = mel_of(frames).double().requires_grad_()
    generator(mel)[..., frame * TINY.hop : (frame + 1) * TINY.hop].abs().sum().backward()
    (seen,) = mel.grad.abs().sum(dim=(0, 1)).nonzero(as_tuple=True)
    assert (frame - int(seen.min()), int(seen.max()) - frame) == generator.context


def test_input_spans_of_layers_are_known():
    assert input_span(nn.Conv1d(1, 1, 3, dilation=4, padding=4), (10, 12)) == (6, 16)
    up = nn.ConvTranspose1d(1, 1, 4, 2, padding=1)  # output 2 i - 1 … 2 i + 2 has input i
    assert [input_span(up, (t, t)) for t in (0, 1, 2, 3)] == [(-1, 0), (0, 1), (0, 1), (1, 2)]
    assert input_span(nn.Sequential(up, nn.Tanh(), nn.Conv1d(1, 1, 3, padding=1)), (1, 2)) == (-1, 2)


CONVOLUTIONS = [
    (Convolution, nn.Conv1d, (6, 4, 7), {"padding": 3}),
    (Convolution, nn.Conv1d, (4, 6, 3), {"padding": 9, "dilation": 9, "padding_mode": "reflect"}),
    (Convolution, nn.Conv1d, (4, 4, 7), {"padding": 36, "dilation": 12, "bias": False}),
    (Convolution, nn.Conv1d, (4, 1, 1), {}),
    (TransposedConvolution, nn.ConvTranspose1d, (6, 4, 16), {"stride": 8, "padding": 4}),
    (TransposedConvolution, nn.ConvTranspose1d, (4, 2, 6), {"stride": 3, "padding": 2, "output_padding": 1}),
    (TransposedConvolution, nn.ConvTranspose1d, (4, 3, 7), {"stride": 2, "padding": 2}),
]


@pytest.mark.parametrize(("ours", "torchs", "sizes", "settings"), CONVOLUTIONS)
def test_convolutions_in_cpu_inference_equal_torch(ours, torchs, sizes, settings):
    torch.manual_seed(0)
    layer, x = torchs(*sizes, **settings), torch.randn(2, sizes[0], 50)
    fast = ours(*sizes, **settings)
    fast.load_state_dict(layer.state_dict())  # the keys are the same
    with torch.no_grad():
        assert_close(fast(x), layer(x), rtol=1e-5, atol=1e-6)
        again = fast(x.transpose(1, 2).contiguous().transpose(1, 2))
        assert_close(again, layer(x), rtol=1e-5, atol=1e-6)
        assert_close(fast.double()(x.double()), layer.double()(x.double()), rtol=1e-12, atol=1e-12)
        assert again.stride(1) == 1 or again.shape[1] == 1  # channels are innermost for the next one


@pytest.mark.parametrize(
    ("size", "dilation", "channels"), [(7, 1, (10, 12)), (11, 5, (64, 64)), (9, 12, (8, 3)), (3, 2, (5, 7))]
)
@pytest.mark.parametrize("length", [1, 30, 501])
def test_minimal_filters_equal_the_convolution(size, dilation, channels, length):
    torch.manual_seed(0)
    layer = Convolution(*channels, size, dilation=dilation, padding=dilation * (size // 2), bias=size != 9)
    x = torch.randn(2, channels[0], length)
    with torch.no_grad():
        exact = deepcopy(layer).double()(x.double())
        assert_close(MinimalConvolution(layer.double())(x.double()), exact, rtol=1e-12, atol=1e-12)
        assert_close(MinimalConvolution(layer.float())(x), exact.float(), rtol=1e-4, atol=1e-5)
    for span in ((0, 0), (7, 20)):
        assert MinimalConvolution(layer).input_span(span) == input_span(layer, span)


def test_minimal_filters_replace_large_convolutions_that_keep_the_length():
    assert is_faster_filtered(Convolution(128, 128, 7, padding=3))
    assert is_faster_filtered(Convolution(128, 256, 11, padding=25, dilation=5))
    assert not is_faster_filtered(Convolution(127, 128, 7, padding=3))
    assert not is_faster_filtered(Convolution(128, 127, 7, padding=3))
    assert not is_faster_filtered(Convolution(256, 256, 5, padding=2))
    assert not is_faster_filtered(Convolution(256, 256, 7, padding=3).bfloat16())
    for other in (
        {"padding": 0},
        {"padding": 3, "stride": 2},
        {"padding": 3, "groups": 2},
        {"padding": 3, "dilation": 2},
        {"padding": 3, "padding_mode": "reflect"},
    ):
        assert not is_faster_filtered(Convolution(256, 256, 7, **other))


def test_inference_copies_do_not_change_the_generator():
    game = wide()
    before = {name: value.clone() for name, value in game.generator.state_dict().items()}
    quick = inference_copy(game.generator, filtering=True)
    assert sum(isinstance(layer, MinimalConvolution) for layer in quick.modules()) == 4
    assert not any(parametrize.is_parametrized(layer) for layer in quick.modules())
    mel = mel_of(20)
    with torch.no_grad():
        assert_close(quick(mel), game.generator(mel), rtol=0, atol=1e-6)
    assert game.generator.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in game.generator.state_dict().items())
    mine, theirs = ({id(value) for value in network.parameters()} for network in (quick, game.generator))
    assert not mine & theirs


def test_inference_copies_keep_layers_that_are_used_several_times():
    activation, twice = nn.Tanh(), nn.Conv1d(3, 3, 1)
    network = nn.Sequential(activation, twice, activation, twice, activation)
    network.register_module("nothing", None)
    x = mel_of(9)[:, :3]
    made = inference_copy(network[:5], filtering=True)
    assert len(made) == 5
    assert made[1] is made[3]
    assert torch.equal(made(x), network[:5](x))
    assert inference_copy(network, filtering=True).nothing is None


def test_inference_copies_of_compiled_generators_are_not_compiled():
    game, mel = wide(), mel_of(MIN_FILTERED_FRAMES)
    plainly, compiled = game.vocode(mel), []
    game.generator.compile(backend=lambda graph, inputs: compiled.append(graph) or graph)
    assert torch.equal(game.vocode(mel), plainly)
    assert_close(torch.cat(list(game.stream([mel])), dim=2), plainly, rtol=0, atol=1e-6)
    assert not compiled


def test_changes_of_the_generator_do_not_affect_a_running_stream():
    game, mel = wide().fold(), mel_of(60)
    whole = game.vocode(mel)
    for change in (game.double, lambda: [value.data.mul_(2) for value in game.generator.parameters()]):
        stream = game.stream(mel.split(30, dim=2))
        parts = [next(stream)]
        change()
        parts += stream
        game.float()
        assert_close(torch.cat(parts, dim=2), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", [20, MIN_FILTERED_FRAMES + 20])
def test_minimal_filters_give_the_same_audio_at_once_and_streamed(frames):
    game, mel = wide(), mel_of(frames)
    with torch.no_grad():
        plainly = game.generator.double()(mel.double()).float()
    game.generator.float()
    assert plainly.std() > 1e-3
    assert_close(game.vocode(mel), plainly, rtol=0, atol=1e-6)
    for size in (1, 7, 20):
        assert_close(torch.cat(list(game.stream(mel.split(size, dim=2))), dim=2), plainly, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", GAMES)
def test_inference_in_pieces_equals_the_whole(name, monkeypatch):
    generator, mel = make(name).generator.double(), torch.cat([mel_of(40), mel_of(40, seed=1)]).double()
    whole = generator(mel)
    calls = []
    up = next(layer for layer in generator.layers if isinstance(layer, TransposedConvolution))
    up.register_forward_hook(lambda *_: calls.append(values))
    for values in (40, 200, 1 << 19):
        monkeypatch.setattr("gan_audio.layers.streaming.VALUES_AT_ONCE", values)
        with torch.no_grad():
            assert_close(generator(mel), whole.detach(), rtol=1e-12, atol=1e-12)
    assert calls.count(40) > calls.count(200) > calls.count(1 << 19) == 1


def test_pieces_are_computed_from_exactly_their_context():
    widths, layers = [], nn.Sequential(TransposedConvolution(1, 1, 4, 2, padding=1), Convolution(1, 1, 3, padding=1))
    layers.register_forward_pre_hook(lambda network, inputs: widths.append(inputs[0].shape[2]))
    x = mel_of(50)[:, :1]
    assert_close(apply_in_pieces(layers, x, rate=2, size=30), layers(x))
    assert widths[:-1] == [14, 15, 15, 14]  # for 25 samples each; the last is of the whole


@pytest.mark.parametrize("name", GAMES)
def test_streamed_audio_equals_the_whole_for_every_chunk_size(name):
    game, mel = make(name), mel_of(40)
    whole = game.vocode(mel)
    assert whole.abs().max() > 1e-3
    for size in range(1, 41):
        assert_close(torch.cat(list(game.stream(mel.split(size, dim=2))), dim=2), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", GAMES)
def test_streams_accept_mixed_chunk_sizes_and_short_mels(name):
    game = make(name)
    for sizes in ((0, 1, 9, 0, 30, 2), (game.generator.min_frames,), (7, 1), (1, 1, 1, 1)):
        mel = mel_of(sum(sizes))
        streamed = torch.cat(list(game.stream(mel.split(sizes, dim=2))), dim=2)
        assert_close(streamed, game.vocode(mel), rtol=0, atol=1e-5)
    assert list(game.stream([])) == []


def test_a_stream_is_delayed_by_its_context_and_holds_only_its_context():
    game, widths = make("hifigan"), []
    before, after = game.generator.context
    chunks = iter(mel_of(3 * FRAMES_AT_ONCE).split(1, dim=2))
    stream = game.stream(chunks)
    next(stream)
    assert (
        len(list(chunks)) == 3 * FRAMES_AT_ONCE - after - 1
    )  # a frame is returned when the last frame of its context arrives
    game.fold().generator.register_forward_pre_hook(lambda network, inputs: widths.append(inputs[0].shape[2]))
    list(game.stream([mel_of(3 * FRAMES_AT_ONCE)]))
    assert max(widths) == before + FRAMES_AT_ONCE + after


def test_mel_and_audio_streams_can_be_chained():
    game, audio = make("hifigan"), noise(800)
    chunks = audio.split(37, dim=2)
    assert_close(
        torch.cat(list(game.stream(game.mel.stream(chunks))), dim=2), game.resynthesize(audio), rtol=0, atol=1e-5
    )


def test_mels_that_are_too_short_or_have_other_bands_are_refused():
    game = make("melgan")
    for vocode in (game.vocode, lambda mel: list(game.stream(mel.split(1, dim=2)))):
        with pytest.raises(DataError) as error:
            vocode(mel_of(3))
        assert str(error.value) == "the mel has 3 frames; this model needs 4 or more"
        with pytest.raises(DataError) as error:
            vocode(torch.zeros(1, 80, 9))
        assert str(error.value).endswith("; expected [B, 5, frames] or [5, frames]")
    assert game.vocode(mel_of(4)).shape == (1, 1, 32)


@pytest.mark.parametrize(("depth", "least"), [(1, 4), (3, 4), (4, 7)])
def test_the_minimum_length_of_melgans_mels_follows_from_reflection_padding(depth, least):
    generator = melgan.Generator(mel=TINY, rates=(4, 2), width=1, depth=depth)
    assert generator.min_frames == least
    generator(mel_of(least))
    with pytest.raises(RuntimeError):
        generator(mel_of(least - 1))


@pytest.mark.parametrize("samples", [64, 71, 200])
def test_audio_is_resynthesised_at_its_length(samples):
    game = make("melgan").train()
    assert game.resynthesize(noise(samples, batch=2)).shape == (2, 1, samples)
    assert game.generator.training
    assert_close(game.resynthesize(noise(64)), game.vocode(MelSpectrogram(TINY)(noise(64))))


@pytest.mark.parametrize("name", GAMES)
def test_folding_keeps_the_output_and_does_not_change_copies(name):
    game, mel = make(name), mel_of(20)
    for parameter in game.generator.parameters():
        nn.init.normal_(parameter, 0.1, 0.3)
    before, copy = game.vocode(mel), deepcopy(game.generator)
    weights = count(game.generator)
    game.fold()
    assert_close(game.vocode(mel), before, rtol=0, atol=1e-5)
    assert not any("parametrizations" in key for key in game.generator.state_dict())
    assert count(game.generator) < weights
    assert_close(copy(mel), before, rtol=0, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(fold(game.generator)(mel), game.vocode(mel))  # there is nothing left to fold


@pytest.mark.parametrize("name", GAMES)
def test_a_folded_game_is_saved_and_loaded_as_one(name, tmp_path):
    preset = {"melgan": melgan.MELGAN, "hifigan": hifigan.V1, "hifigan v3": hifigan.V3, "bigvgan": bigvgan.BASE}[name]
    game = make(name).fold()
    loaded = gan_core.load(game.save_pretrained(tmp_path / "model"), preset=preset)
    assert torch.equal(loaded.vocode(mel_of(9)), game.vocode(mel_of(9)))
    assert loaded.contract == TINY


def test_the_model_card_of_a_vocoder_shows_vocode():
    judge = {"scales": 2, "width": 4, "depth": 1}
    card = model_card(gan_audio.create("melgan", **SIZES, generator={"width": 4, "depth": 2}, discriminator=judge))
    assert "\naudio = game.vocode(mel)  # " in card
    assert "generate" not in card.partition("## Recipe")[0].replace("generator", "")


def test_contradictory_generator_settings_are_refused():
    def refused(**settings):
        with pytest.raises(RecipeError) as error:
            hifigan.Generator(**{"mel": TINY, "rates": (4, 2), "up_sizes": (8, 4), "width": 8, **settings})
        return str(error.value)

    assert refused(rates=(4, 4)) == "the product of `rates` is 16; expected 8, the hop of the mel"
    assert refused(up_sizes=(8,)).startswith(
        "`up_sizes` is [8]; expected one size for each of the `rates` [4, 2], at least the rate"
    )
    assert refused(up_sizes=(3, 4)).startswith("`up_sizes` is [3, 4]; ")
    assert refused(width=3) == "`width` is 3; expected 4 or more, as 2 stages halve it"
    assert refused(dilations=((1,),)).startswith(
        "`dilations` is [[1]]; expected one list for each of the `sizes` [3, 7, 11]"
    )
    with pytest.raises(RecipeError, match="expected a multiple of 16"):
        hifigan.MultiScaleDiscriminator(width=24)


@pytest.mark.parametrize("name", GAMES)
def test_a_vocoder_needs_whole_hops_at_the_sample_rate_of_its_contract(name):
    game = make(name)
    assert game.data_spec() == SoundSpec(sample_rate=22_050, channels=1)
    assert game.spec == SoundSpec(samples=8192, sample_rate=22_050, channels=1, peak=0.95)
    assert game.spec_with({"samples": 64}).samples == 64
    for samples, nearest in ((60, 64), (16, 32)):
        with pytest.raises(RecipeError) as error:
            game.spec_with({"samples": samples})
        multiple = "expected a multiple of the hop, 8, of at least the FFT size, 32"
        assert str(error.value) == f"`data.spec.samples` is {samples}; {multiple}. Try {nearest}."
    with pytest.raises(RecipeError, match=r"^`data.spec.sample_rate` is 16000, but the game needs 22050; leave it out"):
        game.spec_with({"sample_rate": 16_000})


def test_a_contract_name_in_a_recipe_is_replaced_by_its_settings():
    recipe = hifigan.SMALL.recipe().but({"network.mel": "tacotron2"})
    game = hifigan.SMALL.build(recipe)
    assert game.contract == CONTRACTS["tacotron2"]
    assert game.recipe.network["mel"] == CONTRACTS["tacotron2"].model_dump()
    assert hifigan.SMALL.build(hifigan.SMALL.recipe().but({"network.mel.low_hz": 50.0})).contract.low_hz == 50.0


# The game.


class Stub(nn.Module):
    """Two discriminators with one layer each, which return multiples of the mean of the audio."""

    depth, factors = 3, (1.0, 2.0)

    def __init__(self):
        super().__init__()
        self.discriminators = self.factors
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, audio):
        logits = [self.scale * factor * audio.mean(dim=(1, 2)) for factor in self.factors]
        return Judgement(logits, [[10 * part] for part in logits])


REAL, FAKE = torch.full((2, 1, 64), 0.75), torch.full((2, 1, 64), 0.25)


def terms(game, player):
    batch = {"audio": REAL, "fake": FAKE}
    return {name: float(value.detach()) for name, value in getattr(game, f"{player}_loss")(batch).items()}


def adversary(objective, weight):
    return Adversary(Stub(), objective=objective, regularizers=[FeatureMatching(weight=weight)], images=False)


def test_melgan_minimises_hinge_losses_and_feature_matching():
    game = melgan.MelGAN(make("melgan").generator, adversary(hinge, weight=5.0))
    assert terms(game, "discriminator") == pytest.approx({"adversarial": (0.25 + 1.25) + (0 + 1.5)})
    assert terms(game, "generator") == pytest.approx({"adversarial": -0.75, "feature_matching": 5 * (5 + 10)})


def test_hifigan_minimises_squares_features_and_mels():
    game = hifigan.HiFiGAN(make("hifigan").generator, *(adversary(least_squares, weight=2.0) for _ in range(2)))
    squares = (0.25**2 + 0.25**2) + (0.5**2 + 0.5**2)
    assert terms(game, "discriminator") == pytest.approx({"mpd/adversarial": squares, "msd/adversarial": squares})
    found = terms(game, "generator")
    apart = (MelSpectrogram(TINY)(REAL) - MelSpectrogram(TINY)(FAKE)).abs().mean()
    fooled, matched = 0.75**2 + 0.5**2, 2 * 15
    assert found == pytest.approx(
        {
            "mpd/adversarial": fooled,
            "mpd/feature_matching": matched,
            "msd/adversarial": fooled,
            "msd/feature_matching": matched,
            "mel": 45 * float(apart),
        }
    )


def test_presets_match_features_with_the_published_weights():
    weights = [preset.recipe().regularizers["feature_matching"]["weight"] for preset in (hifigan.V1, melgan.MELGAN)]
    assert weights == pytest.approx([2.0, 10 * 4 / 5 / 3])  # the code of MelGAN: 4 / (depth + 1), a mean of 3 scales


def test_the_mel_term_uses_the_full_band_for_every_contract():
    mel = TINY.but(high_hz=4000)
    game = hifigan.V1.create(**SIZES | {"mel": mel.model_dump()}, **BLOCKS, mpd=MPD, msd=MSD)
    assert game.mel.contract == mel
    assert game.full_band_mel.contract == TINY


def test_the_stft_term_is_present_only_with_a_weight():
    generator = make("melgan").generator
    game = melgan.MelGAN(generator, adversary(hinge, weight=1.0), stft_weight=3.0)
    batch = {"audio": noise(4096), "fake": 0.5 * noise(4096)}
    apart = losses.multi_resolution_stft(batch["audio"], batch["fake"]).sum()
    assert_close(game.generator_loss(batch)["stft"], 3 * apart)
    assert "stft" not in melgan.MelGAN(generator, adversary(hinge, weight=1.0)).generator_loss(batch)


def test_staged_audio_ends_with_the_last_whole_hop():
    game = make("hifigan")
    staged = game.stage({"audio": noise(70, batch=3)})
    assert staged["audio"].shape == staged["fake"].shape == (3, 1, 64)
    assert torch.equal(staged["audio"], noise(70, batch=3)[..., :64])
    assert staged["fake"].requires_grad


def test_resynthesis_keeps_the_length_for_odd_fft_sizes():
    """If `fft_size - hop` is odd, the frames of a sound end one sample early."""
    odd = TINY.but(fft_size=31, window=31)
    game = melgan.MELGAN.create(
        mel=odd.model_dump(),
        rates=(4, 2),
        generator={"width": 4, "depth": 2},
        discriminator={"scales": 1, "width": 4, "depth": 1},
    ).eval()
    for length in (64, 65, 71):
        whole = game.resynthesize(noise(length))
        assert whole.shape == (1, 1, length)
        streamed = torch.cat(list(game.stream_audio([noise(length)[0, 0]])))[None, None]
        assert_close(streamed, whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("contract", list(CONTRACTS))
def test_losses_can_be_computed_for_every_contract(contract):
    mel = CONTRACTS[contract]
    torch.manual_seed(0)
    game = melgan.MELGAN.create(
        mel=mel.model_dump(), generator={"width": 1, "depth": 1}, discriminator={"scales": 1, "width": 4, "depth": 1}
    )
    staged = game.stage({"audio": noise(2048, batch=2)})
    assert staged["audio"].shape == staged["fake"].shape == (2, 1, 2048)
    assert all(loss(staged) for loss in (game.discriminator_loss, game.generator_loss))
    assert game.apply({"audio": noise(2048)})["resynthesised"].shape == (1, 1, 2048)


@pytest.mark.parametrize("layer", [nn.Conv1d(64, 32, 7), nn.ConvTranspose1d(64, 32, 16, 8, padding=4)])
def test_initial_weights_amplify_noise_by_the_gain(layer):
    torch.manual_seed(0)
    melgan.initialize_with_gain([nn.Sequential(layer)], 2.0)
    made = layer(torch.randn(1, 64, 4000))
    assert_close(made.std(), torch.tensor(2.0), rtol=0.05, atol=0)
    assert made.mean().abs() < 0.02  # the biases are 0


def test_the_initial_gain_makes_melgan_depend_on_the_mels_from_the_start():
    def heard(**generator):
        torch.manual_seed(0)
        made = melgan.MELGAN.create(generator={"width": 8, "depth": 3} | generator).eval().generator
        with torch.no_grad():
            mel = torch.randn(1, 80, 40)
            return float((made(mel) - made(-mel)).std())  # biases, which sound alike in both, are not heard

    assert heard() < 1e-4
    assert 0.1 < heard(gain=1.0) < 1.0


def test_melgan_scales_every_recording_by_a_random_gain():
    audio = noise(64, batch=400)
    with drawing(0, torch.device("cpu"), rows=400, total=400):
        staged = make("melgan").stage({"audio": audio})
    loudness = staged["audio"].abs().amax(dim=2) / audio.abs().amax(dim=2)
    assert_close(staged["audio"], loudness[..., None] * audio)
    assert 0.3 <= float(loudness.min()) < 0.31
    assert 0.99 < float(loudness.max()) <= 1
    assert float(loudness.mean()) == pytest.approx(0.65, abs=0.03)


def test_the_energy_objective_is_refused():
    with pytest.raises(RecipeError) as error:
        hifigan.SMALL.but(objective="energy").build()
    assert str(error.value) == (
        "mpd: the objective `energy` does not support a discriminator that returns logits; choose another objective"
    )


# Discriminators and losses.


def test_each_scale_has_a_shorter_input():
    for network in (melgan.Discriminator(width=4, depth=2), hifigan.MultiScaleDiscriminator(width=16)):
        lengths = [features[0].shape[-1] for features in network(noise(512)).features]
        assert [length / 512 for length in lengths] == pytest.approx([1, 1 / 2, 1 / 4], rel=0.01)


def test_a_period_discriminator_does_not_mix_phases():
    network = hifigan.PeriodDiscriminator(3, width=1)
    audio = noise(66).requires_grad_()
    network(audio)[0].view(-1, 3)[:, 1].sum().backward()
    touched = audio.grad.view(-1, 3).abs().sum(dim=0) > 0
    assert touched.tolist() == [False, True, False]


def test_only_the_first_scale_is_spectrally_normalised():
    kinds = [
        {key.rpartition(".")[2] for key in one.state_dict()}
        for one in hifigan.MultiScaleDiscriminator(width=16).discriminators
    ]
    assert kinds == [{"original", "u", "v", "bias"}] + 2 * [{"original0", "original1", "bias"}]


def test_audio_is_transformed_between_discriminators():
    halve = nn.AvgPool1d(2)
    judges = Discriminators([Identity(), Identity(), Identity()], between=halve)
    assert [logits.shape[-1] for logits in judges(noise(8)).logits] == [8, 4, 2]
    assert [logits.shape[-1] for logits in Discriminators([Identity(), Identity()])(noise(8)).logits] == [8, 8]


class Identity(nn.Module):
    def forward(self, audio):
        return audio, [audio]


def test_the_stft_loss_of_half_the_sound_is_known():
    audio = 100 * noise(8192)  # nothing is raised to the least power
    assert_close(losses.multi_resolution_stft(audio, audio / 2), torch.tensor([0.5, math.log(2)]), rtol=1e-4, atol=1e-4)
    assert losses.multi_resolution_stft(audio, audio).tolist() == [0, 0]
    ratio = losses.magnitudes(2 * audio[:, 0], Resolution(64, 16, 32)) / losses.magnitudes(
        audio[:, 0], Resolution(64, 16, 32)
    )
    assert_close(ratio, torch.full_like(ratio, 2.0))


# BigVGAN's activations.


def test_snake_adds_a_squared_sine():
    snake = bigvgan.Snake(2, separate=True)
    with torch.no_grad():
        snake.alpha.copy_(torch.tensor([2.0, 3.0]).log())
        snake.beta.copy_(torch.tensor([4.0, 5.0]).log())
    x = torch.tensor([[[0.5], [0.5]]])
    expected = [0.5 + math.sin(1.0) ** 2 / 4, 0.5 + math.sin(1.5) ** 2 / 5]
    assert_close(snake(x).flatten(), torch.tensor(expected))
    plain = bigvgan.Snake(1, separate=False, logarithmic=False)  # begins with α = 1
    assert_close(plain(x[:, :1]).flatten(), torch.tensor([0.5 + math.sin(0.5) ** 2]))


def test_anti_aliased_activations_do_not_alias():
    class Square(nn.Module):
        def forward(self, x):
            return x.square()

    frequency = 0.4  # of the rate: the square has 0.8, which folds to 0.2
    tone = torch.cos(2 * math.pi * frequency * torch.arange(400))[None, None]

    def level(audio, at):
        time = torch.arange(400)[100:300]
        return float((audio[0, 0, 100:300] * torch.exp(2j * math.pi * at * time)).mean().abs())

    plain, filtered = tone.square(), bigvgan.AntiAliased(Square())(tone)
    assert level(plain, 0.2) == pytest.approx(0.25, rel=0.01)
    assert level(filtered, 0.2) < 0.1
    assert level(filtered, 0.0) > 0.3


@pytest.mark.parametrize(("ratio", "taps"), [(2, 12), (3, 15)])
def test_the_low_pass_filter_passes_low_frequencies(ratio, taps):
    weights = bigvgan.low_pass(ratio, taps).flatten().double()
    assert float(weights.sum()) == pytest.approx(1.0)
    assert_close(weights, weights.flip(0))
    response = [(weights * torch.exp(2j * math.pi * f * torch.arange(taps))).sum().abs() for f in (0.05, 0.5)]
    assert float(response[0]) > 0.85
    assert float(response[1]) < 0.01


# Published checkpoints.


FIXTURES = {
    fixture.values[0].name: fixture.values[0]
    for fixture in find_fixtures("audio", Path(__file__).parent / "conformance")
}
RECORDED = {
    "melgan_generator_2res": 20,
    "hifigan_generator_v1": 80,
    "hifigan_generator_v3": 80,
    "bigvgan_generator": 20,
}
"""Recorded outputs of published generators, and their numbers of bands."""


@cache
def recorded(name):
    return FIXTURES[name].state_dict()


def imported(name, state=None, **arguments):
    return gan_audio.load_reference(FIXTURES[name].network, recorded(name) if state is None else state, **arguments)


def new_layout(state):
    """Returns a checkpoint with torch's new names of the tensors of weight normalisation."""
    names = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
    ends = {key: next((old for old in names if key.endswith(old)), "") for key in state}
    return {key.removesuffix(old) + names.get(old, ""): state[key] for key, old in ends.items()}


def folded(state):
    """Returns a checkpoint without weight normalisation, as published for inference."""
    layers = {key.removesuffix(".weight_g") for key in state if key.endswith(".weight_g")}
    plain = {key: value for key, value in state.items() if not key.endswith((".weight_g", ".weight_v"))}
    for layer in layers:
        direction = state[f"{layer}.weight_v"]
        norm = direction.flatten(1).norm(dim=1).view(-1, *[1] * (direction.ndim - 1))
        plain[f"{layer}.weight"] = state[f"{layer}.weight_g"] * direction / norm
    return plain


@pytest.mark.parametrize(("name", "bands"), RECORDED.items())
def test_generators_are_imported_from_every_layout_of_weights(name, bands):
    mel = torch.randn(1, bands, 6, generator=torch.Generator().manual_seed(0))
    audio = imported(name)(mel)
    assert torch.equal(imported(name, new_layout(recorded(name)))(mel), audio)
    plain = imported(name, folded(recorded(name)))
    assert_close(plain(mel), audio, rtol=0, atol=1e-5)
    assert not any("parametrizations" in key for key in plain.state_dict())


@pytest.mark.parametrize("name", [*RECORDED, "melgan_discriminator", "hifigan_mpd_period3", "hifigan_msd_first"])
def test_every_weight_of_the_checkpoint_is_in_the_network(name):
    sums = [
        sorted(float(tensor.double().sum()) for tensor in state.values())
        for state in (recorded(name), imported(name, **FIXTURES[name].arguments).state_dict())
    ]
    assert sums[0] == sums[1]


@pytest.mark.parametrize("name", ["melgan_generator_2res", "hifigan_generator_v3", "bigvgan_generator"])
def test_a_checkpoint_that_lacks_a_tensor_or_has_one_of_another_shape_is_refused(name):
    kinds = {tuple(part for part in key.split(".") if not part.isdigit()): key for key in recorded(name)}
    for key in kinds.values():
        if key != "conv_post.bias" or name != "bigvgan_generator":  # the second version has none
            with pytest.raises(CheckpointError):
                imported(name, {other: value for other, value in recorded(name).items() if other != key})
        with pytest.raises(CheckpointError):
            imported(name, recorded(name) | {key: torch.zeros(7, 7, 7)})


NETWORKS = [*RECORDED, "melgan_discriminator", "hifigan_mpd_period3", "hifigan_msd_first"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("other", NETWORKS)
def test_a_checkpoint_of_another_network_is_refused(name, other):
    if FIXTURES[name].network == FIXTURES[other].network:
        return
    with pytest.raises(CheckpointError):
        imported(name, recorded(other))


def test_settings_that_shapes_do_not_determine_are_arguments_and_are_checked():
    name = "hifigan_generator_v3"
    mel = torch.randn(1, 80, 6)
    other = imported(name, resblock_dilation_sizes=[[1, 2], [2, 6], [3, 9]])
    assert not torch.allclose(other(mel), imported(name)(mel))
    assert other.context != imported(name).context
    with pytest.raises(CheckpointError, match="give its `period`"):
        imported("hifigan_mpd_period3")
    with pytest.raises(CheckpointError, match="`resblock` is '1', but '2' in the checkpoint; omit it"):
        imported(name, resblock="1")
    with pytest.raises(CheckpointError, match="unknown argument of hifigan/generator `upsample_rate`"):
        imported(name, upsample_rate=[8, 8, 4])


def test_an_imported_generator_has_the_published_or_the_given_contract():
    name = "hifigan_generator_v3"
    assert imported(name).contract == CONTRACTS["hifigan-22k"]
    assert imported(name, mel="tacotron2").contract == CONTRACTS["tacotron2"]
    own = CONTRACTS["hifigan-22k"].but(sample_rate=16_000, high_hz=None).model_dump()
    assert imported(name, mel=own).contract.model_dump() == own
    with pytest.raises(CheckpointError, match="`mel` has 100 bands and a hop of 256; the checkpoint needs 80 and 256"):
        imported(name, mel="24k")


@pytest.mark.parametrize(
    ("bands", "version", "rates", "contract"),
    [
        (100, 1, (8, 8, 2, 2), CONTRACTS["24k"]),
        (80, 1, (8, 8, 2, 2), CONTRACTS["hifigan-22k"]),
        (80, 2, (8, 8, 2, 2), CONTRACTS["hifigan-22k"].but(high_hz=None)),
        (128, 2, (8, 8, 2, 2), CONTRACTS["24k"].but(sample_rate=44_100, mels=128)),
        (128, 2, (8, 8, 4, 2), CONTRACTS["24k"].but(sample_rate=44_100, mels=128, hop=512, fft_size=2048, window=2048)),
    ],
)
def test_released_bigvgans_are_recognised_by_their_bands_hop_and_last_bias(bands, version, rates, contract):
    names = {"first": "conv_pre", "last": "conv_post"}
    state = {}

    def layer(name, *shape, bias=None):
        state[f"{name}.weight_v"], state[f"{name}.weight_g"] = torch.randn(shape), torch.randn(shape[0], 1, 1)
        if bias:
            state[f"{name}.bias"] = torch.randn(bias)

    def activation(name, channels):
        state[f"{name}.act.alpha"], state[f"{name}.act.beta"] = torch.randn(channels), torch.randn(channels)
        for kind in ("upsample", "downsample.lowpass"):
            state[f"{name}.{kind}.filter"] = bigvgan.low_pass(2, 12)

    layer(names["first"], 16, bands, 7, bias=16)
    for stage, rate in enumerate(rates):
        channels = 8 >> stage
        layer(f"ups.{stage}.0", 2 * channels, channels, 2 * rate, bias=channels)
        for place, kind in enumerate(("convs1", "convs2")):
            layer(f"resblocks.{stage}.{kind}.0", channels, channels, 3, bias=channels)
            activation(f"resblocks.{stage}.activations.{place}", channels)
    activation("activation_post", 1)
    layer(names["last"], 1, 1, 7, bias=1 if version == 1 else None)
    generator = gan_audio.load_reference("bigvgan/generator", state)
    assert generator.contract == contract
    assert isinstance(generator.layers[-1], nn.Tanh if version == 1 else nn.Hardtanh)
    assert generator(torch.randn(1, bands, 4)).shape == (1, 1, 4 * contract.hop)


@pytest.mark.parametrize(
    ("name", "network", "arguments"),
    [
        ("hifigan/mpd", lambda: hifigan.MultiPeriodDiscriminator(width=1), {}),
        ("bigvgan/mpd", lambda: hifigan.MultiPeriodDiscriminator(periods=(2, 5), width=1), {"mpd_reshapes": [2, 5]}),
        ("hifigan/msd", lambda: hifigan.MultiScaleDiscriminator(width=16), {}),
        ("bigvgan/mrd", lambda: bigvgan.MultiResolutionDiscriminator(width=2), {}),
    ],
)
def test_whole_sets_of_discriminators_are_imported(name, network, arguments):
    torch.manual_seed(0)
    ours, audio = network().eval(), noise(3000)
    names = {
        "parametrizations.weight.original0": "weight_g",
        "parametrizations.weight.original1": "weight_v",
        ".layers.": ".convs.",
        ".judge.": ".conv_post.",
    }
    state = ours.state_dict()
    for mine, theirs in names.items():
        state = {key.replace(mine, theirs): value for key, value in state.items()}
    found, wanted = gan_audio.load_reference(name, state, **arguments).eval()(audio), ours(audio)
    for mine, theirs in zip(wanted.logits, found.logits, strict=True):
        assert torch.equal(mine, theirs)


def test_a_vocoder_without_discriminators_is_loaded_without_the_compiler_and_their_memory(tmp_path):
    """Importing torch's compiler takes seconds and 150 MB; HiFi-GAN's discriminators have 280 MB."""
    code = """if True:
        import sys
        from pathlib import Path
        import gan_audio
        from gan_core.models.folder import save_model

        if sys.argv[1] == "save":
            save_model(gan_audio.create("hifigan", preset="v3"), Path(sys.argv[2]), networks=["generator"])
        else:
            game = gan_audio.load(sys.argv[2])
            print(game.absent, all(p.is_meta for name in game.absent for p in getattr(game, name).parameters()))
            print("torch._dynamo" in sys.modules)
    """
    for mode, words in (("save", ""), ("load", "('mpd', 'msd') True\nFalse\n")):
        command = [sys.executable, "-c", code, mode, str(tmp_path / "model")]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.stdout == words, answer.stderr


def test_the_model_card_of_a_vocoder_has_no_note_on_tiles_of_images():
    assert "tile" not in model_card(gan_audio.create("melgan", generator={"width": 4, "depth": 1}))
