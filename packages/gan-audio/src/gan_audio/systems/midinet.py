"""MidiNet: melodies bar by bar, conditioned on chords and on the previous bar.

- `midinet`: Yang, Chou & Yang, ISMIR 2017, arXiv:1703.10847, with the layers and settings of the published code
  (github.com/RichardYang40148/MidiNet, v1).

A bar is a piano roll of 16 steps and 128 pitches. The chord is an input of every layer of the generator. The previous
bar passes through the conditioner network, whose features at 16, 8, 4 and 2 steps are concatenated to the generator's.

There are two differences from the published code. Samples are generated with the running statistics of batch
normalisation instead of those of the batch, so that a melody does not depend on the others in its batch. Each of the
generator's two turns has a new batch instead of the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear
from torch.utils.data import Dataset

from gan_audio.tune.midi import PITCHES, SILENT, STEPS, in_key
from gan_audio.tune.spec import Bars, TuneSpec
from gan_core import draws
from gan_core.data import Batch, read
from gan_core.errors import DataError, RecipeError
from gan_core.nn.blocks import evaluating
from gan_core.nn.initialization import initialize_weights
from gan_core.nn.precision import full_precision
from gan_core.play.conditions import Truncation
from gan_core.play.exported import BATCH, Exported, Input
from gan_core.play.objectives import Objective, Terms, feature_matching, non_saturating
from gan_core.play.preset import Preset
from gan_core.play.regularizers import LabelSmoothing, Regularizer
from gan_core.play.two_player import TwoPlayerGame, latent_dim
from gan_core.recipe import Adam, Size

CHORD = 13
"""Size of the vector of a chord: the root as a one-hot vector of 12, and a value that is 1 for minor."""
CONDITION = 16
"""Number of channels of the conditioner's layers."""
START = 2
"""Number of steps of the generator's first features."""
KEPT = 256
"""Number of chord progressions of the data that are stored in a model, each with the bar that precedes a sample."""
DEFAULT_CHORDS = (0, 7, 21, 5)
"""Chord progression of an untrained model, which is used in all twelve keys: C, G, Am, F."""

Weight = Annotated[float, Field(ge=0)]


def piano_roll(pitches: Tensor) -> Tensor:
    """Converts pitches `[B, steps]` to bars `[B, 1, steps, 128]` with 1 at each pitch, and only zeros for `SILENT`."""
    return (pitches[:, None, :, None] == torch.arange(PITCHES, device=pitches.device)).float()


def chord_vector(chord: Tensor) -> Tensor:
    """Converts chords `[B]`, 0 to 23 (`gan_audio.tune.midi`), to `[B, 13]`: the root, and 1 for minor (section 4.1)."""
    root, minor = chord[:, None] % 12 == torch.arange(12, device=chord.device), chord[:, None] >= 12
    return torch.cat([root, minor], dim=1).float()


