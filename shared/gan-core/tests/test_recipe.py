"""Recipes: conversion to YAML and back, changes, and error messages."""

import os
import sys

import pytest
import yaml

from gan_core.errors import RecipeError
from gan_core.recipe import (
    SGD,
    Adam,
    Cosine,
    HalfLife,
    Linear,
    Recipe,
    RMSprop,
    Step,
    TrainSettings,
    parse,
    parse_value,
    read_recipe,
    read_yaml,
)

EVERYTHING = {
    "domain": "image",
    "system": "dcgan",
    "preset": "small",
    "network": {"image_size": 16, "shape": [1, 2], "generator": {"width": 8, "name": "größer"}, "norm": None},
    "game": {"cycle_weight": 10.0},
    "objective": "wasserstein",
    "regularizers": {"gradient_penalty": {"weight": 1e-12, "interval": 4}},
    "optimizer": {"name": "rmsprop", "learning_rate": 5e-5, "schedule": {"name": "linear", "start": 0.5}},
    "players": {"discriminator": {"turns": 5, "optimizer": {"learning_rate": 0.1}}},
    "data": {"source": "a folder/with: colons", "strict": True, "workers": 2},
    "train": {"steps": 7, "minutes": 0.5, "batch_size": 12, "accumulate": 3, "trackers": ["tensorboard"], "ema": 0.99},
}


# --- there and back


@pytest.mark.parametrize("fields", [{"system": "dcgan"}, EVERYTHING], ids=["least", "everything"])
def test_a_recipe_is_read_back_unchanged(fields, tmp_path):
    recipe = parse(fields)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    assert read_recipe(file) == recipe
    assert read_recipe(file).to_yaml() == recipe.to_yaml()


def test_a_written_recipe_contains_every_setting():
    written = yaml.safe_load(parse({"system": "dcgan"}).to_yaml())
    assert list(written) == list(Recipe.model_fields)
    assert list(written["train"]) == list(TrainSettings.model_fields)
    assert written["optimizer"]["betas"] == [0.5, 0.999]


def test_values_that_are_one_object_are_written_out_twice():
    shape = [1, 2]
    text = parse({"system": "x", "network": {"shape": shape, "generator": {"shape": shape}}}).to_yaml()
    assert "*" not in text
    assert "&" not in text


def test_a_recipe_cannot_be_changed_in_place():
    recipe = parse({"system": "x"})
    with pytest.raises(ValueError, match="frozen"):
        recipe.system = "y"


def test_reading_a_recipe_loads_no_torch():
    import subprocess

    code = "import sys, gan_core.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- changes


def changed(changes, **fields):
    return parse({"system": "x", **fields}).but(changes)


def test_dotted_keys_and_mappings_are_equivalent():
    assert changed({"train.steps": 3, "train.ema": None}) == changed({"train": {"steps": 3, "ema": None}})
    assert changed({"train.steps": 3}).train.batch_size == TrainSettings().batch_size


def test_a_change_does_not_modify_the_original_recipe():
    recipe = parse(EVERYTHING)
    recipe.but({"network.generator.width": 99, "regularizers.gradient_penalty": None})
    assert recipe == parse(EVERYTHING)


def test_missing_mappings_are_created():
    recipe = changed({"network.generator.width": 3, "players.critic.turns": 2})
    assert recipe.network == {"generator": {"width": 3}}
    assert recipe.players["critic"].turns == 2


def test_none_removes_a_regularizer_and_is_a_value_elsewhere():
    recipe = changed({"regularizers.a": None, "network.norm": None}, regularizers={"a": {}, "b": {}})
    assert recipe.regularizers == {"b": {}}
    assert recipe.network == {"norm": None}
    assert changed({"regularizers.never": None}).regularizers == {}


def test_another_kind_of_optimizer_replaces_all_settings():
    adam = {"optimizer": {"name": "adam", "learning_rate": 0.5, "betas": [0.1, 0.2]}}
    assert changed({"optimizer.name": "sgd"}, **adam).optimizer == SGD()
    assert changed({"optimizer": {"name": "sgd", "momentum": 0.5}}, **adam).optimizer == SGD(momentum=0.5)
    assert changed({"optimizer": {"betas": [0.0, 0.9]}}, **adam).optimizer == Adam(learning_rate=0.5, betas=(0.0, 0.9))
    assert changed({"optimizer.name": "adam"}, **adam).optimizer.learning_rate == 0.5
    assert changed({"optimizer.schedule": {"name": "step", "every": 3}}, **adam).optimizer.schedule == Step(every=3)


