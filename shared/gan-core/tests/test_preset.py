"""Presets: complete recipes, derived presets, and error messages."""

import pytest
import torch
from torch import nn

import gan_core
import gan_core.play.preset
from gan_core.errors import CheckpointError, RecipeError
from gan_core.play.game import Game
from gan_core.play.objectives import non_saturating, wasserstein
from gan_core.play.player import Player
from gan_core.play.preset import Preset, on_meta
from gan_core.play.regularizers import GradientPenalty
from gan_core.play.two_player import TwoPlayerGame
from gan_core.recipe import Adam, RMSprop, Size


class Generator(nn.Module):
    def __init__(
        self,
        *,
        channels: Size = 3,
        width: Size = 4,
        slope: float = 0.2,
        shape: tuple[Size, ...] = (2,),
        norm: str = "batch",
    ):
        super().__init__()
        self.latent_dim = 2
        self.made = {"channels": channels, "width": width, "slope": slope, "shape": shape, "norm": norm}
        self.main = nn.Linear(2, width)

    def forward(self, z):
        return self.main(z)


class Judge(nn.Module):
    def __init__(self, *, width: Size = 4):
        super().__init__()
        if width == 13:
            raise RecipeError("`width` is 13; try 14")
        if width == 17:
            raise ValueError("17\nis odd")
        self.made = {"width": width}
        self.main = nn.Linear(width, 1)

    def forward(self, x):
        return self.main(x).squeeze(1)


class Cycle(Game):
    """A game with losses and settings of its own."""

    def __init__(self, generator: nn.Module, *, cycle_weight: float = 10.0, needed: int):
        super().__init__()
        self.generator, self.cycle_weight, self.needed = generator, cycle_weight, needed

    def players(self):
        yield Player("generator", (self.generator,), lambda batch: {}, optimizer=RMSprop())


NETWORKS = {"generator": Generator, "discriminator": Judge}
PRESET = Preset(TwoPlayerGame, NETWORKS, objective="non_saturating")


def refusal(change, preset=PRESET):
    with pytest.raises(RecipeError) as error:
        preset.check(preset.recipe().but(change))
    return str(error.value)


# --- what a preset writes out


def test_defaults_of_the_networks_are_written_out():
    network = PRESET.check(PRESET.recipe()).network
    assert network == {"channels": 3, "width": 4, "slope": 0.2, "shape": (2,), "norm": "batch"}


def test_the_defaults_of_the_rules_are_written_out():
    assert Preset(TwoPlayerGame, NETWORKS).check(Preset(TwoPlayerGame, NETWORKS).recipe()).objective == "non_saturating"
    cycle = Preset(Cycle, {"generator": Generator}, settings={"needed": 2})
    assert cycle.check(cycle.recipe()).game == {"cycle_weight": 10.0, "needed": 2}
    assert cycle.check(cycle.recipe()).objective is None


def test_checking_twice_changes_nothing():
    once = PRESET.check(PRESET.recipe())
    assert PRESET.check(once) == once


def test_a_recipe_of_the_preset_goes_to_yaml_and_back(tmp_path):
    from gan_core.recipe import read_recipe

    preset = PRESET.but(
        network={"generator": {"width": 6}, "discriminator": {"width": 6}}, players={"generator": {"turns": 2}}
    )
    recipe = preset.check(preset.recipe(system="mine", preset="small"))
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert preset.check(read_recipe(tmp_path / "recipe.yaml")).to_yaml() == recipe.to_yaml()


def test_open_settings_are_taken_from_the_facts_of_the_data():
    facts = {"channels": 1, "shape": (1, 8), "num_classes": 3}
    network = PRESET.complete(PRESET.recipe(), facts).network
    assert (network["channels"], network["shape"]) == (1, (1, 8))
    given = PRESET.complete(PRESET.recipe().but({"network.channels": 2}), facts).network
    assert given["channels"] == 2
    assert "num_classes" not in network


