"""MidiNet: networks, losses, conditioning on previous bars, stored progressions, and commands."""

import io
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d, softplus
from torch.testing import assert_close

import gan_audio
from gan_audio import DOMAIN
from gan_audio.published.midinet import IMPORTERS
from gan_audio.systems import midinet
from gan_audio.systems.midinet import KEPT, FromPitches, MidiNet, ToPitches, chord_vector, piano_roll
from gan_audio.tune import figures as tune_figures
from gan_audio.tune.compose import SCALES, make_tunes
from gan_audio.tune.midi import SILENT
from gan_audio.tune.spec import TuneSpec
from gan_core import train
from gan_core.cli import main
from gan_core.data import TensorDataset
from gan_core.errors import DataError, RecipeError
from gan_core.play.objectives import non_saturating
from gan_core.play.regularizers import Consistency, FeatureMatching, LabelSmoothing, Replay

TINY = {"latent_dim": 4, "width": 4, "hidden": 8}
C, G, AM = 0, 7, 21


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def tiny(*, bars=2, **rules):
    return MidiNet(midinet.Generator(**TINY), midinet.Discriminator(width=4, hidden=8), bars=bars, **rules)


def tune(*bars, chords):
    """Returns a tune whose bars have one pitch each, `[1, 2, 16 * bars]`."""
    return torch.tensor([bars, chords])[None].repeat_interleave(16, dim=2)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- networks


def test_midinet_has_the_published_number_of_parameters():
    with torch.device("meta"):
        networks = midinet.Generator(), midinet.Discriminator()
        chord = torch.empty(2, 13)
        bar = networks[0](torch.empty(2, 100), chord, torch.empty(2, 1, 16, 128))
    assert [count(network) for network in networks] == [530_625, 312_703]
    assert bar.shape == (2, 1, 16, 128)
    assert networks[1](bar, chord).shape == (2,)


def test_layers_over_all_pitches_equal_convolutions():
    bar, chord = torch.randn(3, 1, 16, 128), torch.randn(3, 13)
    layer = FromPitches(1, 5, steps=1)
    assert_close(layer(bar), conv2d(bar, layer.weight, layer.bias, (1, 2)), rtol=1e-4, atol=1e-5)
    told = torch.cat([bar, chord[:, :, None, None].expand(-1, -1, 16, 128)], dim=1)
    layer = FromPitches(14, 5, steps=2)
    assert_close(layer(bar, chord), conv2d(told, layer.weight, layer.bias, 2), rtol=1e-4, atol=1e-4)
    layer, features = ToPitches(6), torch.randn(3, 6, 16, 1)
    assert_close(layer(features), conv_transpose2d(features, layer.weight, layer.bias, (1, 2)), rtol=1e-4, atol=1e-5)


def test_a_bar_depends_on_the_chord_and_the_previous_bar():
    network = midinet.Generator(**TINY).eval()
    z = torch.randn(1, 4)
    chords = chord_vector(torch.tensor([C, AM]))
    bars = piano_roll(torch.tensor([[60] * 16, [72] * 16]))
    with torch.no_grad():
        made = {(c, b): network(z, chords[c : c + 1], bars[b : b + 1]) for c in (0, 1) for b in (0, 1)}
    assert not torch.equal(made[0, 0], made[1, 0])
    assert not torch.equal(made[0, 0], made[0, 1])
    assert all(bar.min() > 0 and bar.max() < 1 for bar in made.values())


def test_midinets_discriminator_uses_batch_statistics_in_evaluation():
    network = midinet.Discriminator(width=4, hidden=8)
    bar, chord = torch.rand(6, 1, 16, 128), torch.rand(6, 13)
    assert_close(network.train()(bar, chord), network.eval()(bar, chord))
    assert not any("running" in name for name in network.state_dict())


def test_a_chord_vector_has_the_root_and_a_minor_flag():
    rows = chord_vector(torch.tensor([C, G, AM])).tolist()
    assert [[k for k, value in enumerate(row) if value] for row in rows] == [[0], [7], [9, 12]]


