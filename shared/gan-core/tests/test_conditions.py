"""Conditions: classes by name, texts and tensors, in Python and on the command line; samples in parts of any size."""

from __future__ import annotations

import csv
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.testing import assert_close

from gan_core import draws
from gan_core.api import Toolkit
from gan_core.cards import Card
from gan_core.cli import main
from gan_core.data import TensorDataset
from gan_core.domain import Domain
from gan_core.errors import RecipeError
from gan_core.play.conditions import Classes, Condition, Given, Text
from gan_core.play.game import Game
from gan_core.play.player import Player
from gan_core.play.two_player import TwoPlayerGame
from gan_core.recipe import Size
from gan_core.training.diagnostics import FEWEST, SampleDiagnostics

FRUIT = ("apple", "pear", "7", "quince")


# --- kinds


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        (None, [0, 1, 2, 3, 0]),
        (3, [3] * 5),
        ("pear", [1] * 5),
        ("7", [2] * 5),  # a name wins over a number
        ("3", [3] * 5),
        (["apple", 3, "7", "1", 0], [0, 3, 2, 1, 0]),
        ((0, 1, 2, 3, 0), [0, 1, 2, 3, 0]),
        (torch.tensor([3, 2, 1, 0, 3]), [3, 2, 1, 0, 3]),
        (torch.tensor(2, dtype=torch.int32), [2] * 5),
    ],
)
def test_classes_are_names_and_numbers(given, numbers):
    values = Classes(4, FRUIT).values("label", given, 5)
    assert (values.tolist(), values.dtype) == (numbers, torch.int64)


def test_classes_are_described_by_their_names_where_these_are_known():
    values = torch.tensor([1, 2, 3])
    assert Classes(4, FRUIT).describe(values) == ["pear", "7", "quince"]
    assert Classes(4, FRUIT[:2]).describe(values) == ["pear", "2", "3"]


@pytest.mark.parametrize(
    ("names", "given", "words"),
    [
        (FRUIT, "aple", "unknown label `aple`; did you mean `apple`?"),
        (FRUIT, ["pear", "zzz"], "unknown label `zzz`; known: 7, apple, pear, quince"),
        ((), "apple", "`label` is apple; this model has no class names: give a number from 0 to 3"),
        (FRUIT, 4, "`label` is 4; expected 0 to 3"),
        (FRUIT, [0, -1], "`label` is -1; expected 0 to 3"),
        (FRUIT, "4", "`label` is 4; expected 0 to 3"),
        (FRUIT, 1.5, "`label` is 1.5; expected a whole number"),
        (FRUIT, True, "`label` is True; expected a whole number"),
        (FRUIT, [0, 1, 2], "`label` has the shape [3]; give one class, or one for each of 2 samples"),
        (FRUIT, {"a": 1}, "`label` is {'a': 1}; expected a class number or name, or one for each sample"),
    ],
)
def test_classes_that_there_are_not_are_refused(names, given, words):
    with pytest.raises(RecipeError) as error:
        Classes(4, names).values("label", given, 2)
    assert str(error.value) == words


def test_a_text_is_no_number_of_a_class_where_names_are_numbers():
    kind = Classes(3, ("1", "2", "10"))
    assert kind.values("label", ["1", "10", 1], 3).tolist() == [0, 2, 1]
    with pytest.raises(RecipeError, match=r"^unknown label `0`; "):
        kind.values("label", "0", 3)
    with pytest.raises(RecipeError, match=r"^`label` is 3; expected 0 to 2$"):
        Classes(3, ("0", "1", "2")).values("label", "3", 3)  # which are their own names


