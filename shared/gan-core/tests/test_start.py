"""Initial weights from an earlier run, a model or a published checkpoint."""

import logging

import pytest
import torch
from torch import nn

import gan_core
from gan_core.api import Toolkit, open_recipe, resume, train_recipe
from gan_core.cli import build
from gan_core.errors import CheckpointError, InputError, RecipeError
from gan_core.models.checkpoint import sha256
from gan_core.models.start import start_networks
from gan_core.play.player import Player
from gan_core.play.two_player import TwoPlayerGame
from gan_core.recipe import parse, read_recipe


@pytest.fixture
def first(toy, tmp_path):
    """Returns a run with averaged weights."""
    return Toolkit(toy).train("plain", data="cloud", out=tmp_path / "first", ema=0.5, seed=1, shown=False)


def frozen(toy, folder, **start):
    """Trains with a learning rate of almost 0, so that the networks keep their initial weights."""
    run = Toolkit(toy).train(
        "plain",
        data="cloud",
        out=folder,
        start=start,
        steps=1,
        shown=False,
        changes={"optimizer.name": "sgd", "optimizer.learning_rate": 1e-30},
    )
    return Toolkit(toy).load(run.path), run


def same(network, other):
    return all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_networks_start_from_a_run_or_a_model(toy, first, tmp_path):
    before = Toolkit(toy).load(first.path)
    game, run = frozen(toy, tmp_path / "a", generator=first.path)
    assert same(game.generator, before.generator)  # the averaged weights
    assert not same(game.discriminator, before.discriminator)
    assert run.recipe.start["generator"].source == str(first.path)
    assert run.recipe.start["generator"].sha256 == sha256(first.checkpoints()[-1] / "average.safetensors")
    game, run = frozen(toy, tmp_path / "b", discriminator=first.model, generator=f"{first.model}:generator")
    assert same(game.discriminator, before.discriminator)
    assert same(game.generator, before.generator)
    assert run.recipe.start["discriminator"].sha256 == sha256(first.model / "model.safetensors")


def test_networks_start_from_a_published_checkpoint(toy, tmp_path):
    network = Toolkit(toy).create("plain").generator
    theirs = {"hidden": "fc1", "out": "fc2"}
    state = {f"{theirs[key.split('.')[0]]}.{key.split('.')[1]}": v for key, v in network.state_dict().items()}
    torch.save(state, tmp_path / "published.pt")
    game, run = frozen(toy, tmp_path / "run", generator=f"plain/generator:{tmp_path / 'published.pt'}")
    assert same(game.generator, network)
    assert run.recipe.start["generator"].sha256 == sha256(tmp_path / "published.pt")


def test_the_recipe_of_a_run_starts_only_from_the_same_weights(toy, first, tmp_path):
    _, run = frozen(toy, tmp_path / "a", generator=first.model)
    again = train_recipe(open_recipe(run.recipe_file, toy), tmp_path / "b", shown=False)
    assert same(Toolkit(toy).load(again.path), Toolkit(toy).load(run.path))
    Toolkit(toy).create("plain").save_pretrained(first.model)
    with pytest.raises(CheckpointError, match=r"has changed since `start.generator` was recorded"):
        train_recipe(open_recipe(run.recipe_file, toy), tmp_path / "c", shown=False)
    assert not (tmp_path / "c").exists()


def test_a_run_is_resumed_without_the_weights_that_it_started_from(toy, first, tmp_path):
    whole = Toolkit(toy).train(
        "plain",
        data="cloud",
        out=tmp_path / "whole",
        start={"generator": first.path},
        steps=4,
        checkpoint_every=2,
        shown=False,
    )
    half = Toolkit(toy).train(
        "plain", data="cloud", out=tmp_path / "half", start={"generator": first.path}, steps=2, shown=False
    )
    for file in sorted(first.path.rglob("*.safetensors")):
        file.unlink()
    resume(half.path, steps=4, shown=False)
    assert same(Toolkit(toy).load(whole.path), Toolkit(toy).load(half.path))
    assert half.recipe.start == whole.recipe.start


def test_missing_parameters_keep_initial_values_and_are_named(toy, first, tmp_path, caplog):
    class Longer(nn.Module):
        def __init__(self):
            super().__init__()
            self.latent_dim, self.hidden, self.more = 4, nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, z):
            return self.more(self.hidden(z))

    generator = Longer()
    game = TwoPlayerGame(generator, nn.Linear(2, 1))
    before = generator.more.weight.clone()
    with caplog.at_level(logging.WARNING):
        gan_core.train(
            game,
            data={"points": torch.zeros(8, 2)},
            out=tmp_path / "run",
            shown=False,
            steps=1,
            batch_size=4,
            device="cpu",
            start={"generator": first.path},
            changes={"optimizer.name": "sgd", "optimizer.learning_rate": 1e-30},
        )
    assert same(game.generator.hidden, Toolkit(toy).load(first.path).generator.hidden)
    assert torch.equal(game.generator.more.weight, before)
    assert [record.getMessage() for record in caplog.records] == [
        f"{first.path} does not have 2 tensors of `generator`, which keep their initial values: more.bias, more.weight",
        f"{first.path} has 2 tensors that `generator` does not have, which are not used: out.bias, out.weight",
    ]


class Wrapping(nn.Module):
    """A network with a submodule that has the name of an adversary's."""

    def __init__(self):
        super().__init__()
        self.latent_dim, self.network, self.out = 4, nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, z):
        return self.out(self.network(z))