def with_chord(x: Tensor, chord: Tensor) -> Tensor:
    """Concatenates a chord `[B, 13]` at every position to the channels of features `[B, C, …]`."""
    return torch.cat([x, chord[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)


class FromPitches(nn.Conv2d):
    """Convolution over several steps and all 128 pitches, computed as a matrix product, which is many times faster.

    Maps a bar `[B, 1, 16, 128]`, with a chord `[B, 13]` as additional channels, to `[B, outputs, 16 / steps, 1]`.
    """

    def __init__(self, inputs: int, outputs: int, *, steps: int):
        super().__init__(inputs, outputs, (steps, PITCHES), (steps, PITCHES))

    def forward(self, bar: Tensor, chord: Tensor | None = None) -> Tensor:
        rows = bar.reshape(len(bar), -1, self.kernel_size[0] * PITCHES)
        x = linear(rows, self.weight[:, 0].flatten(1), self.bias)
        if chord is not None:
            x = x + linear(chord, self.weight[:, 1:].sum(dim=(2, 3))).unsqueeze(1)
        return x.transpose(1, 2).unsqueeze(3)


class ToPitches(nn.ConvTranspose2d):
    """Transposed counterpart of `FromPitches`: features `[B, inputs, steps, 1]` to `[B, 1, steps, 128]`."""

    def __init__(self, inputs: int):
        super().__init__(inputs, 1, (1, PITCHES))

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        assert self.bias is not None
        return (x.squeeze(3).transpose(1, 2) @ self.weight.flatten(1) + self.bias).unsqueeze(1)


class Generator(nn.Module):
    """`z [B, latent_dim]`, chord `[B, 13]` and previous bar `[B, 1, 16, 128]` to a bar `[B, 1, 16, 128]` in (0, 1).

    Args:
        latent_dim: size of z.
        width: half the number of channels of the features.
        hidden: size of the first layer's output.
    """

    def __init__(self, *, latent_dim: Size = 100, width: Size = 64, hidden: Size = 1024):
        super().__init__()
        self.num_classes, self.latent_dim = None, latent_dim
        channels, conditions = 2 * width, CHORD + CONDITION
        layers: list[nn.Module] = [FromPitches(1, CONDITION, steps=1)]
        layers += [nn.Conv2d(CONDITION, CONDITION, (2, 1), 2) for _ in range(3)]
        self.conditioner = nn.ModuleList(
            nn.Sequential(layer, nn.BatchNorm2d(CONDITION), nn.LeakyReLU(0.2)) for layer in layers
        )
        self.hidden = nn.Sequential(nn.Linear(latent_dim + CHORD, hidden), nn.BatchNorm1d(hidden), nn.ReLU())
        start = START * channels
        self.start = nn.Sequential(nn.Linear(hidden + CHORD, start), nn.BatchNorm1d(start), nn.ReLU())
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(channels + conditions, channels, (2, 1), 2), nn.BatchNorm2d(channels), nn.ReLU()
            )
            for _ in range(3)
        )
        self.to_bar = nn.Sequential(ToPitches(channels + conditions), nn.Sigmoid())
        self.apply(initialize_weights)  # the published code truncates weights of convolutions at two deviations

    def forward(self, z: Tensor, chord: Tensor, previous: Tensor) -> Tensor:
        conditions = [previous]
        for layer in self.conditioner:
            conditions.append(layer(conditions[-1]))  # [B, 16, 16, 1], then 8, 4 and 2 steps
        x = self.hidden(torch.cat([z, chord], dim=1))
        x = self.start(torch.cat([x, chord], dim=1))
        x = x.reshape(len(x), START, -1).transpose(1, 2).unsqueeze(3)  # [B, steps * C] -> [B, C, steps, 1]
        for up in self.up:
            x = up(torch.cat([with_chord(x, chord), conditions.pop()], dim=1))
        return self.to_bar(torch.cat([with_chord(x, chord), conditions.pop()], dim=1))


class Discriminator(nn.Module):
    """Bar `[B, 1, 16, 128]` and chord `[B, 13]` to logits `[B]`.

    Batch normalisation also uses the statistics of the batch in evaluation mode.

    Args:
        width: channels of the second layer without those of the chord.
        hidden: size of the third layer's output.
    """

    def __init__(self, *, width: Size = 64, hidden: Size = 1024):
        super().__init__()
        self.num_classes = None
        self.first = FromPitches(1 + CHORD, 1 + CHORD, steps=2)
        channels = width + CHORD
        self.second = nn.Sequential(
            nn.Conv2d(1 + 2 * CHORD, channels, (4, 1), 2),
            nn.BatchNorm2d(channels, track_running_stats=False),
            nn.LeakyReLU(0.2),
        )
        self.hidden = nn.Sequential(
            nn.Linear(3 * channels + CHORD, hidden),
            nn.BatchNorm1d(hidden, track_running_stats=False),
            nn.LeakyReLU(0.2),
        )
        self.judge = nn.Linear(hidden + CHORD, 1)
        self.apply(initialize_weights)  # the published code truncates weights of convolutions at two deviations

    def features(self, bar: Tensor, chord: Tensor) -> Tensor:
        """Returns the first layer's features `[B, 14, 8, 1]`, which the generator matches."""
        return leaky_relu(self.first(bar, chord), 0.2)

    def forward(self, bar: Tensor, chord: Tensor, previous: Tensor | None = None) -> Tensor:
        """Returns the logits of bars; `previous`, a condition of the generator, is ignored."""
        x = self.second(with_chord(self.features(bar, chord), chord))
        x = x.transpose(1, 2).flatten(1)  # [B, C, 3, 1] -> [B, 3 * C], the steps first
        x = self.hidden(torch.cat([x, chord], dim=1))
        return self.judge(torch.cat([x, chord], dim=1)).flatten()