def test_texts_are_one_for_all_or_one_for_each_or_the_defaults_in_turn():
    kind = Text(("a", "b"))
    assert kind.values("caption", "red", 2) == ["red", "red"]
    assert kind.values("caption", ("red", "blue"), 2) == ["red", "blue"]
    assert kind.values("caption", None, 3) == ["a", "b", "a"]
    assert kind.describe(["red"]) == ["red"]
    assert (kind.required, Text().required) == (False, True)


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (Text(), None, "`c` is missing; give a text, or one for each of 2 samples"),
        (Text(), 3, "`c` is int; expected a text, or one for each sample"),
        (Text(), ["a", None], "`c` is NoneType; expected a text, or one for each sample"),
        (Text(), ["a", "b", "c"], "`c` has 3 texts; give one, or one for each of 2 samples"),
        (Given(), None, "`c` is missing; give a tensor for each of 2 samples"),
        (Given((3,)), None, "`c` is missing; give a tensor [3] for each of 2 samples"),
        (Given((3,)), torch.zeros(3), "`c` has the shape [3]; give a tensor [3] for each of 2 samples"),
        (Given((3,)), torch.zeros(2, 4), "`c` has the shape [2, 4]; give a tensor [3] for each of 2 samples"),
        (Given(), torch.tensor(1.0), "`c` has the shape []; give a tensor for each of 2 samples"),
        (Given(), "words", "`c` is str; expected a tensor for each sample"),
    ],
)
def test_texts_and_tensors_that_do_not_fit_are_refused(kind, given, words):
    with pytest.raises(RecipeError) as error:
        kind.values("c", given, 2)
    assert str(error.value) == words


# --- games


class Words(nn.Module):
    """Latents and captions to points: each word moves them by its own amount."""

    def __init__(self, *, latent_dim: Size = 2, words: Size = 97) -> None:
        super().__init__()
        self.latent_dim, self.num_classes = latent_dim, None
        self.scale, self.words = nn.Linear(latent_dim, 2, bias=False), nn.Embedding(words, 2)

    def forward(self, z: Tensor, caption: Sequence[str]) -> Tensor:
        places = [[zlib.crc32(word.encode()) % len(self.words.weight) for word in text.split()] for text in caption]
        return self.scale(z) + torch.stack([self.words(torch.tensor(row)).sum(dim=0) for row in places])