@pytest.mark.parametrize("keys", [["optimizer.momentum", "optimizer.name"], ["optimizer.name", "optimizer.momentum"]])
def test_the_order_of_the_changes_does_not_matter(keys):
    values = {"optimizer.name": "sgd", "optimizer.momentum": 0.5}
    assert changed({key: values[key] for key in keys}).optimizer == SGD(momentum=0.5)


def test_a_schedule_may_come_before_its_optimizer():
    changes = {"optimizer.schedule.end": 0.5, "optimizer.schedule.name": "cosine", "optimizer.name": "sgd"}
    assert changed(changes).optimizer == SGD(schedule=Cosine(end=0.5))


@pytest.mark.parametrize("key", ["", "train.", ".steps", "train..steps"])
def test_a_key_with_an_empty_part_is_refused(key):
    with pytest.raises(RecipeError) as error:
        changed({key: 3})
    assert str(error.value) == f"`{key}` is not a setting; write keys with dots between them, such as `train.steps`"


def test_a_key_below_a_value_is_refused():
    with pytest.raises(RecipeError, match=r"^`network.width.deep` is unknown: `width` is 3, which has no settings$"):
        changed({"network.width.deep": 1}, network={"width": 3})


def test_an_average_has_a_decay_or_a_half_life():
    assert changed({"train.ema": 0.5}).train.ema == 0.5
    rule = HalfLife(half_life=1000, ramp_up=0.05)
    assert changed({"train.ema.half_life": 1000}, train={"ema": 0.5}).train.ema == rule
    assert changed({"train.ema": {"half_life": 1000}}, train={"ema": 0.5}).train.ema == rule
    assert changed({"train.ema.ramp_up": None}, train={"ema": rule}).train.ema == HalfLife(half_life=1000, ramp_up=None)
    assert changed({"train.ema": 0.5}, train={"ema": rule}).train.ema == 0.5
    written = changed({"train.ema.half_life": 1000})
    assert parse(yaml.safe_load(written.to_yaml())) == written


def test_a_number_of_steps_removes_epochs():
    assert changed({"train.steps": 5}, train={"epochs": 3}).train.epochs is None
    assert changed({"train": {"steps": 5}}, train={"epochs": 3}).train.epochs is None
    assert changed({"train.steps": 5, "train.epochs": 2}).train.epochs == 2
    assert changed({"train.seed": 5}, train={"epochs": 3}).train.epochs == 3


