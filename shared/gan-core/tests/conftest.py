"""A domain of two systems on points in the plane, plugged in where installed packages are found."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gan_core.domain
from gan_core.api import Toolkit
from gan_core.cards import Card, DataCard, Demo, MetricCard
from gan_core.data import Source, Spec, TensorSource
from gan_core.domain import Domain
from gan_core.errors import DataError
from gan_core.measure.measures import Part, Subject
from gan_core.media.items import Samples, split_samples, write_each
from gan_core.models.reference import Published
from gan_core.play.game import Game
from gan_core.play.preset import Preset
from gan_core.play.regularizers import GradientPenalty
from gan_core.play.two_player import TwoPlayerGame
from gan_core.recipe import Adam, Size


class Generator(nn.Module):
    def __init__(
        self,
        *,
        shape: tuple[Size, ...] = (2,),
        latent_dim: Size = 4,
        width: Size = 8,
        slope: float = 0.1,
        num_classes: Size | None = None,
    ):
        super().__init__()
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.hidden = nn.Linear(latent_dim + (num_classes or 0), width)
        self.bound, self.out = nn.LeakyReLU(slope), nn.Linear(width, shape[0])

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.num_classes is not None and label is not None:
            z = torch.cat([z, nn.functional.one_hot(label, self.num_classes).to(z)], dim=1)
        return self.out(self.bound(self.hidden(z)))


class Discriminator(nn.Module):
    def __init__(self, *, shape: tuple[Size, ...] = (2,), width: Size = 8, num_classes: Size | None = None):
        super().__init__()
        self.num_classes = num_classes
        self.hidden, self.judge = nn.Linear(shape[0] + (num_classes or 0), width), nn.Linear(width, 1)

    def forward(self, points: Tensor, label: Tensor | None = None) -> Tensor:
        if self.num_classes is not None and label is not None:
            points = torch.cat([points, nn.functional.one_hot(label, self.num_classes).to(points)], dim=1)
        return self.judge(self.hidden(points).tanh()).squeeze(1)


PLAIN = Preset(
    TwoPlayerGame,
    networks={"generator": Generator, "discriminator": Discriminator},
    objective="non_saturating",
    optimizer=Adam(learning_rate=1e-3),
    train={"steps": 3, "batch_size": 4, "show": 4, "device": "cpu"},
    paper="arXiv:0000.00000",
)
CRITIC = PLAIN.but(
    objective="wasserstein",
    regularizers=[GradientPenalty()],
    players={"discriminator": {"turns": 2}},
    network={"generator": {"width": 16}, "discriminator": {"width": 12}},
)
PRESETS = {
    "plain": {"small": PLAIN, "paper": PLAIN.but(network={"width": 32})},
    "critic": {"small": CRITIC, "paper": CRITIC},
}


def load_cloud() -> Source:
    points = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    return TensorSource({"points": points, "label": torch.arange(64) % 3}, name="cloud")


def load_plain_cloud() -> Source:
    return TensorSource({"points": load_cloud().fit(Spec())[:]["points"]}, name="plain-cloud")


def open_folder(path: Path, *, strict: bool = False, part: str | None = None) -> Source:
    raise DataError(f"{path}: no points (looked for .csv)")


def write_samples(samples: Mapping[str, Tensor], stem: Path, *, columns: int | None = None, game: Game) -> Path:
    path = stem.with_suffix(".txt")
    path.write_text(f"{columns} {list(samples)} {len(next(iter(samples.values())))}")
    return path


def write_items(
    samples: Samples, folder: Path, *, count: int, labels: Mapping[str, Sequence[str]] | None = None, game: Game
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    _, parts = split_samples(samples)
    rows = ({key: tensor.tolist() for key, tensor in part.items()} for part in parts)
    return write_each(rows, folder, ".txt", lambda path, row: path.write_text(str(row)), count=count, labels=labels)


class Spread:
    def __init__(self, subject: Subject):
        self.parts: list[Tensor] = []

    def update(self, part: Part) -> None:
        self.parts.append(part.samples)

    def figures(self) -> dict[str, float]:
        return {"std": float(torch.cat(self.parts).std())}


class Shares:
    def __init__(self, subject: Subject):
        self.classes: set[int] = set()

    def update(self, part: Part) -> None:
        self.classes.update(part.asked["label"].tolist())

    def figures(self) -> dict[str, float]:
        return {"classes": len(self.classes)}


def import_generator(state: Mapping[str, Tensor]) -> Published:
    width, latent_dim = state["fc1.weight"].shape
    names = {
        f"{ours}.{part}": state[f"{theirs}.{part}"]
        for theirs, ours in (("fc1", "hidden"), ("fc2", "out"))
        for part in ("weight", "bias")
    }
    arguments = {"nz": latent_dim, "hidden": width}
    return Published(Generator, {"latent_dim": latent_dim, "width": width}, names, arguments)


def module(name: str, **contents: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(contents)
    return made


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """These networks are so small that threads only wait for each other, all the more beside other programs."""
    torch.set_num_threads(1)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Domain:
    """The domain `toy`: systems `plain` and `critic`, data sets `cloud` (3 classes) and `plain-cloud`."""
    importers = {"plain/generator": import_generator, "critic/generator": import_generator}
    modules = {
        "systems": {"PRESETS": PRESETS},
        "data": {
            "DATASETS": (
                DataCard(
                    name="cloud",
                    title="points",
                    items="64 points, 3 classes",
                    origin="embedded",
                    load="gan_toy.data:load_cloud",
                ),
                DataCard(
                    name="plain-cloud",
                    title="points",
                    items="64 points",
                    origin="embedded",
                    load="gan_toy.data:load_plain_cloud",
                ),
            ),
            "load_cloud": load_cloud,
            "load_plain_cloud": load_plain_cloud,
            "open_folder": open_folder,
        },
        "media": {"write_samples": write_samples, "write_items": write_items},
        "metrics": {
            "METRICS": (
                MetricCard(name="spread", title="standard deviation", measure="gan_toy.metrics:Spread"),
                MetricCard(
                    name="shares",
                    title="classes",
                    measure="gan_toy.metrics:Shares",
                    needs=("num_classes",),
                    asks=("label",),
                ),
            ),
            "EXTRACTORS": (),
            "Spread": Spread,
            "Shares": Shares,
        },
        "reference": {"IMPORTERS": importers},
        "tasks": {"COMMANDS": {}},
    }
    monkeypatch.setitem(sys.modules, "gan_toy", module("gan_toy"))
    for name, contents in modules.items():
        monkeypatch.setitem(sys.modules, f"gan_toy.{name}", module(f"gan_toy.{name}", **contents))
    cards = tuple(
        Card(
            name=name,
            title=title,
            year=2014 + year,
            task="generation",
            paper="arXiv:0000.00000",
            module="gan_toy.systems",
            data="cloud",
        )
        for year, (name, title) in enumerate({"plain": "Plain", "critic": "With a critic"}.items())
    )
    domain = Domain(
        name="toy",
        title="GANs for points",
        package="gan_toy",
        cards=cards,
        demo=Demo(system="plain", data="cloud", settings={"train.steps": 2}, metric="spread"),
    )
    found = [SimpleNamespace(name="toy", load=lambda: domain)]
    monkeypatch.setattr(gan_core.domain, "entry_points", lambda group, name="toy": found if name == "toy" else [])
    return domain


@pytest.fixture
def model(toy: Domain, tmp_path: Path) -> Path:
    """A model folder of the toy domain's `plain`, with fresh weights."""
    torch.manual_seed(0)
    return Toolkit(toy).create("plain").save_pretrained(tmp_path / "model")