def test_midinets_settings_are_inferred_from_shapes():
    state = {"g_h0_lin.weight": torch.zeros(8, 17), "g_h1_lin.weight": torch.zeros(16, 21)}
    published = IMPORTERS["midinet/generator"](state)
    assert published.settings == {"latent_dim": 4, "width": 4, "hidden": 8}
    assert published.arguments == {"z_dim": 4, "y_dim": 13, "gf_dim": 4, "gfc_dim": 8}


# --- the game


def test_the_papers_training():
    recipe = midinet.MIDINET.recipe()
    assert recipe.objective == "non_saturating"
    assert recipe.regularizers["label_smoothing"]["real"] == 0.9
    assert recipe.players["generator"].turns == 2
    assert (recipe.optimizer.learning_rate, recipe.optimizer.betas[0]) == (5e-5, 0.5)
    assert recipe.train.batch_size == 72
    game = midinet.MIDINET.check(recipe).game
    assert (game["feature_matching_weight"], game["mean_bar_weight"]) == (0.1, 0.01)
    assert midinet.MIDINET.build(recipe).spec == TuneSpec(bars=8, transposed=True)


def test_a_turn_uses_one_bar_of_each_tune_and_the_previous_bar():
    game = tiny(bars=3)
    tunes = tune(60, 64, 67, chords=[C, AM, G]).repeat(200, 1, 1)
    real, condition = game.real({"tune": tunes})
    before = {60: SILENT, 64: 60, 67: 64}
    chord = {60: C, 64: AM, 67: G}
    pitches = real.argmax(dim=3)[:, 0, 0].tolist()
    assert set(pitches) == {60, 64, 67}
    assert torch.equal(real, piano_roll(torch.tensor(pitches)[:, None].repeat(1, 16)))
    previous = torch.tensor([before[pitch] for pitch in pitches])[:, None].repeat(1, 16)
    assert torch.equal(condition["previous"], piano_roll(previous))
    assert not condition["previous"][pitches.index(60)].any()
    assert torch.equal(condition["chord"], chord_vector(torch.tensor([chord[pitch] for pitch in pitches])))


def test_the_target_for_real_bars_is_0_9():
    game = tiny(regularizers=[LabelSmoothing(real=0.9)], objective=non_saturating)
    seen = []
    game.discriminator.network.register_forward_hook(lambda module, inputs, output: seen.append(output))
    terms = game.discriminator_loss({"tune": make_tunes(range(6), bars=2)})
    real, fake = seen
    expected = (0.9 * softplus(-real) + 0.1 * softplus(real)).mean() + softplus(fake).mean()
    assert_close(sum(terms.values()), expected)


def test_means_of_features_and_of_bars_are_matched():
    game = tiny(feature_matching_weight=0.1, mean_bar_weight=0.01)
    with torch.no_grad():
        for parameter in game.generator.to_bar.parameters():
            parameter.zero_()  # every bar is ½ throughout
    game.discriminator.network.first.weight.data.fill_(0.01)
    game.discriminator.network.first.bias.data.zero_()
    terms = game.generator_loss({"tune": tune(60, 60, chords=[C, AM]).repeat(2, 1, 1)})
    assert set(terms) == {"adversarial", "feature_matching", "mean_bar"}
    assert_close(terms["mean_bar"], torch.tensor(0.01 * 0.5 * 16 * 128 * 0.25))
    # of 2 steps and 128 pitches, a real bar has 2 ones and a fake one 128 halves: 14 features at 8 places
    assert_close(terms["feature_matching"], torch.tensor(0.1 * 0.5 * 14 * 8 * (0.01 * (128 - 2)) ** 2))


def test_both_weights_are_settings_of_the_game():
    without = tiny(feature_matching_weight=0.0, mean_bar_weight=0.0).generator_loss(
        {"tune": make_tunes([0, 1], bars=2)}
    )
    assert (without["feature_matching"].item(), without["mean_bar"].item()) == (0, 0)


