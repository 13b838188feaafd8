"""Melodies bar by bar, each told its chord and the bar before.

- `midinet`: Yang, Chou & Yang, ISMIR 2017, arXiv:1703.10847, with the layers and settings of its code
  (github.com/RichardYang40148/MidiNet, v1).

A bar is a piano roll of 16 steps and 128 pitches. The generator is told the chord at every layer, and the bar before by
way of a network of its own, the conditioner, whose features of 16, 8, 4 and 2 steps join the generator's of as many.
The code normalises with the batch's statistics when it makes samples too; here the generator does so with running ones,
so that a melody does not depend on those that are made beside it. The code shows the generator one batch twice; here
each of its two turns has a fresh one.
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

from gan_audio.specs import Bars, TuneSpec
from gan_audio.tune.midi import PITCHES, SILENT, STEPS, in_key
from gan_core import draws
from gan_core.data import read
from gan_core.errors import DataError, RecipeError
from gan_core.nn.precision import full_precision
from gan_core.play.conditions import Truncation
from gan_core.play.exported import BATCH, Exported, Input
from gan_core.play.game import Batch, Terms, evaluating
from gan_core.play.objectives import Objective, feature_matching, non_saturating
from gan_core.play.preset import Preset
from gan_core.play.regularizers import LabelSmoothing, Regularizer
from gan_core.play.two_player import TwoPlayerGame, latent_dim
from gan_core.recipe import Adam, Size

CHORD = 13
"""Values that tell a chord: its root as one of 12, and whether it is minor."""
CONDITION = 16
"""Channels of the conditioner's layers."""
START = 2
"""Steps at which the generator begins."""
KEPT = 256
"""Chord progressions, each with a bar before it, that a model keeps of its data."""
PLAIN = (0, 7, 21, 5)
"""C, G, Am, F: what a model that has seen no data goes through, in each of the twelve keys."""

Weight = Annotated[float, Field(ge=0)]


def initialize(module: nn.Module) -> None:
    """Normal weights of deviation 0.02 (the published code cuts its convolutions' at two deviations), no biases."""
    if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
        nn.init.normal_(module.weight, 0.0, 0.02)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def piano_roll(pitches: Tensor) -> Tensor:
    """Pitches `[B, steps]` as a bar `[B, 1, steps, 128]` of ones and zeros; `SILENT` is no note."""
    return (pitches[:, None, :, None] == torch.arange(PITCHES, device=pitches.device)).float()


def chord_vector(chord: Tensor) -> Tensor:
    """Chords `[B]`, 0 to 23 (`gan_audio.tune.midi`), as `[B, 13]`: the root, and 1 for minor (section 4.1)."""
    root, minor = chord[:, None] % 12 == torch.arange(12, device=chord.device), chord[:, None] >= 12
    return torch.cat([root, minor], dim=1).float()