# --- building


def test_a_shared_setting_reaches_every_network_that_takes_it():
    game = PRESET.create(width=6, slope=0.5)
    assert (game.generator.made["width"], game.discriminator.network.made["width"]) == (6, 6)
    assert game.generator.made["slope"] == 0.5


def test_a_setting_under_a_networks_name_applies_to_that_network():
    game = PRESET.create(width=6, discriminator={"width": 7})
    assert (game.generator.made["width"], game.discriminator.network.made["width"]) == (6, 7)


def test_a_game_has_the_rules_of_its_recipe():
    preset = PRESET.but(objective="wasserstein", regularizers=[GradientPenalty(weight=3.0, interval=2)])
    game = preset.build()
    assert game.discriminator.objective is wasserstein
    assert game.discriminator.regularizers == (GradientPenalty(weight=3.0, interval=2),)
    assert PRESET.build().discriminator.objective is non_saturating
    lighter = preset.build(preset.recipe().but({"regularizers.gradient_penalty": None}))
    assert lighter.discriminator.regularizers == ()


def test_a_game_remembers_its_recipe():
    assert PRESET.create(width=6).recipe.network["width"] == 6


def test_weights_come_from_torchs_generator():
    torch.manual_seed(5)
    first = PRESET.build()
    torch.manual_seed(5)
    assert torch.equal(first.generator.main.weight, PRESET.build().generator.main.weight)


# --- deriving


def test_but_merges_mappings_and_replaces_the_rest():
    preset = PRESET.but(network={"width": 6}, train={"steps": 9}).but(network={"slope": 0.1}, optimizer=RMSprop())
    assert preset.network == {"width": 6, "slope": 0.1}
    assert (preset.train, preset.optimizer) == ({"steps": 9}, RMSprop())
    assert PRESET.network == {}
    assert PRESET.optimizer == Adam()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": {"widht": 1}}, "unknown setting `network.widht`; did you mean `network.width`?"),
        ({"network": {"width": 0}}, "`network.width` is 0; expected greater than or equal to 1"),
        ({"objective": "hinges"}, "unknown objective `hinges`; did you mean `hinge`?"),
        ({"train": {"steps": -1}}, "`train.steps` is -1; expected greater than or equal to 1"),
        ({"settings": {"cycle_weight": 1}}, "unknown setting `game.cycle_weight`; there are none"),
    ],
)
def test_a_derived_preset_is_checked_where_it_is_written(changes, words):
    with pytest.raises(RecipeError) as error:
        PRESET.but(**changes)
    assert str(error.value) == words


# --- what is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"network.generator.widht": 3},
            "unknown setting `network.generator.widht`; did you mean `network.generator.width`?",
        ),
        (
            {"network.discriminator.slope": 3},
            "unknown setting `network.discriminator.slope`; known: network.discriminator.width",
        ),
        ({"network.generator": 3}, "`network.generator` is 3; expected a mapping of settings"),
        ({"network.generator": None}, "`network.generator` is None; expected a mapping of settings"),
        ({"network.width": "wide"}, "`network.width` is 'wide'; expected a whole number"),
        ({"network.width": 65_537}, "`network.width` is 65537; expected less than or equal to 65536"),
        ({"network.slope": "steep"}, "`network.slope` is 'steep'; expected a number"),
        ({"network.slope": float("nan")}, "`network.slope` is nan; expected a finite number"),
        ({"network.norm": 3}, "`network.norm` is 3; expected text"),
        ({"network.shape": 3}, "`network.shape` is 3; expected a list"),
        ({"network.shape": [1, 0]}, "`network.shape.1` is 0; expected greater than or equal to 1"),
        ({"game.anything": 1}, "unknown setting `game.anything`; there are none"),
        ({"game.objective": 1}, "unknown setting `game.objective`; there are none"),
        ({"objective": "wassersten"}, "unknown objective `wassersten`; did you mean `wasserstein`?"),
        (
            {"regularizers.gradient_penalti.weight": 1},
            "unknown regularizer `gradient_penalti`; did you mean `gradient_penalty`?",
        ),
        (
            {"regularizers.gradient_penalty.weight": -1},
            "`regularizers.gradient_penalty.weight` is -1; expected greater than 0",
        ),
        (
            {"regularizers.gradient_penalty.wait": 1},
            "unknown setting `regularizers.gradient_penalty.wait`; "
            "did you mean `regularizers.gradient_penalty.weight`?",
        ),
    ],
)
def test_an_invalid_setting_is_refused_in_one_line(change, words):
    assert refusal(change) == words