def test_incompatible_regularizers_are_refused():
    with pytest.raises(RecipeError, match=r"^`regularizers\.feature_matching`: midinet has its own feature matching"):
        tiny(regularizers=[FeatureMatching()])
    with pytest.raises(RecipeError, match=r"^`regularizers\.replay`: the pool does not store the chords that midinet"):
        tiny(regularizers=[Replay()])
    with pytest.raises(RecipeError, match=r"^`regularizers\.consistency` needs images, but the axes of this game's"):
        tiny(regularizers=[Consistency()])


class Echo(nn.Module):
    """A generator that raises the previous bar by a semitone and records its inputs."""

    def __init__(self):
        super().__init__()
        self.latent_dim, self.num_classes, self.inputs = 2, None, []
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, z, chord, previous):
        self.inputs.append((z, chord, previous))
        return previous.roll(1, dims=3) * 0.6 + 0.1


def test_tunes_are_generated_bar_by_bar_from_chords_and_a_bar_of_the_data():
    game = MidiNet(Echo(), midinet.Discriminator(width=4, hidden=8), bars=4)
    game.study(TensorDataset({"tune": tune(62, 64, 65, 70, chords=[C, G, AM, C])}))
    game.generator.inputs.clear()
    made = game.generate(3, seed=0)
    assert made[:, 0, ::16].tolist() == [[71, 72, 73, 74]] * 3  # from the last bar of the data's tune on
    assert made[:, 1, ::16].tolist() == [[C, G, AM, C]] * 3
    assert len(game.generator.inputs) == 4
    for _, _, previous in game.generator.inputs:
        assert (previous.sum(dim=3) == 1).all()  # one pitch a step, of zeros and ones
        assert set(previous.unique().tolist()) == {0, 1}
    chords = torch.stack([chord for _, chord, _ in game.generator.inputs])
    assert torch.equal(chords[:, 0], chord_vector(torch.tensor([C, G, AM, C])))
    first, second = game.generator.inputs[0][0], game.generator.inputs[1][0]
    assert not torch.equal(first, second)  # every bar has a latent of its own


def test_a_model_without_data_has_a_default_progression_in_all_keys():
    game = tiny(bars=6)
    made = game.generate(60, seed=0)
    assert made.shape == (60, 2, 96)
    found = {tuple(row) for row in made[:, 1, ::16].tolist()}
    assert len(found) == 12
    assert {(0, 7, 21, 5, 0, 7), (2, 9, 23, 7, 2, 9)} <= found  # C G Am F, D A Bm G