def test_a_network_may_have_a_submodule_named_network(tmp_path):
    games = [TwoPlayerGame(Wrapping(), Wrapping()) for _ in range(2)]
    folder = games[0].save_pretrained(tmp_path / "model")
    recipe = parse({"system": "x", "start": {"generator": str(folder), "discriminator": str(folder)}})
    start_networks(games[1], recipe, {})
    assert same(games[1], games[0])


def test_a_submodule_of_a_network_can_be_started(tmp_path):
    class Several(TwoPlayerGame):
        def __init__(self):
            super().__init__(Wrapping(), nn.Linear(2, 1))

    first, second = Several(), Several()
    folder = first.save_pretrained(tmp_path / "model")
    rest = second.generator.out.weight.detach().clone()
    run = gan_core.train(
        second,
        data={"points": torch.zeros(8, 2)},
        out=tmp_path / "run",
        shown=False,
        steps=1,
        batch_size=4,
        device="cpu",
        start={"generator.network": folder},
        changes={"optimizer.name": "sgd", "optimizer.learning_rate": 1e-30},
    )
    assert same(second.generator.network, first.generator.network)
    assert torch.equal(second.generator.out.weight, rest)
    assert run.recipe.start["generator.network"].source == str(folder)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ({"generato": "RUN"}, "unknown network in `start` `generato`; did you mean `generator`?"),
        ({"generator": "none/at/all"}, "none/at/all: no such folder"),
        ({"generator": "~no-such-user/run"}, "~no-such-user/run: no such folder"),
        ({"generator": "plain/generator:~no-such-user/file.pt"}, "~no-such-user/file.pt: no such file"),
        ({"generator": "RUN:other"}, "RUN: has no network `other`; it has discriminator, generator"),
        ({"generator": "RUN:discriminator"}, "`start.generator`: `hidden.bias` is"),
        ({"generator": "plain/generator:none.pt"}, "none.pt: no such file"),
        ({"generator": "plain/generatr:RUN/recipe.yaml"}, "unknown published network `plain/generatr`; did you mean"),
    ],
)
def test_wrong_starts_are_refused_with_the_reason_before_a_run_is_created(toy, first, tmp_path, start, words):
    start = {key: value.replace("RUN", str(first.path)) for key, value in start.items()}
    with pytest.raises(InputError) as error:
        Toolkit(toy).train(
            "plain",
            data="cloud",
            out=tmp_path / "run",
            start=start,
            shown=False,
            changes={"network.generator": {"width": 6}} if "hidden.bias" in words else {},
        )
    assert str(error.value).replace(str(first.path), "RUN").startswith(words)
    assert not (tmp_path / "run").exists()


def test_weights_of_other_sizes_are_refused(toy, first, tmp_path):
    with pytest.raises(CheckpointError, match=r"`hidden.bias` is \[8\] in .*, but \[6\] here; give the networks"):
        Toolkit(toy).train(
            "plain",
            data="cloud",
            out=tmp_path / "run",
            start={"generator": first.path},
            shown=False,
            changes={"network.generator": {"width": 6}},
        )


def test_a_second_system_trains_against_a_frozen_one(toy, first, tmp_path):
    """An encoder is trained with the generator of an earlier run (as in f-AnoGAN), which stays unchanged."""

    class Encoding(TwoPlayerGame):
        def __init__(self, generator):
            super().__init__(generator, nn.Linear(2, 1))
            self.encoder = nn.Linear(2, 4)

        def players(self):
            yield Player("encoder", (self.encoder,), self.encoder_loss)

        def encoder_loss(self, batch):
            return {"distance": (self.generator(self.encoder(batch["points"])) - batch["points"]).square().mean()}

        def apply(self, batch):
            return {"encoded": self.encoder(batch["points"])}

    before = Toolkit(toy).load(first.path).generator
    game = Encoding(Toolkit(toy).create("plain").generator)
    points = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    run = gan_core.train(
        game,
        data={"points": points},
        out=tmp_path / "second",
        shown=False,
        steps=100,
        batch_size=16,
        device="cpu",
        start={"generator": first.path},
        changes={"train.log_every": 10, "optimizer.learning_rate": 0.02},
    )
    assert same(game.generator, before)
    losses = [line["encoder/distance"] for line in run.log()]
    assert losses[-1] < 0.9 * losses[0]


def test_starts_are_given_on_the_command_line(toy, first, tmp_path):
    app = build(toy)
    words = ["train", "plain", "--data", "cloud", "--steps", "1", "--out", str(tmp_path / "run")]
    app([*words, "--start", f"generator={first.path}"], standalone_mode=False)
    assert read_recipe(tmp_path / "run" / "recipe.yaml").start["generator"].source == str(first.path)
    for wrong, message in [("generator", "write NETWORK=WHERE"), ("=x", "write NETWORK=WHERE")]:
        with pytest.raises(InputError, match=message):
            app([*words, "--start", wrong], standalone_mode=False)
    with pytest.raises(InputError, match="is given twice for `generator`"):
        app([*words, "--start", "generator=a", "--start", "generator=b"], standalone_mode=False)


def test_a_malformed_digest_is_refused(toy):
    with pytest.raises(RecipeError, match=r"`start\.generator\.sha256`"):
        toy.preset("plain").recipe().but({"start.generator": {"source": "a", "sha256": "12"}})