def beside(x: Tensor, chord: Tensor) -> Tensor:
    """Features `[B, C, …]` with a chord `[B, 13]` at every place, after their channels."""
    return torch.cat([x, chord[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)


class FromPitches(nn.Conv2d):
    """A convolution over some steps and all 128 pitches, as the product of matrices that it is: many times as fast.

    A bar `[B, 1, 16, 128]`, and a chord `[B, 13]` that is the same at every place, to `[B, outputs, 16 / steps, 1]`.
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
    """Its counterpart: features `[B, inputs, steps, 1]` to `[B, 1, steps, 128]`."""

    def __init__(self, inputs: int):
        super().__init__(inputs, 1, (1, PITCHES))

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        assert self.bias is not None
        return (x.squeeze(3).transpose(1, 2) @ self.weight.flatten(1) + self.bias).unsqueeze(1)


class Generator(nn.Module):
    """`z [B, latent_dim]`, a chord `[B, 13]` and the bar before `[B, 1, 16, 128]` to a bar `[B, 1, 16, 128]` in (0, 1).

    Args:
        latent_dim: of z.
        width: half the channels of its features.
        hidden: values after the first layer.
    """

    def __init__(self, *, latent_dim: Size = 100, width: Size = 64, hidden: Size = 1024):
        super().__init__()
        self.num_classes, self.latent_dim = None, latent_dim
        channels, told = 2 * width, CHORD + CONDITION
        layers: list[nn.Module] = [FromPitches(1, CONDITION, steps=1)]
        layers += [nn.Conv2d(CONDITION, CONDITION, (2, 1), 2) for _ in range(3)]
        self.conditioner = nn.ModuleList(
            nn.Sequential(layer, nn.BatchNorm2d(CONDITION), nn.LeakyReLU(0.2)) for layer in layers
        )
        self.hidden = nn.Sequential(nn.Linear(latent_dim + CHORD, hidden), nn.BatchNorm1d(hidden), nn.ReLU())
        start = START * channels
        self.start = nn.Sequential(nn.Linear(hidden + CHORD, start), nn.BatchNorm1d(start), nn.ReLU())
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(channels + told, channels, (2, 1), 2), nn.BatchNorm2d(channels), nn.ReLU())
            for _ in range(3)
        )
        self.to_bar = nn.Sequential(ToPitches(channels + told), nn.Sigmoid())
        self.apply(initialize)

    def forward(self, z: Tensor, chord: Tensor, previous: Tensor) -> Tensor:
        conditions = [previous]
        for layer in self.conditioner:
            conditions.append(layer(conditions[-1]))  # [B, 16, 16, 1], then 8, 4 and 2 steps
        x = self.hidden(torch.cat([z, chord], dim=1))
        x = self.start(torch.cat([x, chord], dim=1))
        x = x.reshape(len(x), START, -1).transpose(1, 2).unsqueeze(3)  # [B, steps · C] -> [B, C, steps, 1]
        for up in self.up:
            x = up(torch.cat([beside(x, chord), conditions.pop()], dim=1))
        return self.to_bar(torch.cat([beside(x, chord), conditions.pop()], dim=1))


class Discriminator(nn.Module):
    """A bar `[B, 1, 16, 128]` and its chord `[B, 13]` to logits `[B]`.

    Its batch normalisation always takes the batch's own statistics.

    Args:
        width: channels of the second layer, without the chord's.
        hidden: values after the third.
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
        self.apply(initialize)

    def features(self, bar: Tensor, chord: Tensor) -> Tensor:
        """The first layer's, `[B, 14, 8, 1]`: those that the generator matches."""
        return leaky_relu(self.first(bar, chord), 0.2)

    def forward(self, bar: Tensor, chord: Tensor, previous: Tensor | None = None) -> Tensor:
        """Judges a bar by itself: the one before, of which the generator is told, is not looked at."""
        x = self.second(beside(self.features(bar, chord), chord))
        x = x.transpose(1, 2).flatten(1)  # [B, C, 3, 1] -> [B, 3 · C], the steps first
        x = self.hidden(torch.cat([x, chord], dim=1))
        return self.judge(torch.cat([x, chord], dim=1)).flatten()


class MidiNet(TwoPlayerGame):
    """The game with chords and bars before, in which means of features and of bars are matched (section 3).

    The data are tunes: `tune` `[B, 2, 16 bars]` of whole numbers, the melody's pitch (MIDI, 60 is C4) and the chord (0
    to 23, `gan_audio.tune.midi`) at every step. A turn sees one bar of each, and none before a tune's first. A sample
    is a tune of `bars` bars, at every step its likeliest pitch. Its chords, and the bar before its first, are those
    of a tune of the data, of which the model keeps `KEPT`.

    Args:
        generator: of bars.
        discriminator: of bars.
        objective: what both minimise.
        regularizers: what steadies them.
        feature_matching_weight: of ½‖E f(x) - E f(G(z))‖², f being the discriminator's first layer.
        mean_bar_weight: of ½‖E x - E G(z)‖².
        bars: number of bars of a tune.

    Raises:
        RecipeError: `feature_matching` or `replay` is among the regularizers.
    """

    images: ClassVar[bool] = False  # but time and pitch
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
            reason = "midinet matches features itself; set `game.feature_matching_weight`"
            raise RecipeError(f"`regularizers.feature_matching`: {reason}, and leave it out")
        if "replay" in chosen:
            reason = "it remembers no chords, and midinet judges bars beside theirs"
            raise RecipeError(f"`regularizers.replay`: {reason}; leave it out")
        super().__init__(generator, discriminator, objective=objective, regularizers=regularizers)
        self.bars = bars
        self.feature_matching_weight, self.mean_bar_weight = feature_matching_weight, mean_bar_weight
        self.register_buffer("primers", torch.full((KEPT, STEPS), SILENT))
        plain = torch.tensor(PLAIN).repeat(-(-bars // len(PLAIN)))[:bars]
        self.register_buffer("progressions", in_key(plain, torch.arange(KEPT)[:, None] % 12))

    def data_spec(self) -> TuneSpec:
        return TuneSpec(bars=self.bars)

    def study(self, training: Dataset[Batch]) -> None:
        """Keeps the chords of some tunes, evenly chosen, and the last bar of each, from which it goes round.

        Raises:
            DataError: the data are no tunes of `bars` bars.
        """
        length = len(training)  # type: ignore[arg-type]  # every dataset here has one
        some = [row * length // KEPT for row in range(KEPT)]
        tunes = torch.cat([self._checked(batch) for batch in read(training, some, 64)])
        pitches, chords = self._in_bars(tunes)
        self.primers.copy_(pitches[:, -1])
        self.progressions.copy_(chords[:, :, 0])

    def _checked(self, batch: Batch) -> Tensor:
        tunes = batch.get("tune")
        wanted = [2, self.bars * STEPS]
        if tunes is None or list(tunes.shape[1:]) != wanted:
            found = ", ".join(f"`{key}` {list(value.shape[1:])}" for key, value in batch.items())
            raise DataError(
                f"midinet learns from tunes, `tune` {wanted} (pitches and chords), and the data hold {found}"
            )
        return tunes

    def _in_bars(self, tunes: Tensor) -> tuple[Tensor, Tensor]:
        """Pitches and chords, `[B, bars, 16]` each."""
        pitches, chords = tunes.reshape(len(tunes), 2, self.bars, STEPS).unbind(1)
        return pitches, chords

    def real(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """A bar of each tune, its chord, and the bar before."""
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
        """Generates tunes `[count, 2, 16 bars]`."""
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
            "chord": Input((BATCH, CHORD), "the root as one of 12, then 1 if the chord is minor"),
            "previous": Input((BATCH, 1, STEPS, PITCHES), "1 where a note of the bar before sounds, else 0"),
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
"""50,496 bars in batches of 72, 20 times over."""
SMALL = MIDINET.but(
    network={"latent_dim": 32, "width": 32, "hidden": 128},
    settings={"mean_bar_weight": 0.1},
    optimizer=Adam(learning_rate=1e-3, betas=(0.5, 0.999)),
    players={"generator": {"turns": 1}},
    data={"spec": {"transposed": False}},
    train={"steps": 3000, "ema": 0.99, "show": 16, "sample_every": 500, "checkpoint_every": 500},
)
"""With two turns of the generator the small discriminator learns nothing."""

PRESETS: dict[str, dict[str, Preset]] = {"midinet": {"paper": MIDINET, "small": SMALL}}