class Captioned(TwoPlayerGame):
    """Paths of points that stand still, and whose place follows from a caption."""

    @property
    def conditions(self) -> Mapping[str, Condition]:
        return {"caption": Text()}

    def sample(
        self, count: int, *, frames: Annotated[int, Field(ge=1, le=64)] = 16, style: str = "still", **condition: Any
    ) -> Tensor:
        return super().sample(count, **condition)[:, None].repeat(1, frames, len(style) // 5)


@pytest.fixture
def captions(toy: Domain, monkeypatch: pytest.MonkeyPatch) -> Domain:
    """The toy domain with a system `captions`."""
    plain = toy.preset("plain")
    preset = plain.but(game=Captioned, networks=plain.networks | {"generator": Words})
    presets = import_module("gan_toy.systems").PRESETS
    monkeypatch.setitem(presets, "captions", {"small": preset, "paper": preset})
    card = Card(
        name="captions",
        title="Captions",
        year=2016,
        task="generation",
        paper="arXiv:0000.00000",
        module="gan_toy.systems",
        data="cloud",
    )
    domain = replace(toy, cards=(*toy.cards, card))
    monkeypatch.setattr("gan_core.domain.find_domains", lambda: {"toy": domain})
    return domain


@pytest.fixture
def written(captions: Domain, tmp_path: Path) -> Path:
    """A model folder of `captions`."""
    torch.manual_seed(0)
    return Toolkit(captions).create("captions").save_pretrained(tmp_path / "written")


@pytest.fixture
def labelled(toy: Domain, tmp_path: Path) -> Path:
    """A model folder whose classes have names."""
    torch.manual_seed(0)
    plain = toy.preset("plain")
    recipe = plain.recipe(domain="toy", system="plain", preset="small")
    changes = {"network.num_classes": 4, "data.classes": list(FRUIT)}
    return plain.build(recipe.but(changes)).save_pretrained(tmp_path / "labelled")


def test_a_caption_is_text_and_samples_follow_it(captions, written):
    game = Toolkit(captions).load(written)
    red = game.generate(70, seed=0, caption="a red bird")
    assert red.shape == (70, 16, 2)
    assert torch.equal(red, game.generate(70, seed=0, caption=["a red bird"] * 70))
    mixed = game.generate(70, seed=0, caption=["a red bird", "a blue bird"] * 35)
    assert torch.equal(mixed[::2], red[::2])  # in the second block too
    assert not torch.isclose(mixed[1::2], red[1::2]).any()
    assert game.asked(3, caption="red", frames=4) == {"caption": ["red"] * 3}


def test_keywords_of_sample_pass_through_by_its_annotations(captions, written):
    game = Toolkit(captions).load(written)
    assert game.generate(2, seed=0, caption="red", frames=3).shape == (2, 3, 2)
    assert game.generate(2, seed=0, caption="red", frames=None).shape == (2, 16, 2)
    for given, words in (
        ({}, "`caption` is missing; give a text, or one for each of 2 samples"),
        ({"caption": "red", "frames": 0}, "`frames` is 0; expected greater than or equal to 1"),
        ({"caption": "red", "frames": "many"}, "`frames` is 'many'; expected a whole number"),
        ({"caption": "red", "colour": 1}, "captions takes no `colour`; it takes `caption`, `frames`, `style`"),
        (
            {"caption": "red", "label": 1},
            "this captions was trained without classes; leave `label` out, or set `network.num_classes`",
        ),
    ):
        for call in (game.generate, game.generated):
            with pytest.raises(RecipeError) as error:
                call(2, seed=0, **given)
            assert str(error.value) == words


def test_classes_have_the_names_of_the_data(toy, labelled):
    game = Toolkit(toy).load(labelled)
    assert torch.equal(game.generate(3, seed=0, label="quince"), game.generate(3, seed=0, label=3))
    assert game.asked(3, label=["apple", "7", 1])["label"].tolist() == [0, 2, 1]


class Noisy(Game):
    """Shows what is drawn for a sample, what torch draws, and what was asked."""

    def __init__(self, conditions: Mapping[str, Condition]) -> None:
        super().__init__()
        self.generator, self.kinds = nn.Linear(1, 1), conditions

    @property
    def conditions(self) -> Mapping[str, Condition]:
        return self.kinds

    def players(self) -> list[Player]:
        return []

    def sample(self, count: int, **asked: Any) -> Tensor:
        like = self.generator.weight
        drawn = [draws.normal(count, 3, like=like), draws.uniform(count, 1, like=like), torch.rand(count, 1)]
        return torch.cat([*drawn, *(values.reshape(count, -1).to(like) for values in asked.values())], dim=1)


@pytest.mark.parametrize("at_once", [1, 8, 32])
def test_samples_do_not_depend_on_how_many_run_at_once(at_once):
    game = Noisy({"label": Classes(3), "source": Given((2,))})
    given = {"label": torch.arange(150) % 2, "source": torch.randn(150, 2)}
    whole = game.generate(150, seed=1, **given)
    game.at_once = at_once
    parts = list(game.generated(150, seed=1, **given))
    assert {len(part) for part in parts} <= {at_once, 150 % 64 % at_once}
    drawn = torch.cat(parts)
    assert torch.equal(drawn[:, :4], whole[:, :4])  # the draws, bit by bit
    assert torch.equal(drawn[:, 5:], whole[:, 5:])  # and what is asked
    assert len(drawn[:, 4].unique()) == 150  # what torch draws itself is not repeated
    assert torch.equal(torch.cat(list(game.generated(150, seed=1, start=64, **given))), drawn[64:])


def test_networks_give_the_same_samples_for_any_number_at_once(toy):
    torch.manual_seed(0)
    game = Toolkit(toy).create("plain", num_classes=3)
    whole = game.generate(100, seed=0, truncation=0.7)
    game.at_once = 8
    assert_close(game.generate(100, seed=0, truncation=0.7), whole)
    for wrong in (0, 7, 128):
        game.at_once = wrong
        with pytest.raises(RecipeError, match=rf"^`at_once` is {wrong}; expected a divisor of 64, such as 8$"):
            game.generate(2, seed=0)


def test_previews_and_the_doctor_take_the_conditions_of_a_batch():
    game = Noisy({"source": Given((2,))})
    batch = {"source": torch.randn(FEWEST, 2), "target": torch.randn(FEWEST, 7)}
    assert torch.equal(game.preview(batch)["generated"][:, 5:], batch["source"])
    assert "samples/nearest" in SampleDiagnostics(game, TensorDataset(batch), None).figures()
    texts = Noisy({"caption": Text()})
    with pytest.raises(
        RecipeError, match=r"^Noisy needs values of `caption` for previews; give it defaults, or override "
    ):
        texts.preview(batch)
    assert SampleDiagnostics(texts, TensorDataset(batch), None).figures() == {}


# --- the command line


@pytest.fixture
def gan(captions: Domain, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Runs `gan-toy WORDS…`: its exit status, and its last line on standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["gan-toy", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main(captions)
        return int(end.value.code or 0), capsys.readouterr().err.rpartition("gan-toy: ")[2].strip()

    return call


def rows(folder: str) -> list[list[str]]:
    with Path(folder, "labels.csv").open(newline="") as file:
        return list(csv.reader(file))


def read(folder: str) -> Tensor:
    return torch.tensor([eval(path.read_text()) for path in sorted(Path(folder).glob("0*"))])


def test_captions_and_frames_on_the_command_line(gan, captions, written):
    words = ["--caption", "a red bird", "--frames=3", "--caption", "two, blue", "--style", "7777777777"]
    assert gan("generate", *words, written, "-n", 70, "--out", "s", "--seed", 5) == (0, "")
    texts = ["a red bird", "two, blue"] * 35
    assert rows("s") == [["file", "caption"], *([f"{k:05d}.txt", text] for k, text in enumerate(texts))]
    assert_close(
        read("s"), Toolkit(captions).load(written).generate(70, seed=5, caption=texts, frames=3, style="7777777777")
    )


def test_classes_by_name_on_the_command_line(gan, toy, labelled, model):
    assert gan("generate", labelled, "-n", 2, "--label", "pear", "--truncation", "0.5", "--out", "pears") == (0, "")
    assert rows("pears") == [["file", "label"], ["00000.txt", "pear"], ["00001.txt", "pear"]]
    assert_close(read("pears"), Toolkit(toy).load(labelled).generate(2, seed=0, label=1, truncation=0.5))
    assert gan("generate", labelled, "-n", 5, "--label", "7", "--label", "0", "--out", "two")[0] == 0
    assert [row[1] for row in rows("two")[1:]] == ["7", "apple", "7", "apple", "7"]
    assert gan("generate", labelled, "-n", 5, "--out", "all")[0] == 0
    assert [row[1] for row in rows("all")[1:]] == [*FRUIT, "apple"]
    assert gan("generate", model, "-n", 2, "--out", "none")[0] == 0
    assert sorted(path.name for path in Path("none").iterdir()) == ["00000.txt", "00001.txt"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("written", "`caption` is missing; give a text, or one for each of 2 samples"),
        ("written --caption", "Option '--caption' requires an argument."),
        ("written --caption --frames 2", "Option '--caption' requires an argument."),
        ("written --caption a --frames 0", "`frames` is 0; expected greater than or equal to 1"),
        ("written --caption a --frames 2 --frames 3", "`--frames` is given 2 times; give it at most once"),
        (
            "written --caption a --caption b --caption c",
            "`--caption` is given 3 times; give it at most 2 times, once per sample",
        ),
        ("written --captoin a", "captions takes no `captoin`; it takes `caption`, `frames`, `style`"),
        ("written --sede 1", "unknown option `--sede`; did you mean `--seed`?"),
        ("labelled --label aple", "unknown label `aple`; did you mean `apple`?"),
        ("labelled --label -1", "`label` is -1; expected 0 to 3"),
        ("labelled --label 1 --truncation 2", "`truncation` is 2.0; expected a number above 0 and at most 1"),
        (
            "model --label pear",
            "this plain was trained without classes; leave `label` out, or set `network.num_classes`",
        ),
        ("model --frames 3", "plain takes no `frames`; it takes `truncation`"),
        ("model -x 3", "No such option: -x"),
    ],
)
def test_requests_that_do_not_fit_are_one_line_and_write_nothing(gan, written, labelled, model, words, message):
    assert gan("generate", "-n", 2, "--out", "s", *words.split()) == (2, message)
    assert not Path("s").exists()


def test_a_tensor_is_given_in_python(gan):
    with pytest.raises(RecipeError, match=r"^`source` takes tensors, not text; use "):
        Given().read("source", ["file.png"])


def test_the_help_names_conditions(toy, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gan-toy", "generate", "--help"])
    with pytest.raises(SystemExit) as end:
        main(toy)
    shown = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    assert "[--CONDITION VALUE]…" in shown
    assert "--label NAME|INDEX" in shown