# --- what is refused


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"systen": "y"}, "unknown setting `systen`; did you mean `system`?"),
        ({"system": 3}, "`system` is 3; expected text"),
        ({"train": {"stepz": 3}}, "unknown setting `train.stepz`; did you mean `train.steps`?"),
        (
            {"train": {"zzz": 3}},
            f"unknown setting `train.zzz`; known: "
            f"{', '.join(sorted(f'train.{name}' for name in TrainSettings.model_fields))}",
        ),
        ({"train": {"steps": 0}}, "`train.steps` is 0; expected greater than or equal to 1"),
        ({"train": {"steps": 1.5}}, "`train.steps` is 1.5; expected a whole number"),
        ({"train": {"steps": "many"}}, "`train.steps` is 'many'; expected a whole number"),
        ({"train": {"batch_size": -4}}, "`train.batch_size` is -4; expected greater than or equal to 1"),
        (
            {"train": {"batch_size": 4, "accumulate": 3}},
            "`train.batch_size` is 4; make it a multiple of `train.accumulate`, 3",
        ),
        ({"train": {"seed": -1}}, "`train.seed` is -1; expected greater than or equal to 0"),
        ({"train": {"ema": 1.0}}, "`train.ema` is 1.0; expected less than 1"),
        ({"train": {"ema": "slow"}}, "`train.ema` is 'slow'; expected a number"),
        ({"train": {"ema": {"half_life": 0}}}, "`train.ema.half_life` is 0; expected greater than 0"),
        (
            {"train": {"ema": {"half_live": 9}}},
            "unknown setting `train.ema.half_live`; did you mean `train.ema.half_life`?",
        ),
        ({"train": {"epochs": 0}}, "`train.epochs` is 0; expected greater than 0"),
        ({"train": {"minutes": float("nan")}}, "`train.minutes` is nan; expected a finite number"),
        ({"train": {"compile": "maybe"}}, "`train.compile` is 'maybe'; expected true or false"),
        ({"train": {"precision": "fp8"}}, "`train.precision` is 'fp8'; expected 'fp32', 'bf16' or 'fp16'"),
        (
            {"train": {"device": "tpu"}},
            "`train.device` is 'tpu'; expected auto, cpu, cuda, cuda:1 (the second), mps or xpu",
        ),
        ({"train": {"trackers": "wandb"}}, "`train.trackers` is 'wandb'; expected a list"),
        ({"train": 3}, "`train` is 3; expected a mapping of settings"),
        ({"data": "digits"}, "`data` is 'digits'; expected a mapping of settings"),
        ({"network": "x" * 200}, f"`network` is '{'x' * 78}…; expected a mapping of settings"),
        ({"optimizer": {"learning_rate": 1}}, "`optimizer.name` is missing; expected one of adam, rmsprop, sgd"),
        ({"optimizer": {"name": "adamm"}}, "unknown optimizer `adamm`; did you mean `adam`?"),
        (
            {"optimizer": {"name": "sgd", "betas": [0, 0]}},
            "unknown setting `optimizer.betas`; known: optimizer.clip_norm, optimizer.learning_rate, "
            "optimizer.momentum, optimizer.name, optimizer.schedule",
        ),
        ({"optimizer": {"name": "adam", "betas": [0.5, 1]}}, "`optimizer.betas.1` is 1; expected less than 1"),
        ({"optimizer": {"name": "sgd", "learning_rate": 0}}, "`optimizer.learning_rate` is 0; expected greater than 0"),
        (
            {"optimizer": {"name": "adam", "schedule": {"name": "liner"}}},
            "unknown optimizer.schedule `liner`; did you mean `linear`?",
        ),
        (
            {"optimizer": {"name": "adam", "schedule": {"name": "linear", "strat": 0}}},
            "unknown setting `optimizer.schedule.strat`; did you mean `optimizer.schedule.start`?",
        ),
        (
            {"optimizer": {"name": "adam", "schedule": {"name": "step"}}},
            "`optimizer.schedule.every` is missing; set it",
        ),
        (
            {"players": {"critic": {"turn": 1}}},
            "unknown setting `players.critic.turn`; did you mean `players.critic.turns`?",
        ),
        ({"players": {"critic": {"turns": 0}}}, "`players.critic.turns` is 0; expected greater than or equal to 1"),
        ({"regularizers": {"r1": 3}}, "`regularizers.r1` is 3; expected a mapping of settings"),
    ],
)
def test_an_invalid_setting_is_refused_in_one_line(fields, words):
    with pytest.raises(RecipeError) as error:
        parse({"system": "x", **fields})
    assert str(error.value) == words


def test_a_recipe_names_its_system():
    with pytest.raises(RecipeError, match=r"^`system` is missing; set it$"):
        parse({})


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "xpu", "cuda", "cuda:1"])
def test_devices_are_known_by_name(device):
    assert TrainSettings(device=device).device == device


@pytest.mark.parametrize("fields", [[], "text", 3, None])
def test_a_value_that_is_not_a_mapping_is_not_a_recipe(fields):
    with pytest.raises(RecipeError, match=r"^`the recipe` is .*; expected a mapping of settings$"):
        parse(fields)


# --- a player's optimizer


def player(over, own=None, **optimizer):
    recipe = parse({"system": "x", "optimizer": {"name": "adam", **optimizer}, "players": {"d": {"optimizer": over}}})
    return recipe.player_optimizer("d", own)


def test_settings_of_a_player_replace_those_of_the_recipe():
    assert player({}, learning_rate=0.1) == Adam(learning_rate=0.1)
    assert player({"betas": [0, 0]}, learning_rate=0.1) == Adam(learning_rate=0.1, betas=(0, 0))
    assert player({"name": "sgd"}, learning_rate=0.1) == SGD()


def test_the_optimizer_of_a_player_precedes_that_of_the_recipe():
    assert player({}, own=RMSprop(learning_rate=0.2)) == RMSprop(learning_rate=0.2)
    assert player({"learning_rate": 0.3}, own=RMSprop()) == RMSprop(learning_rate=0.3)


def test_an_invalid_optimizer_setting_of_a_player_is_named():
    with pytest.raises(RecipeError) as error:
        player({"lr": 3})
    assert str(error.value) == (
        "unknown setting `players.d.optimizer.lr`; known: players.d.optimizer.betas, players.d.optimizer.clip_norm, "
        "players.d.optimizer.epsilon, players.d.optimizer.learning_rate, players.d.optimizer.name, "
        "players.d.optimizer.schedule, players.d.optimizer.weight_decay"
    )
    with pytest.raises(RecipeError, match=r"^`players.d.optimizer.learning_rate` is -1; expected greater than 0$"):
        player({"learning_rate": -1})