class MidiNet(TwoPlayerGame):
    """Two-player game conditioned on chords and previous bars, which also matches means (section 3).

    A batch contains integers `tune` `[B, 2, 16 * bars]`: the melody's MIDI pitch (60 is C4) and the chord (0 to 23,
    see `gan_audio.tune.midi`) of every step. Each turn uses one random bar of each tune; the first bar of a tune has no
    previous bar.

    A sample is a tune of `bars` bars with the most likely pitch at every step. Its chords, and the bar that precedes
    it, are those of one of `KEPT` tunes of the training data, which are stored in the model.

    Args:
        generator: generator of bars.
        discriminator: discriminator of bars.
        objective: adversarial losses of both players.
        regularizers: regularizers of the discriminator.
        feature_matching_weight: weight of ½‖E f(x) - E f(G(z))‖², where f is the discriminator's first layer.
        mean_bar_weight: weight of ½‖E x - E G(z)‖².
        bars: number of bars of a tune.

    Raises:
        RecipeError: `feature_matching` or `replay` is among the regularizers.
    """

    images: ClassVar[bool] = False  # the axes are time and pitch
    primers: Tensor
    progressions: Tensor

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        *,
        objective: Objective = non_saturating,
        regularizers: Sequence[Regularizer] = (),
        feature_matching_weight: Weight = 0.1,
        mean_bar_weight: Weight = 0.01,
        bars: Bars = 8,
    ) -> None:
        chosen = {regularizer.name for regularizer in regularizers}
        if "feature_matching" in chosen:
            reason = "midinet has its own feature matching; set `game.feature_matching_weight` instead"
            raise RecipeError(f"`regularizers.feature_matching`: {reason}")
        if "replay" in chosen:
            reason = "the pool does not store the chords that midinet's discriminator needs; leave it out"
            raise RecipeError(f"`regularizers.replay`: {reason}")
        super().__init__(generator, discriminator, objective=objective, regularizers=regularizers)
        self.bars = bars
        self.feature_matching_weight, self.mean_bar_weight = feature_matching_weight, mean_bar_weight
        self.register_buffer("primers", torch.full((KEPT, STEPS), SILENT))
        chords = torch.tensor(DEFAULT_CHORDS).repeat(-(-bars // len(DEFAULT_CHORDS)))[:bars]
        self.register_buffer("progressions", in_key(chords, torch.arange(KEPT)[:, None] % 12))

    def data_spec(self) -> TuneSpec:
        return TuneSpec(bars=self.bars)

    def study(self, training: Dataset[Batch]) -> None:
        """Stores the chords of evenly spaced tunes, and the last bar of each as the bar that precedes a sample.

        Raises:
            DataError: the data are not tunes of `bars` bars.
        """
        length = len(training)  # type: ignore[arg-type]  # all datasets here have a length
        indices = [row * length // KEPT for row in range(KEPT)]
        tunes = torch.cat([self._checked(batch) for batch in read(training, indices, 64)])
        pitches, chords = self._in_bars(tunes)
        self.primers.copy_(pitches[:, -1])
        self.progressions.copy_(chords[:, :, 0])

    def _checked(self, batch: Batch) -> Tensor:
        tunes = batch.get("tune")
        wanted = [2, self.bars * STEPS]
        if tunes is None or list(tunes.shape[1:]) != wanted:
            found = ", ".join(f"`{key}` {list(value.shape[1:])}" for key, value in batch.items())
            raise DataError(f"the data have {found}; midinet needs tunes, `tune` {wanted} (pitches and chords)")
        return tunes

    def _in_bars(self, tunes: Tensor) -> tuple[Tensor, Tensor]:
        """Splits tunes into pitches and chords, `[B, bars, 16]` each."""
        pitches, chords = tunes.reshape(len(tunes), 2, self.bars, STEPS).unbind(1)
        return pitches, chords

    def real(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """Returns a random bar of each tune, with its chord and the previous bar."""
        pitches, chords = self._in_bars(batch["tune"])
        count = len(pitches)
        rows, bar = torch.arange(count, device=pitches.device), draws.integers(self.bars, count, like=pitches)
        previous = pitches[rows, bar - 1].masked_fill(bar[:, None] == 0, SILENT)
        condition = {"chord": chord_vector(chords[rows, bar, 0]), "previous": piano_roll(previous)}
        return piano_roll(pitches[rows, bar]), condition

    def generator_terms(self, real: Tensor, fake: Tensor, condition: Mapping[str, Any]) -> Terms:
        network = cast(Discriminator, self.discriminator.network)
        features = [full_precision(network.features(bar, condition["chord"])) for bar in (real, fake)]
        return super().generator_terms(real, fake, condition) | {
            "feature_matching": self.feature_matching_weight * feature_matching(*features) / 2,
            "mean_bar": self.mean_bar_weight * feature_matching(real, full_precision(fake)) / 2,
        }

    def render(self, latent: Tensor, **condition: Any) -> Tensor:
        raise RecipeError(f"{self.title} draws a latent for every bar, so it has no latents to interpolate between")

    def sample(self, count: int, *, truncation: Truncation = None, **condition: Any) -> Tensor:
        """Generates tunes `[count, 2, 16 * bars]`."""
        kept = draws.integers(KEPT, count, like=self.primers)
        chords, pitches = self.progressions[kept], [self.primers[kept]]
        for chord in chords.unbind(1):
            z = self.latent(count, truncation=truncation)
            bar = self.generator(z, chord=chord_vector(chord), previous=piano_roll(pitches[-1]))
            pitches.append(bar.squeeze(1).argmax(dim=2))
        return torch.stack([torch.cat(pitches[1:], dim=1), chords.repeat_interleave(STEPS, dim=1)], dim=1)

    def exports(self) -> dict[str, Exported]:
        """Returns the generator of one bar; the bars of a tune are generated one after the other."""
        made = super().exports()["generator"]
        inputs = {
            **made.inputs,
            "chord": Input((BATCH, CHORD), "root of the chord as one of 12, and 1 if it is minor"),
            "previous": Input((BATCH, 1, STEPS, PITCHES), "1 where a note of the previous bar sounds, else 0"),
        }
        return {"generator": replace(made, inputs=inputs, outputs={"bar": "likelihood of each note, in [0, 1]"})}

    def probe(self, rows: int) -> tuple[Tensor, dict[str, Any]]:
        like = next(self.parameters())
        condition = {"chord": like.new_zeros(rows, CHORD), "previous": like.new_zeros(rows, 1, STEPS, PITCHES)}
        with torch.no_grad(), evaluating(self), torch.random.fork_rng([]):
            return self.generator(like.new_zeros(rows, latent_dim(self.generator)), **condition), condition


MIDINET = Preset(
    MidiNet,
    networks={"generator": Generator, "discriminator": Discriminator},
    paper="arXiv:1703.10847",
    objective="non_saturating",
    regularizers=[LabelSmoothing(real=0.9)],
    network={"latent_dim": 100, "width": 64, "hidden": 1024},
    optimizer=Adam(learning_rate=5e-5, betas=(0.5, 0.999)),
    players={"generator": {"turns": 2}},
    data={"spec": {"transposed": True}},  # section 4.1
    train={"batch_size": 72, "steps": 14_000, "show": 16, "sample_every": 1000, "checkpoint_every": 1000},
)
"""The paper's training: 20 epochs of 50,496 bars in batches of 72."""
SMALL = MIDINET.but(
    network={"latent_dim": 32, "width": 32, "hidden": 128},
    settings={"mean_bar_weight": 0.1},
    optimizer=Adam(learning_rate=1e-3, betas=(0.5, 0.999)),
    players={"generator": {"turns": 1}},
    data={"spec": {"transposed": False}},
    train={"steps": 3000, "ema": 0.99, "show": 16, "sample_every": 500, "checkpoint_every": 500},
)
"""The generator has one turn per step, because with two turns the small discriminator does not learn."""

PRESETS: dict[str, dict[str, Preset]] = {"midinet": {"paper": MIDINET, "small": SMALL}}