def test_games_with_their_own_losses_accept_no_objective():
    cycle = Preset(Cycle, {"generator": Generator}, settings={"needed": 1})
    assert refusal({"objective": "wasserstein"}, cycle) == ("Cycle has its own losses; leave out `objective`")
    assert refusal({"regularizers.gradient_penalty.weight": 1.0}, cycle) == (
        "Cycle does not support `regularizers`; leave them out"
    )


def test_a_setting_without_a_default_must_be_given():
    with pytest.raises(RecipeError, match=r"^`game.needed` is missing; set it$"):
        Preset(Cycle, {"generator": Generator})


def test_a_shared_setting_that_would_have_no_effect_is_refused():
    preset = PRESET.but(network={"generator": {"width": 6}, "discriminator": {"width": 8}})
    assert refusal({"network.width": 7}, preset) == (
        "`network.width` would have no effect; set `network.generator.width` and `network.discriminator.width`"
    )
    assert "width" not in preset.check(preset.recipe()).network
    assert preset.create(generator={"width": 7}).generator.made["width"] == 7


class Deep(Judge):
    def __init__(self, *, width: Size = 4, depth: tuple[Size, ...] = (1,)):
        super().__init__(width=width)
        self.depth = depth


class Flat(Generator):
    def __init__(self, *, width: Size = 4, depth: Size = 1):
        super().__init__(width=width)
        self.depth = depth


class Listed(Generator):
    def __init__(self, *, width: Size = 4, depth: list[Size] = [1]):  # noqa: B006  pydantic copies it
        super().__init__(width=width)
        self.depth = depth


@pytest.mark.parametrize("order", [1, -1])
def test_a_shared_setting_is_valid_for_each_network_that_takes_it(order):
    networks = dict([("generator", Flat), ("discriminator", Deep)][::order])
    own = {"generator": {"depth": 2}, "discriminator": {"depth": (3,)}}
    preset = Preset(TwoPlayerGame, networks, network=own)
    shared = preset.recipe().model_copy(update={"network": {"depth": 4}})
    first, second = list(networks)
    with pytest.raises(RecipeError) as error:
        preset.check(shared)
    assert str(error.value) == (
        f"`network.depth` is 4; expected a list in `discriminator`; set `network.{first}.depth` and "
        f"`network.{second}.depth`"
    )
    game = preset.build()
    assert (game.generator.depth, game.discriminator.network.depth) == (2, (3,))


def test_networks_that_convert_a_shared_setting_differently_get_their_own(tmp_path):
    networks = {"generator": Listed, "discriminator": Deep}
    preset = Preset(TwoPlayerGame, networks, network={"depth": [2, 3]})
    checked = preset.check(preset.recipe())
    assert checked.network == {"width": 4, "generator": {"depth": [2, 3]}, "discriminator": {"depth": (2, 3)}}
    assert preset.check(checked) == checked
    game = preset.build()
    assert (game.generator.depth, game.discriminator.network.depth) == ([2, 3], (2, 3))


def test_a_value_of_the_preset_gives_way_to_values_for_each_network():
    preset = PRESET.but(network={"width": 5})
    own = {"network.generator.width": 6, "network.discriminator.width": 7}
    game = preset.build(preset.recipe().but(own))
    assert (game.generator.made["width"], game.discriminator.network.made["width"]) == (6, 7)
    assert refusal(own | {"network.width": 8}, preset) == (
        "`network.width` would have no effect; set `network.generator.width` and `network.discriminator.width`"
    )


