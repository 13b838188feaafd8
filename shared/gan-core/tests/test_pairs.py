"""Composed sources, specifications, and how games use both."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gan_core import draws
from gan_core.data import (
    ArraySpec,
    BatchStream,
    Derived,
    FittedData,
    ImageSpec,
    Paired,
    Source,
    Spec,
    TensorDataset,
    TensorSource,
    Unpaired,
    hold_out,
)
from gan_core.errors import DataError, RecipeError
from gan_core.play.game import Game
from gan_core.play.player import Player
from gan_core.play.preset import Preset, completed
from gan_core.play.two_player import TwoPlayerGame
from gan_core.recipe import Recipe

LEVELS = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 4, 4)


# --- compositions


def test_a_mask_in_memory_keeps_its_values_among_parts():
    mask = LEVELS.clone()
    for source in (Paired(image=LEVELS, mask=mask), Unpaired(image=LEVELS, mask=mask)):
        batch = next(BatchStream(source.fit(ImageSpec(image_size=4)), 6, seed=0))
        assert batch["mask"].dtype is torch.uint8
        assert batch["image"].is_floating_point()


def test_parts_in_memory_are_cropped_at_the_same_position():
    places = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(2, 1, 8, 8)
    dataset = Paired(source=places, target=places).fit(ImageSpec(image_size=4, resize="none", crop="random"))
    batch = next(BatchStream(dataset, 64, seed=0))
    assert torch.equal(batch["source"], batch["target"])
    assert len(batch["source"][:, 0, 0, 0].unique()) > 10


def test_the_partner_does_not_depend_on_the_crop():
    columns = torch.arange(8, dtype=torch.uint8).view(1, 1, 8, 1).expand(1, 1, 8, 8)
    rows = Unpaired(source=columns, target=torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 1, 8, 8))
    batch = next(BatchStream(rows.fit(ImageSpec(image_size=1, resize="none", crop="random")), 200, seed=0))
    top, partner = batch["source"].flatten(), batch["target"].flatten()
    assert abs(torch.corrcoef(torch.stack([top, partner]))[0, 1]) < 0.2


def test_a_source_with_several_items_per_entry_cannot_be_paired():
    class Doubled(TensorSource):
        def __len__(self):
            return 3

        def items(self, spec):
            return Source.items(self, spec)

    with pytest.raises(DataError) as error:
        Paired(source=Doubled({"image": LEVELS}), target=LEVELS[:3]).fit(Spec())
    assert str(error.value).startswith("tensors has 3 entries but 6 items, which cannot be matched with other data")


def test_held_out_items_of_unpaired_datasets_are_never_partners():
    dataset = Unpaired(source=LEVELS, target=LEVELS).fit(Spec())
    training, held_out = hold_out(dataset, 0.34)
    for part in ("source", "target"):
        seen, unseen = (
            {
                int(batch[part][row].flatten()[0])
                for batch in [side.__getitems__(range(6)) for _ in range(50)]
                for row in range(6)
            }
            for side in (training, held_out)
        )
        assert (len(seen), len(unseen), seen & unseen) == (4, 2, set())


def test_derived_images_must_have_the_channels_of_the_networks():
    with pytest.raises(DataError) as error:
        Derived(LEVELS, lambda image, numbers: image).fit(ImageSpec(channels={"source": 3, "target": 1}))
    assert str(error.value) == (
        "tensors: `source` has 1 channels, and the networks have 3; convert the data, or set the networks' channels"
    )


def test_parts_in_memory_are_matched_by_index():
    pairs = Paired(source=LEVELS, target={"image": LEVELS + 100, "label": torch.arange(6) % 2})
    assert (len(pairs), set(pairs.keys)) == (6, {"source", "target", "label"})
    batch = pairs.fit(Spec()).__getitems__([4, 1])
    assert batch["source"][:, 0, 0, 0].tolist() == [4, 1]
    assert batch["target"][:, 0, 0, 0].tolist() == [104, 101]
    assert batch["label"].tolist() == [0, 1]
    assert pairs.facts["num_classes"] == 2
    assert float(next(BatchStream(pairs.fit(Spec()), 6, seed=0))["source"].max()) == pytest.approx(5 / 127.5 - 1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Paired(source=LEVELS, target=LEVELS[:4]),
            "the parts have different numbers of items {'source': 6, 'target': 4}; use `Unpaired` for unpaired data",
        ),
        (
            lambda: Paired(source={"image": LEVELS, "mask": LEVELS}, target=LEVELS),
            "tensors has `image`, `mask`; each part must have one key besides `label`",
        ),
        (lambda: Unpaired(source=LEVELS), "`Unpaired` was given 1 dataset; give two, such as source= and target="),
    ],
)
def test_parts_that_do_not_match_are_rejected(make, words):
    with pytest.raises(DataError) as error:
        make()
    assert str(error.value) == words


def test_facts_are_prefixed_by_part_and_shared_facts_are_also_unprefixed():
    grey, colour = torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 4, 4)
    facts = Paired(source=grey, target=colour).facts
    assert (facts["source_channels"], facts["target_channels"]) == (1, 3)
    assert "channels" not in facts
    assert Unpaired(source=grey, target=grey).facts["channels"] == 1


def test_unpaired_items_are_combined_with_all_items_of_the_other_dataset():
    dataset = Unpaired(source=LEVELS[:2], target=LEVELS).fit(Spec())
    stream, met = BatchStream(dataset, 6, seed=0), set()
    for _ in range(30):
        batch = next(stream)
        met |= set(
            zip(*((127.5 * (batch[key][:, 0, 0, 0] + 1)).round().tolist() for key in ("source", "target")), strict=True)
        )
    assert met == {(float(a), float(b)) for a in range(2) for b in range(6)}


def test_unpaired_items_do_not_depend_on_the_number_of_processes():
    dataset = Derived(LEVELS, lambda image, numbers: image + int(100 * numbers[1]), draws=2).fit(Spec())
    whole = next(BatchStream(dataset, 6, seed=3))
    shares = [next(BatchStream(dataset, 6, seed=3, rank=rank, processes=2, workers=rank)) for rank in range(2)]
    for key in whole:
        assert torch.equal(torch.cat([share[key] for share in shares]), whole[key])
    assert len(set((whole["source"] - whole["target"])[:, 0, 0, 0].tolist())) > 3


def test_derived_pairs_keep_their_labels_on_request():
    labelled = TensorSource(
        {"image": torch.arange(6).view(6, 1, 1, 1).float() / 3, "label": torch.arange(6) % 2}, classes=["even", "odd"]
    )
    source = Derived(labelled, lambda image, numbers: -image, labels=True)
    assert set(source.keys) == {"source", "target", "label"}
    assert (source.facts["num_classes"], source.facts["classes"]) == (2, ["even", "odd"])
    batch = source.fit(Spec()).__getitems__([1, 4])
    assert batch["label"].tolist() == [1, 0]
    assert torch.equal(batch["source"], -batch["target"])
    assert set(Derived(labelled, lambda image, numbers: -image).fit(Spec())[0]) == {"source", "target"}
    with pytest.raises(DataError, match="has no labels to keep; give a folder with a sub-folder for each class"):
        Derived(LEVELS, lambda image, numbers: image, labels=True)


def test_draws_of_an_item_repeat_and_are_independent_in_apart():
    with draws.reading(5, 10):
        first, again = draws.of_items(4, 3), draws.of_items(4, 3)
        with draws.apart("target"):
            other = draws.of_items(4, 3)
    assert torch.equal(first, again)
    assert len(set(first.flatten().tolist()) & set(other.flatten().tolist())) == 0
    with draws.reading(5, 12):
        assert torch.equal(draws.of_items(2, 3), first[2:])
    assert torch.equal(first[:, :1], draw_one(5, 10))


def draw_one(seed: int, place: int) -> torch.Tensor:
    with draws.reading(seed, place):
        return draws.of_items(4)


def test_tensors_of_all_parts_are_augmented_in_the_same_way():
    ramp = torch.arange(8 * 8, dtype=torch.uint8).view(1, 1, 8, 8).expand(20, 1, 8, 8)
    source = TensorSource({"source": ramp, "target": ramp, "mask": ramp, "label": torch.arange(20)})
    dataset = source.fit(ImageSpec(image_size=5, resize="none", crop="random", flip=True))
    with draws.reading(0, 0):
        batch = dataset.__getitems__(list(range(20)))
    assert batch["source"].shape == (20, 1, 5, 5)
    assert torch.equal(batch["source"], batch["target"])
    assert torch.equal(batch["source"], batch["mask"])
    assert len({tuple(image.flatten().tolist()) for image in batch["source"]}) > 10
    with pytest.raises(DataError, match=r"^an item is 8x8 pixels, smaller than the crop of 9x9; enlarge it$"):
        source.fit(ImageSpec(image_size=9, resize="none", crop="random"))[0]


# --- a source is fitted once


class Counted(Source):
    name, facts, keys = "counted", {"channels": 1, "sample_rate": 8000}, ("image",)

    def __init__(self):
        self.asked = []

    def __len__(self):
        return 6

    def fit(self, spec):
        self.asked.append(spec)
        return TensorDataset({"image": LEVELS})


def test_a_source_is_fitted_once_for_training_previews_and_evaluation():
    source, spec = Counted(), ImageSpec(image_size=4)
    data = FittedData(source, spec)
    assert data.for_training({}) is data.plain
    assert source.asked == [spec]
    assert data.for_training({"image_size": 2}) is not data.plain
    assert data.for_training({"image_size": 2}) is data.for_training({"image_size": 2})
    assert source.asked == [spec, ImageSpec(image_size=2)]


def test_previews_and_evaluation_are_not_augmented():
    source = Counted()
    FittedData(source, ImageSpec(image_size=4, flip=True, crop="random", enlarge=1.5, resize="stretch"))
    assert source.asked[1] == ImageSpec(image_size=4, resize="stretch", enlarge=1.0, crop="centre", flip=False)


# --- what a game needs


class Judged(nn.Module):
    def __init__(self, *, image_size: int = 4, channels: int = 3, sample_rate: int = 1):
        super().__init__()
        self.latent_dim, self.rate = 2, sample_rate
        self.data_spec = ImageSpec(image_size=image_size, channels=channels)
        self.layer = nn.Linear(2, channels * image_size**2)
        self.shape = (channels, image_size, image_size)

    def forward(self, z):
        return self.layer(z).unflatten(1, self.shape)


class Judge(nn.Module):
    def __init__(self, *, image_size: int = 4, channels: int = 3):
        super().__init__()
        self.judge = nn.Linear(channels * image_size**2, 1)

    def forward(self, images):
        return self.judge(images.flatten(1)).squeeze(1)


PRESET = Preset(
    TwoPlayerGame,
    networks={"generator": Judged, "discriminator": Judge},
    objective="non_saturating",
    data={"spec": {"flip": True}},
)


def test_facts_are_the_defaults_of_settings_of_the_same_name():
    recipe = PRESET.complete(PRESET.recipe(), Counted().facts)
    assert (recipe.network["channels"], recipe.network["sample_rate"]) == (1, 8000)
    given = PRESET.complete(PRESET.recipe().but({"network.sample_rate": 16_000}), Counted().facts)
    assert given.network["sample_rate"] == 16_000
    assert recipe.data.spec == {"resize": "cover", "enlarge": 1.0, "crop": "centre", "flip": True, "interpolate": True}


def test_a_game_is_conditional_only_on_request():
    class Classed(Judged):
        def __init__(self, *, channels: int = 3, num_classes: int | None = None):
            super().__init__(channels=channels)
            self.num_classes = num_classes

    preset = Preset(TwoPlayerGame, networks={"generator": Classed, "discriminator": Judge})
    recipe = preset.complete(preset.recipe(), {"channels": 1, "num_classes": 3, "classes": ["a", "b", "c"]})
    assert recipe.network["num_classes"] is None
    assert recipe.data.classes is None


def test_class_names_are_taken_from_the_data_if_the_game_has_none():
    game = PRESET.build(PRESET.recipe().but({"network": {"channels": 1}}))
    assert game.recipe is not None
    named = game.recipe.but({"data.classes": ["a", "b"]})
    assert completed(game, named).data.classes is None
    game.num_classes = 2
    assert completed(game, named).data.classes == ("a", "b")
    assert completed(game, named, {"classes": ["c", "d"]}).data.classes == ("c", "d")


def test_the_recipe_sets_fields_that_the_networks_leave_open():
    game = PRESET.build(PRESET.recipe().but({"network": {"channels": 1}, "data.spec.crop": "random"}))
    assert game.spec == ImageSpec(image_size=4, channels=1, flip=True, crop="random")
    assert game.data_keys == ("image",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.spec.flp": True}, "unknown setting `data.spec.flp`; did you mean `data.spec.flip`?"),
        ({"data.spec.enlarge": 0.5}, "`data.spec.enlarge` is 0.5; expected greater than or equal to 1"),
        (
            {"data.spec.image_size": 8},
            "`data.spec.image_size` is 8, but the game needs 4; leave it out, or set `network.image_size`",
        ),
    ],
)
def test_an_invalid_specification_is_rejected(changes, words):
    with pytest.raises(RecipeError) as error:
        PRESET.complete(PRESET.recipe().but(changes))
    assert str(error.value) == words


def test_parts_have_their_own_channels_and_masks_are_not_interpolated():
    spec = ImageSpec(image_size=8, channels={"source": 1, "target": 3})
    assert (spec.part("source").channels, spec.part("target").channels) == (1, 3)
    assert spec.part("mask") == ImageSpec(image_size=8, channels=1, interpolate=False)
    with pytest.raises(RecipeError, match=r"^`data.spec.channels` is set for source, target; set it for `other` too$"):
        spec.part("other")


class Reader(Game):
    """A game built by hand that reads two keys."""

    reads = ("source", "target")

    def __init__(self):
        super().__init__()
        self.generator = nn.Conv2d(1, 1, 1)

    def players(self):
        yield Player("generator", (self.generator,), self.loss)

    def loss(self, batch):
        return {"square": (self.generator(batch["source"]) - batch["target"]).square().mean()}

    def preview(self, batch):
        return {"source": batch["source"]}


def test_a_missing_key_is_rejected_before_anything_is_written(tmp_path):
    from gan_core.api import train

    with pytest.raises(
        DataError, match=r"^tensors has `image`, but Reader reads `source`, `target`; give `--data source="
    ):
        train(Reader(), data={"image": LEVELS}, out=tmp_path / "run", steps=1)
    assert list(tmp_path.iterdir()) == []
    run = train(
        Reader(),
        data=Paired(source=LEVELS, target=LEVELS),
        out=tmp_path / "run",
        steps=1,
        batch_size=2,
        device="cpu",
        shown=False,
    )
    assert run.log()[-1]["step"] == 1


def test_other_keys_of_the_data_are_ignored(tmp_path):
    from gan_core.api import train

    data = {"image": LEVELS.float() / 6, "tokens": torch.arange(6), "caption": torch.zeros(6, 5)}
    game = TwoPlayerGame(Judged(channels=1), Judge(channels=1))
    train(game, data=data, out=tmp_path / "run", steps=1, batch_size=2, device="cpu", shown=False)
    by_hand = TwoPlayerGame(nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)))
    by_hand.generator.latent_dim = 2
    assert by_hand.data_spec() == Spec()
    with pytest.raises(
        DataError, match=r"^the data have the keys `caption`, `image`, `tokens`; set `TwoPlayerGame.reads` to one"
    ):
        by_hand.real(data)


def test_a_recipe_contains_a_path_for_each_part():
    recipe = Recipe(system="any").but({"data.source": {"source": "a", "target": "b"}})
    assert recipe.data.source == {"source": "a", "target": "b"}
    assert recipe.but({"data.source": "digits"}).data.source == "digits"
    assert ArraySpec(shape=[2]).shape == (2,)