# --- values and files


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-4", 1e-4),
        ("2.5E3", 2500.0),
        ("true", True),
        ("null", None),
        ("", None),
        ("[0.5, 0.9]", [0.5, 0.9]),
        ("{a: 1}", {"a": 1}),
        ("digits", "digits"),
        ("'3'", "3"),
        ("a b", "a b"),
        ("C:\\data", "C:\\data"),
    ],
)
def test_values_on_the_command_line_are_yaml_with_common_numbers(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1", "line 1: expected ',' or ']', but got '<stream end>'"),
        ("a: b: c", "line 1: mapping values are not allowed here"),
        ("*x", "line 1: `*x` is an alias; write its value instead"),
        ("&a [*a]", "line 1: `*a` is an alias; write its value instead"),
        ("2001-99-99", "month must be in 1..12"),
        (
            "!!python/name:os.system",
            "line 1: could not determine a constructor for the tag 'tag:yaml.org,2002:python/name:os.system'",
        ),
    ],
)
def test_an_invalid_value_is_refused_with_the_reason(text, reason):
    with pytest.raises(RecipeError) as error:
        parse_value(text)
    assert str(error.value) == f"`{text}` is not a valid value ({reason})"


@pytest.mark.parametrize(
    "text", ["!!int x", "!!float x", "!!bool x", "!!timestamp x", "!!binary ä", "9" * 5000, "[" * 5000]
)
def test_a_value_that_makes_the_parser_fail_is_refused(text):
    with pytest.raises(RecipeError, match=r" is not a valid value \("):
        parse_value(text)


def refused(tmp_path, content):
    file = tmp_path / "recipe.yaml"
    file.write_bytes(content)
    with pytest.raises(RecipeError) as error:
        read_yaml(file)
    return str(error.value).removeprefix(f"{file}: ")


def test_a_file_that_is_not_a_recipe_is_refused_with_the_reason(tmp_path):
    assert refused(tmp_path, b"\x89PNG\xff") == "cannot be read as a recipe (it is not UTF-8 text)"
    assert refused(tmp_path, b"- 1") == "is not a recipe; expected keys such as `system`, `data`, `train`"
    assert refused(tmp_path, b"") == "is not a recipe; expected keys such as `system`, `data`, `train`"
    assert refused(tmp_path, b"3: 4") == "is not a recipe; expected keys such as `system`, `data`, `train`"
    assert refused(tmp_path, b"a: [") == (
        "is not YAML of plain values (line 1: expected the node content, but found '<stream end>')"
    )
    assert refused(tmp_path, b" " * 1_000_001) == "is larger than 1,000,000 bytes; expected a recipe"
    assert refused(tmp_path, b"a: " + b"[" * 5000) == "is not YAML of plain values (it is nested too deeply)"


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path, reason in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(RecipeError) as error:
            read_recipe(path)
        assert str(error.value) == f"{path}: cannot be read as a recipe ({reason})"


def test_a_file_cannot_run_code(tmp_path):
    trace = tmp_path / "trace"
    words = refused(tmp_path, f"system: !!python/object/apply:os.mkdir ['{trace}']".encode())
    assert words.startswith("is not YAML of plain values (line 1: could not determine a constructor for the tag")
    assert not os.path.exists(trace)


def test_aliases_that_expand_without_bound_are_refused(tmp_path):
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert refused(tmp_path, "\n".join(["a0: &a0 [x]", *levels]).encode()) == (
        "is not YAML of plain values (line 2: `*a0` is an alias; write its value instead)"
    )


def test_schedules_require_their_settings():
    assert Linear(start=0.5).model_dump() == {"name": "linear", "start": 0.5, "end": 0.0}


def test_data_in_parts_replace_the_previous_parts():
    recipe = parse({"system": "toy", "data": {"source": {"source": "a", "target": "b"}}})
    assert recipe.but({"data.source": {"image": "c"}}).data.source == {"image": "c"}
    assert recipe.but({"data.source.target": "c"}).data.source == {"source": "a", "target": "c"}


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("batch_size", "unknown setting `batch_size`; did you mean `train.batch_size`?"),
        ("learning_rat", "unknown setting `learning_rat`; did you mean `optimizer.learning_rate`?"),
        ("trian", "unknown setting `trian`; did you mean `train`?"),
        ("image_size", "unknown setting `image_size`; settings of the networks are written `network.image_size`"),
    ],
)
def test_a_key_without_its_section_is_suggested_with_it(key, words):
    with pytest.raises(RecipeError) as error:
        parse({"system": "plain"}).but({key: 8})
    assert str(error.value) == words