def test_names_of_regularizers_stand_for_their_default_settings():
    preset = PRESET.but(regularizers=["r1", GradientPenalty(weight=3.0)])
    assert list(preset.recipe().regularizers) == ["r1", "gradient_penalty"]
    assert {r.name: r.weight for r in preset.build().discriminator.regularizers} == {
        "r1": 10.0,
        "gradient_penalty": 3.0,
    }
    changed = PRESET.check(PRESET.recipe().but({"regularizers": ["r1"]}))
    assert changed.regularizers["r1"]["weight"] > 0
    one = PRESET.check(PRESET.recipe().but({"adversaries": {"discriminator": {"regularizers": ["r1"]}}}))
    assert list(one.adversaries["discriminator"].regularizers) == ["r1"]


def test_a_shared_setting_with_different_defaults_must_be_given():
    class Wide(Judge):
        def __init__(self, *, width: Size = 8):
            super().__init__(width=width)

    networks = {"generator": Generator, "discriminator": Wide}
    with pytest.raises(RecipeError) as error:
        Preset(TwoPlayerGame, networks)
    assert str(error.value) == (
        "`network.width` is not set, and the defaults of `network.generator.width` and `network.discriminator.width` "
        "differ; set it"
    )
    assert Preset(TwoPlayerGame, networks, network={"width": 5}).build().discriminator.network.made["width"] == 5
    assert Preset(TwoPlayerGame, networks, network={"generator": {"width": 5}}).build().generator.made["width"] == 5


def test_players_of_a_recipe_must_exist():
    with pytest.raises(
        RecipeError, match=r"^unknown player of TwoPlayerGame `critic`; known: discriminator, generator$"
    ):
        PRESET.build(PRESET.recipe().but({"players.critic.turns": 2}))
    with pytest.raises(RecipeError, match=r"^unknown setting `players.generator.optimizer.lr`; known:"):
        PRESET.build(PRESET.recipe().but({"players.generator.optimizer": {"lr": 2}}))


def test_an_error_in_a_networks_constructor_is_a_recipe_error():
    with pytest.raises(RecipeError, match=r"^`width` is 13; try 14$"):
        PRESET.create(width=13)
    with pytest.raises(RecipeError) as error:
        PRESET.create(width=17)
    assert str(error.value) == (
        "TwoPlayerGame: `discriminator` cannot be built with these `network` settings: 17 is odd"
    )


# --- a preset without a domain


def test_a_preset_loads_what_it_saved(tmp_path):
    game = PRESET.create(width=6)
    game.save_pretrained(tmp_path / "model")
    again = gan_core.load(tmp_path / "model", preset=PRESET)
    assert again.generator.made["width"] == 6
    assert torch.equal(again.generator.main.weight, game.generator.main.weight)


def test_a_preset_cannot_build_a_game_that_has_no_recipe(tmp_path):
    TwoPlayerGame(Generator(), Judge()).save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError) as error:
        gan_core.load(tmp_path / "model", preset=PRESET)
    assert str(error.value) == (
        f"{tmp_path / 'model'}: its game was built without a recipe; build it again, then call `game.restore(path)`"
    )


def test_networks_with_an_excessive_number_of_layers_are_refused_early(monkeypatch):
    def deep():
        return nn.Sequential(*[nn.Linear(1, 1) for _ in range(100)])

    monkeypatch.setattr(gan_core.play.preset, "PARAMETERS", 199)
    with pytest.raises(RecipeError, match=r"^the networks have more than 199 weight tensors; "), on_meta():
        deep()
    monkeypatch.setattr(gan_core.play.preset, "PARAMETERS", 200)
    with on_meta():
        deep()
    assert len(list(deep().parameters())) == 200