def test_a_saved_model_stores_the_progressions_of_the_data(tmp_path):
    tunes = make_tunes(range(1000), bars=4)
    game = tiny(bars=4)
    game.study(TensorDataset({"tune": tunes}))
    assert len(torch.unique(game.progressions, dim=0)) == 36  # the answers of `gan_audio.tune.compose` in all its keys
    rows = [k * 1000 // KEPT for k in range(KEPT)]
    assert torch.equal(game.primers, tunes[rows, 0, 48:])
    restored = tiny(bars=4).restore(game.save_pretrained(tmp_path / "model"))
    assert torch.equal(restored.generate(4, seed=1), game.generate(4, seed=1))
    assert not torch.equal(tiny(bars=4).generate(4, seed=1)[:, 1], game.generate(4, seed=1)[:, 1])


def test_data_that_are_not_tunes_of_the_right_length_are_refused():
    with pytest.raises(DataError, match=r"^the data have `audio` \[1, 64\]; midinet needs tunes, `tune` \[2, 32\] "):
        tiny().study(TensorDataset({"audio": torch.zeros(4, 1, 64)}))
    with pytest.raises(DataError, match=r"^the data have `tune` \[2, 48\]; midinet needs tunes"):
        tiny().study(TensorDataset({"tune": make_tunes(range(4), bars=3)}))


@pytest.mark.slow
def test_midinet_learns_the_key_the_chords_and_the_rhythm(tmp_path):
    tunes = make_tunes(range(0, 4000, 8), bars=4)  # 500, all in C
    game = midinet.SMALL.but(settings={"bars": 4}, network={"hidden": 64, "width": 16}).build()
    game.study(TensorDataset({"tune": tunes}))
    before = game.generate(64, seed=0)
    settings = {"sample_every": None, "checkpoint_every": None, "device": "cpu", "shown": False}
    train(game, data={"tune": tunes}, out=tmp_path / "run", steps=1000, batch_size=32, **settings)
    after = game.generate(64, seed=0)

    def share_in_c(made):
        return float(torch.isin(made[:, 0] % 12, torch.tensor(SCALES[0])).double().mean())

    def onset_distance(made):
        return tune_figures.total_variation(tune_figures.onset(made), tune_figures.onset(tunes))

    assert share_in_c(before) < 0.75
    assert share_in_c(after) > 0.9
    assert tune_figures.on_chord(before) < 0.45
    assert tune_figures.on_chord(after) > 0.6
    assert onset_distance(before) > 0.6
    assert onset_distance(after) < 0.5
    assert tune_figures.distinct_bars(before) < 0.1
    assert tune_figures.distinct_bars(after) > 0.25


# --- the command line


@pytest.fixture
def gan(capfd, monkeypatch, tmp_path):
    """Runs `gan-audio WORDS…` in an empty folder; returns exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["gan-audio", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
        with pytest.raises(SystemExit) as end:
            main(DOMAIN)
        out, err = capfd.readouterr()
        return end.value.code or 0, out, err

    return call


def test_midinet_runs_from_training_to_evaluation(gan, tmp_path):
    small = [f"network.{name}={value}" for name, value in TINY.items()]
    chosen = [
        word
        for setting in (*small, "game.bars=2", "train.show=4", "train.batch_size=16")
        for word in ("--set", setting)
    ]
    status, _, err = gan("train", "midinet", "--data", "tunes", "--out", "run", "--steps", 2, *chosen)
    assert status == 0, err
    shown = {path.name for path in (tmp_path / "run" / "samples").iterdir()}
    assert {f"{name}.{kind}" for name in ("real", "00000002") for kind in ("png", "mid", "wav")} <= shown
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<audio") == 2
    assert gan("generate", "run", "-n", 3, "--out", "made")[0] == 0
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["00000.mid", "00001.mid", "00002.mid"]
    status, out, err = gan("evaluate", "run", "--data", "tunes", "-n", 20)
    assert status == 0, err
    assert "chord_tones_of_real" in out
    assert "spectrum" not in out
    # what was generated is data again
    again = [*chosen, "--set", "train.batch_size=2"]
    assert gan("train", "midinet", "--data", "made", "--out", "again", "--steps", 1, *again)[0] == 0


def test_invalid_requests_are_refused_in_one_line(gan, tmp_path):
    tiny().save_pretrained(tmp_path / "by-hand")
    gan_audio.create("midinet", **TINY).save_pretrained(tmp_path / "model")
    wrong = {
        ("interpolate", "model", "--out", "a.wav"): "midinet draws a latent for every bar, so it has no latents",
        (
            "train",
            "midinet",
            "--data",
            "drums",
            "--out",
            "run",
        ): "drums has `audio`, `label`, but midinet reads `tune`; give data whose items have `tune`",
        (
            "train",
            "wavegan",
            "--data",
            "tunes",
            "--out",
            "run",
        ): "tunes has `tune`, but wavegan reads `audio`; give data whose items have `audio`",
        (
            "evaluate",
            "model",
            "--data",
            "tunes",
            "--metrics",
            "spectrum",
        ): "the metric `spectrum` needs data with sample_rate; tunes has none",
        ("generate", "model", "-n", "2", "--out", "b", "--label", "1"): "this midinet was trained without classes",
    }
    for words, message in wrong.items():
        status, out, err = gan(*words)
        assert (status, out, err.count("\n")) == (2, "", 1), (words, err)
        assert err.startswith(f"gan-audio: {message}"), err
