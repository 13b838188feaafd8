"""Model folders: saving and loading, and folders from untrusted sources."""

import json
import math
import os
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

import gan_core
import gan_core.models.hub
from gan_core import api, draws
from gan_core.api import Toolkit
from gan_core.errors import CheckpointError, GanError, InputError
from gan_core.models.card import model_card, parameter_counts, shareable
from gan_core.models.checkpoint import read_checkpoint, read_published, sha256, write_checkpoint
from gan_core.models.folder import CONFIG, WEIGHTS, read_config, read_weights, save_model
from gan_core.models.pretrained import Pretrained, downloaded
from gan_core.play.game import Game
from gan_core.play.player import Phase, Player
from gan_core.play.preset import on_meta
from gan_core.play.regularizers import Replay
from gan_core.play.two_player import TwoPlayerGame

NOBODY = 2**22 + 1
"""A process id that no process has."""


class Counter(nn.Module):
    """A network with state other than tensors."""

    latent_dim = 2

    def __init__(self):
        super().__init__()
        self.layer, self.count = nn.Linear(2, 2), 0

    def forward(self, z):
        return self.layer(z)

    def get_extra_state(self):
        return {"count": self.count}

    def set_extra_state(self, state):
        self.count = state["count"] + 0


class Alone(Game):
    """A game that is built by hand."""

    def __init__(self):
        super().__init__()
        self.generator = Counter()

    def players(self):
        yield Player("generator", (self.generator,), lambda batch: {"loss": self.generator.layer.weight.sum()})


def config(folder, **changes):
    """Changes keys of a model's config; `recipe__x__y` is the key `y` of `x` of `recipe`."""
    file = folder / CONFIG
    fields = json.loads(file.read_text())
    for key, value in changes.items():
        *outer, last = key.split("__")
        inner = fields
        for name in outer:
            inner = inner[name]
        inner[last] = value
    file.write_text(json.dumps(fields))


def refusal(folder, load=None):
    with pytest.raises(CheckpointError) as error:
        (load or api.load)(folder)
    words = str(error.value)
    assert "\n" not in words
    return words.replace(str(folder), "M")


# --- saving and loading


def test_a_saved_game_is_loaded_as_it_was(toy, tmp_path):
    game = Toolkit(toy).create("plain", width=5, num_classes=3)
    folder = game.save_pretrained(tmp_path / "model")
    for again in (
        Toolkit(toy).load(folder),
        api.load(folder),
        Game.from_pretrained(folder),
        TwoPlayerGame.from_pretrained(folder),
    ):
        assert again.state_dict().keys() == game.state_dict().keys()
        assert all(torch.equal(again.state_dict()[key], value) for key, value in game.state_dict().items())
        assert again.recipe == game.recipe
        assert torch.equal(again.generate(5, seed=0), game.generate(5, seed=0))


def test_the_folder_has_the_hugging_face_layout(model):
    assert sorted(path.name for path in model.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    fields = json.loads((model / CONFIG).read_text())
    assert (fields["library_name"], fields["library_version"]) == ("gan-core", gan_core.__version__)
    assert fields["recipe"]["system"] == "plain"
    assert load_file(model / WEIGHTS)["generator.hidden.weight"].shape == (8, 4)


def test_the_card_has_usage_and_parameter_counts(model):
    card = (model / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: gan-core\ntags:\n- gan\n---")
    for part in ("# plain (small)", "import gan_toy", "| generator | 58 |", "| discriminator | 33 |", "system: plain"):
        assert part in card


def test_the_card_names_classes_by_index_and_the_versions(toy):
    game = Toolkit(toy).create("plain", num_classes=3)
    game.recipe = game.recipe.but({"data.classes": ["apple", "cherry", "tomato"]})
    card = model_card(game)
    assert "\nClasses: 0 = apple, 1 = cherry, 2 = tomato\n" in card
    for line in (f"- gan-core {gan_core.__version__}", f"- PyTorch {torch.__version__}", "- Python 3."):
        assert f"\n{line}" in card.partition("## Framework versions\n")[2]


@pytest.mark.parametrize(
    ("source", "start", "shown"),
    [
        ("digits", "runs/a:generator", ("digits", "runs/a:generator")),
        ("/srv/alice/fruits", "/srv/alice/runs/a:generator", ("fruits", "a:generator")),
        ("~/fruits.zip", "plain/generator:/data/net.pt", ("fruits.zip", "plain/generator:net.pt")),
        ({"source": "/a/b", "target": "c/d"}, "someone/points", ({"source": "b", "target": "c/d"}, "someone/points")),
    ],
)
def test_absolute_paths_are_not_in_the_card(toy, source, start, shown):
    game = Toolkit(toy).create("plain")
    game.recipe = game.recipe.but({"data.source": source, "start": {"generator": {"source": start}}})
    other = shareable(game.recipe)
    assert (other.data.source, other.start["generator"].source) == shown
    assert "alice" not in model_card(game)
    changed = {"data": game.recipe.data, "start": game.recipe.start}
    assert other.model_copy(update=changed) == game.recipe  # nothing else differs


def test_no_setting_in_the_card_is_an_absolute_path(toy):
    game = Toolkit(toy).create("plain")
    game.recipe = game.recipe.model_copy(update={"network": {**game.recipe.network, "encoder": ["/srv/alice/clip"]}})
    card = model_card(game)
    assert "- clip\n" in card
    assert "alice" not in card


def test_a_model_folder_names_no_folder_of_the_machine(toy, tmp_path):
    game = Toolkit(toy).create("plain")
    game.recipe = game.recipe.but({"data.source": "/srv/alice/fruits"})
    saved = game.save_pretrained(tmp_path / "model")
    assert "alice" not in (saved / "config.json").read_text()
    assert Toolkit(toy).load(saved).recipe.data.source == "fruits"
    assert game.recipe.data.source == "/srv/alice/fruits"


def test_the_old_model_is_found_where_a_killed_process_has_set_it_aside(toy, model):
    names, aside = sorted(path.name for path in model.iterdir()), model.with_name(f".model.{NOBODY}.old")
    model.rename(aside)
    before = Toolkit(toy).load(model)
    assert Toolkit(toy).create("plain").restore(model).generate(2, seed=0).equal(before.generate(2, seed=0))
    assert aside.is_dir()  # reading changes nothing
    model.with_name(f".model.{NOBODY}").mkdir()
    other = model.with_name(f".other.{NOBODY}.old")
    other.mkdir()
    before.save_pretrained(model)
    assert sorted(path.name for path in model.iterdir()) == names
    assert sorted(path.name for path in model.parent.iterdir()) == [other.name, "model"]


def test_a_model_that_another_process_is_replacing_is_left_to_it(toy, model):
    written = model.with_name(f".model.{os.getppid()}")
    written.mkdir()
    Toolkit(toy).load(model).save_pretrained(model)
    assert written.is_dir()


def test_a_model_is_saved_through_a_link(toy, model, tmp_path):
    (tmp_path / "link").symlink_to(model)
    game = Toolkit(toy).create("plain")
    game.save_pretrained(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert Toolkit(toy).load(model).generate(2, seed=0).equal(game.eval().generate(2, seed=0))


def test_tensors_on_a_full_disk_are_one_line(tmp_path):
    code = (
        "import resource, signal, sys; from gan_core.errors import GanError, writing\n"
        "from gan_core.models.checkpoint import write_tensors; from pathlib import Path; import torch\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    with writing('x'):\n        write_tensors(Path(sys.argv[1]), {'a': torch.zeros(1 << 16)})\n"
        "except GanError as error:\n    print(error, error.exit_status)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], capture_output=True, text=True, check=False)
    assert done.stdout == "x: cannot be written (File too large); free some space and try again 1\n", done.stderr


def test_the_card_of_a_partial_model_lists_its_networks_only(toy, tmp_path):
    save_model(Toolkit(toy).create("plain"), tmp_path / "part", networks=["generator"])
    card = (tmp_path / "part" / "README.md").read_text()
    assert "| generator | 58 |" in card
    assert "| discriminator |" not in card


def test_the_usage_in_the_card_is_the_games_example(toy, monkeypatch):
    game = Toolkit(toy).create("plain")
    assert 'game = gan_toy.load("path/or/repository")\nsamples = game.generate(16, seed=0)\n' in model_card(game)
    monkeypatch.setattr(TwoPlayerGame, "example", "audio = game.vocode(mel)")
    assert 'game = gan_toy.load("path/or/repository")\naudio = game.vocode(mel)\n```' in model_card(game)


def test_parameters_are_counted_by_network(toy):
    assert parameter_counts(Toolkit(toy).create("plain")) == {
        "generator": 4 * 8 + 8 + 8 * 2 + 2,
        "discriminator": 2 * 8 + 8 + 8 + 1,
    }


def test_state_other_than_tensors_is_kept(tmp_path):
    game = Alone()
    game.generator.count = 7
    game.save_pretrained(tmp_path / "model")
    again = Alone().restore(tmp_path / "model")
    assert again.generator.count == 7
    assert torch.equal(again.generator.layer.weight, game.generator.layer.weight)


def test_a_game_built_by_hand_cannot_be_built_from_its_folder(toy, tmp_path):
    folder = Alone().save_pretrained(tmp_path / "model")
    assert refusal(folder) == "M: its game was built without a recipe; build it again, then call `game.restore(path)`"


def test_another_kind_of_game_is_refused(toy, model):
    with pytest.raises(CheckpointError, match=r": contains a TwoPlayerGame, not a Alone$"):
        Alone.from_pretrained(model)


def test_saving_again_replaces_only_the_model(toy, model):
    game = Toolkit(toy).create("plain", width=3)
    game.save_pretrained(model)
    assert Toolkit(toy).load(model).generator.hidden.out_features == 3
    (model.parent / "other").mkdir()
    (model.parent / "other" / "x").touch()
    (model.parent / "file").touch()
    for name in ("other", "file"):
        with pytest.raises(InputError) as error:
            game.save_pretrained(model.parent / name)
        assert str(error.value) == f"{model.parent / name}: exists and is not a model folder; choose another"
    with pytest.raises(InputError, match=r"cannot be written \(.*\); choose another place$"):
        game.save_pretrained(model.parent / "file" / "model")
    assert sorted(path.name for path in model.parent.iterdir()) == ["file", "model", "other"]


def test_a_model_can_be_saved_in_the_current_folder(toy, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Toolkit(toy).create("plain").save_pretrained(".")
    assert (tmp_path / "here" / CONFIG).is_file()


# --- folders that are not models


def test_folders_that_are_not_models_are_refused_with_the_reason(toy, tmp_path):
    (tmp_path / "file").touch()
    neither = "neither a run (it has no recipe.yaml) nor a model folder (it has no config.json)"
    assert refusal(tmp_path / "none") == "M: no such folder"
    assert refusal(tmp_path) == f"M: {neither}"
    assert refusal(tmp_path / "file") == f"M: {neither}"
    assert refusal(tmp_path, Alone().restore) == f"M: {neither}"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        b"\x89PNG\xff\x00",
        b"[]",
        b"3",
        b"{}",
        b'{"recipe": 3}',
        b'{"recipe": []}',
        b"[" * 100_000,
        b'{"recipe": null, "networks": 3}',
        b'{"recipe": null, "plain_state": []}',
    ],
)
def test_a_damaged_config_is_refused(toy, model, content):
    (model / CONFIG).write_bytes(content)
    assert refusal(model).startswith("M/config.json: is not a model's config (")


def test_a_huge_config_is_not_read(toy, model):
    (model / CONFIG).write_bytes(b" " * 1_000_001)
    assert refusal(model) == "M/config.json: larger than 1,000,000 bytes, the maximum for a config"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe__domain": "nope"}, "the domain `nope` is not installed: pip install gan-nope"),
        (
            {"recipe__system": "../../etc"},
            "M: cannot be built from its recipe: unknown system `../../etc`; known: critic, plain",
        ),
        (
            {"recipe__preset": "tiny"},
            "M: cannot be built from its recipe: unknown preset of plain `tiny`; known: paper, small",
        ),
        ({"recipe__system": 3}, "M: cannot be built from its recipe: `system` is 3; expected text"),
        (
            {"recipe__evil": 3},
            "M: cannot be built from its recipe: unknown setting `evil`; "
            "settings of the networks are written `network.evil`",
        ),
        (
            {"recipe__network__evil": "__import__('os')"},
            "M: cannot be built from its recipe: unknown setting `network.evil`; "
            "known: network.latent_dim, network.num_classes, network.shape, network.slope, network.width",
        ),
        (
            {"recipe__network__width": "8; import os"},
            "M: cannot be built from its recipe: `network.width` is '8; import os'; expected a whole number",
        ),
        (
            {"recipe__network__width": 10**12},
            "M: cannot be built from its recipe: `network.width` is 1000000000000; "
            "expected less than or equal to 65536",
        ),
        (
            {"recipe__network__generator": {"forward": 3}},
            "M: cannot be built from its recipe: unknown setting "
            "`network.generator.forward`; known: network.generator.latent_dim, network.generator.num_classes, "
            "network.generator.shape, network.generator.slope, network.generator.width",
        ),
        (
            {"recipe__game": {"__class__": "x"}},
            "M: cannot be built from its recipe: unknown setting `game.__class__`; there are none",
        ),
        (
            {"recipe__objective": "eval"},
            "M: cannot be built from its recipe: unknown objective `eval`; known: "
            "energy, hinge, least_squares, minimax, non_saturating, pearson, relativistic, relativistic_average, "
            "wasserstein",
        ),
        (
            {"recipe__regularizers": {"gradient_penalty": {"penalty": 1}}},
            "M: cannot be built from its recipe: "
            "unknown setting `regularizers.gradient_penalty.penalty`; known: regularizers.gradient_penalty.interval, "
            "regularizers.gradient_penalty.one_sided, regularizers.gradient_penalty.weight",
        ),
        (
            {"recipe__players": {"nobody": {"turns": 1}}},
            "M: cannot be built from its recipe: unknown player of plain `nobody`; known: discriminator, generator",
        ),
    ],
)
def test_malicious_recipes_are_refused(toy, model, changes, words):
    config(model, **changes)
    with pytest.raises(InputError) as error:
        api.load(model)
    assert str(error.value).replace(str(model), "M") == words


def test_a_model_of_another_domain_is_refused(toy, model, monkeypatch):
    from gan_core.domain import Domain

    with pytest.raises(CheckpointError) as error:
        Toolkit(Domain(name="image", title="GANs for images", package="gan_image")).load(model)
    assert str(error.value) == f"{model}: is a system of gan-toy (plain), not of gan-image"


# --- weights


def test_weights_of_another_size_are_refused_before_memory_is_allocated(toy, model, monkeypatch):
    config(model, recipe__network__width=60_000, recipe__network__latent_dim=60_000)  # 14 GB
    built = []
    monkeypatch.setattr(
        torch.nn.init, "kaiming_uniform_", lambda tensor, **_: built.append(tensor.device.type) or tensor
    )
    assert refusal(model) == (
        "M: `generator.hidden.weight` has shape [8, 4], but [60000, 60000] in the game of its recipe; "
        "the model is damaged or belongs to another system"
    )
    assert set(built) == {"meta"}


def test_a_missing_or_foreign_tensor_is_named(toy, model):
    tensors = load_file(model / WEIGHTS)
    save_file(
        {key: value for key, value in tensors.items() if key != "discriminator.network.judge.bias"}, model / WEIGHTS
    )
    assert refusal(model) == "M: has no `discriminator.network.judge.bias`; it is damaged or belongs to another system"
    save_file(tensors | {"generator.extra": torch.zeros(2)}, model / WEIGHTS)
    assert "generator.extra" in refusal(model)


@pytest.mark.parametrize("content", [b"", b"text", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{}      "])
def test_weights_that_are_not_safetensors_are_refused(toy, model, content):
    (model / WEIGHTS).write_bytes(content)
    words = refusal(model)
    assert words.startswith(("M/model.safetensors: cannot be read as safetensors (", "M: has no `generator."))


def test_missing_weights_are_named(toy, model):
    (model / WEIGHTS).unlink()
    assert refusal(model).startswith("M/model.safetensors: cannot be read as safetensors (")


def test_another_systems_weights_are_refused(toy, model, tmp_path):
    other = Toolkit(toy).create("critic").save_pretrained(tmp_path / "other")
    shutil.copy(other / WEIGHTS, model / WEIGHTS)
    assert refusal(model) == (
        "M: `generator.hidden.weight` has shape [16, 4], but [8, 4] in the game of its recipe; "
        "the model is damaged or belongs to another system"
    )
    assert "does not fit TwoPlayerGame" in refusal(other, Toolkit(toy).create("plain").restore)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"generator._extra_state": 3}, "its state does not fit Alone ('int' object is not subscriptable)"),
        ({"generator._extra_state": {}}, "its state does not fit Alone ('count')"),
        ({"generator._extra_state": {"count": "x"}}, "its state does not fit Alone (can only concatenate str (not "),
        ({"other": 1}, "does not fit Alone: Error(s) in loading state_dict for Alone: Missing key(s) in state_dict: "),
    ],
)
def test_plain_state_of_another_game_is_refused(tmp_path, state, reason):
    folder = Alone().save_pretrained(tmp_path / "model")
    config(folder, plain_state=state)
    assert refusal(folder, Alone().restore).startswith(f"M: {reason}")


# --- partial models


def test_restoring_a_partial_model_leaves_other_networks_unchanged(toy, tmp_path):
    game, other = Toolkit(toy).create("plain"), Toolkit(toy).create("plain")
    save_model(game, tmp_path / "part", networks=["generator"])
    kept = other.discriminator.network.judge.weight.clone()
    other.restore(tmp_path / "part")
    assert torch.equal(other.generator.out.weight, game.generator.out.weight)
    assert torch.equal(other.discriminator.network.judge.weight, kept)
    assert read_config(tmp_path / "part").networks == ["generator"]
    assert_close(Toolkit(toy).load(tmp_path / "part").generate(3, seed=0), game.generate(3, seed=0))


def test_a_partial_model_is_loaded_moved_and_saved_without_the_absent_networks(toy, tmp_path):
    game = Toolkit(toy).create("plain")
    save_model(game, tmp_path / "part", networks=["generator"])
    config(tmp_path / "part", recipe__network__discriminator={"width": 65_536, "shape": [65_536]})  # 16 GiB
    loaded = Toolkit(toy).load(tmp_path / "part").to("cpu").double()
    assert loaded.absent == ("discriminator",)
    assert all(parameter.is_meta for parameter in loaded.discriminator.parameters())
    assert_close(loaded.float().generate(3, seed=0), game.generate(3, seed=0))
    again = loaded.save_pretrained(tmp_path / "again")
    assert load_file(again / WEIGHTS).keys() == load_file(tmp_path / "part" / WEIGHTS).keys()
    assert read_config(again).networks == ["generator"]


def test_using_an_absent_network_is_refused_with_the_reason(toy, tmp_path):
    save_model(Toolkit(toy).create("plain"), tmp_path / "part", networks=["discriminator"])
    game = Toolkit(toy).load(tmp_path / "part")
    words = "this model has no weights for the network `generator`; load a model that has them"
    assert refusal(tmp_path / "part", lambda _: game.generator(torch.zeros(1, 4))) == words
    assert refusal(tmp_path / "part", lambda _: game.generate(2)) == words
    with pytest.raises(
        InputError, match="the model has no weights for `generator`; create a new game, and start its other"
    ):
        Toolkit(toy).train(game, data="cloud", out=tmp_path / "run", shown=False)
    assert not (tmp_path / "run").exists()


# --- phases, files and helpers


class Growing(Game):
    """A game whose network grows in the second phase."""

    def __init__(self):
        super().__init__()
        self.generator = nn.ModuleList([nn.Linear(2, 2)])

    def phases(self):
        return [Phase("small", share=1), Phase("large", share=1)]

    def enter(self, phase):
        more = [nn.Linear(2, 2)] if phase.name == "large" else []
        self.generator = nn.ModuleList([self.generator[0], *more])

    def players(self):
        yield Player("generator", (self.generator,), lambda batch: {"loss": self.sample(4).square().mean()})

    def sample(self, count):
        x = draws.normal(count, 2, like=self.generator[0].weight)
        for layer in self.generator:
            x = layer(x)
        return self.progress * x


@pytest.mark.parametrize("steps", [5, 6])
def test_a_game_is_loaded_in_the_phase_in_which_its_training_ended(tmp_path, steps):
    game = Growing()
    run = gan_core.train(
        game,
        data={"points": torch.zeros(8, 2)},
        out=tmp_path / "run",
        shown=False,
        steps=steps,
        device="cpu",
        batch_size=4,
        changes={"train.sample_every": 1},
    )
    samples = game.generate(5, seed=0)
    assert (game.phase.name, game.phase_number, game.progress) == ("large", 1, 1.0)
    for folder in (run.path, run.model):
        loaded = Growing().restore(folder)
        assert (loaded.phase_number, loaded.progress) == (1, 1.0)
        assert torch.equal(loaded.generate(5, seed=0), samples)


def test_a_model_keeps_its_progress_within_a_phase(tmp_path):
    game = Growing()
    game.enter_phase(0, 0.25)
    folder = game.save_pretrained(tmp_path / "model")
    assert torch.equal(Growing().restore(folder).generate(5, seed=0), game.generate(5, seed=0))
    config(folder, phase__number=2)
    assert refusal(folder, Growing().restore) == (
        "M: does not belong to this game (Growing has no phase 2; expected 0 to 1)"
    )
    for progress in (1.5, math.nan):
        config(folder, phase__progress=progress)
        assert "is not a model's config (`phase`: `progress`: Input" in refusal(folder, Growing().restore)


class Wordy(Alone):
    """A game that saves a file of words."""

    def __init__(self, words=()):
        super().__init__()
        self.words = list(words)

    def save_files(self, folder):
        (folder / "tokens").mkdir()
        (folder / "tokens" / "words.txt").write_text("\n".join(self.words))

    def load_files(self, folder):
        self.words = (folder / "tokens" / "words.txt").read_text().split("\n")


def test_a_games_own_files_are_kept_in_models_and_checkpoints(tmp_path):
    words = [f"word-{number}" for number in range(200_000)]  # 2.3 MB
    game = Wordy(words)
    folder = game.save_pretrained(tmp_path / "model")
    assert Wordy().restore(folder).words == words
    run = gan_core.train(
        Showing(words),
        data={"points": torch.zeros(8, 2)},
        out=tmp_path / "run",
        shown=False,
        steps=2,
        device="cpu",
        batch_size=4,
    )
    assert Wordy().restore(run.path).words == words
    resumed = Showing()
    gan_core.resume(run.path, game=resumed, data={"points": torch.zeros(8, 2)}, steps=3, shown=False)
    assert resumed.words == words


class Showing(Wordy):
    def preview(self, batch):
        return {"weight": self.generator.layer.weight.detach()}


def test_a_checkpoint_with_another_state_is_refused(tmp_path):
    run = gan_core.train(
        Showing(["a"]),
        data={"points": torch.zeros(8, 2)},
        out=tmp_path / "run",
        shown=False,
        steps=1,
        device="cpu",
        batch_size=4,
    )
    shutil.rmtree(run.model)
    checkpoint = run.checkpoints()[-1]
    files, state = read_checkpoint(checkpoint)
    for change in ({"pretrained": [1]}, {"game": [1]}, {"phase": "last"}, {"progress": math.nan}):
        write_checkpoint(checkpoint, files, state | change)
        with pytest.raises(CheckpointError, match=r"its state.json is not a training state"):
            read_weights(run.path)


def test_own_files_that_were_changed_or_are_outside_the_folder_are_refused(tmp_path):
    folder = Wordy(["a"]).save_pretrained(tmp_path / "model")
    (folder / "tokens" / "words.txt").write_text("b")
    assert refusal(folder, Wordy().restore) == (
        "M/tokens/words.txt: missing or damaged (its SHA-256 is not the one in config.json)"
    )
    for name in ("../words.txt", "/etc/passwd", "a\\..\\b", "c:d"):
        config(folder, files={name: "0" * 64})
        assert "which is outside its folder; it is damaged" in refusal(folder, Wordy().restore)


def test_own_files_whose_names_could_not_be_read_are_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(Wordy, "save_files", lambda self, folder: (folder / "words:en.txt").write_text("a"))
    with pytest.raises(GanError, match=r"`save_files` writes 'words:en.txt'; choose a file name without"):
        Wordy().save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_own_files_with_reserved_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Wordy, "save_files", lambda self, folder: (folder / CONFIG).write_text("{}"))
    with pytest.raises(GanError, match=r"Wordy.save_files writes config.json, a name that model folders reserve"):
        Wordy().save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_extra_state_too_large_to_be_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(Counter, "get_extra_state", lambda self: {"count": 0, "words": ["word"] * 200_000})
    with pytest.raises(GanError, match=r"the maximum is 1,000,000 bytes\. Write it to a file in `save_files`"):
        Alone().save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_training_state_is_not_in_the_model(tmp_path):
    game = TwoPlayerGame(Counter(), nn.Linear(2, 1), regularizers=[Replay(size=10)])
    game.secret = Counter()
    game.secret.of_training = True
    game.secret.count = 7
    run = gan_core.train(
        game, data={"points": torch.zeros(8, 2)}, out=tmp_path / "run", shown=False, steps=2, device="cpu", batch_size=4
    )
    held, text = load_file(run.model / WEIGHTS), (run.model / CONFIG).read_text()
    assert not any(name.startswith(("discriminator.memory", "secret")) for name in held)
    assert "secret" not in text
    kept, state = read_checkpoint(run.checkpoints()[-1])
    assert kept["game.safetensors"]["discriminator.memory.replay.pool"].numel()
    assert state["game"]["secret._extra_state"] == {"count": 7}
    other = TwoPlayerGame(Counter(), nn.Linear(2, 1), regularizers=[Replay(size=10)])
    other.secret = Counter()
    other.secret.of_training = True
    assert torch.equal(other.restore(run.model).generate(2, seed=0), game.generate(2, seed=0))
    assert other.secret.count == 0


def test_modules_marked_as_training_state_are_neither_saved_nor_required(toy, tmp_path):
    def lagging():
        game = Toolkit(toy).create("plain")
        game.lagging = nn.Linear(2, 2)
        game.lagging.of_training = True
        return game

    folder = lagging().save_pretrained(tmp_path / "model")
    with on_meta():
        blank = lagging()
    weights = read_weights(folder)
    assert not any("lagging" in name for name in weights.tensors)
    weights.check_sizes(blank)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.register_buffer("shift", torch.zeros(3))

    def forward(self, x):
        return self.layer(x) + self.shift


class Perceptual(Alone):
    """A game with a frozen network whose weights are read from a file."""

    def __init__(self, weights):
        super().__init__()
        self.encoder = Pretrained(Encoder, weights)

    def players(self):
        yield Player("generator", (self.generator,), self.loss)

    def loss(self, batch):
        return {"features": self.encoder(self.generator(batch["points"])).square().mean()}

    preview = Showing.preview


def test_a_frozen_helper_is_neither_trained_nor_saved(tmp_path):
    torch.manual_seed(0)
    torch.save(Encoder().state_dict(), tmp_path / "encoder.pt")
    game, before = Perceptual(tmp_path / "encoder.pt"), read_published(tmp_path / "encoder.pt")
    game.train()
    assert not game.encoder.network.training
    weight = game.generator.layer.weight.detach().clone()
    run = gan_core.train(
        game,
        data={"points": torch.ones(8, 2)},
        out=tmp_path / "run",
        shown=False,
        steps=2,
        device="cpu",
        batch_size=4,
        changes={"train.ema": 0.9},
    )
    assert not torch.equal(game.generator.layer.weight, weight)  # gradients pass through the helper
    assert torch.equal(game.encoder.network.layer.weight, before["layer.weight"])
    for file in run.path.rglob("*.safetensors"):
        assert not any("encoder" in name for name in load_file(file)), file
    loaded = Perceptual(tmp_path / "encoder.pt").restore(run.model)
    assert torch.equal(loaded.encoder.network.layer.weight, before["layer.weight"])
    assert read_config(run.model).pretrained == {"encoder": sha256(tmp_path / "encoder.pt")}
    gan_core.resume(
        run.path, game=Perceptual(tmp_path / "encoder.pt"), data={"points": torch.ones(8, 2)}, steps=3, shown=False
    )


def test_a_helper_with_other_weights_than_in_training_is_refused(tmp_path):
    for name in ("encoder.pt", "other.pt"):
        torch.save(Encoder().state_dict(), tmp_path / name)
    folder = Perceptual(tmp_path / "encoder.pt").save_pretrained(tmp_path / "model")
    words = refusal(folder, Perceptual(tmp_path / "other.pt").restore)
    assert words.startswith("M: the game was trained with weights of `encoder` whose SHA-256 is ")
    assert words.endswith("; use the original file")


def test_a_partial_model_needs_no_helpers_of_absent_networks(tmp_path):
    for name in ("encoder.pt", "other.pt"):
        torch.save(Encoder().state_dict(), tmp_path / name)
    folder = save_model(Perceptual(tmp_path / "encoder.pt"), tmp_path / "part", networks=["generator"])
    assert read_config(folder).pretrained == {}
    Perceptual(tmp_path / "other.pt").restore(folder)


def test_a_helper_is_built_without_weights_on_the_meta_device(tmp_path):
    with on_meta():
        game = Perceptual(tmp_path / "missing.pt")
    assert game.encoder.network.layer.weight.is_meta
    with pytest.raises(CheckpointError, match="there is no such weights file; put it there"):
        Perceptual(tmp_path / "missing.pt")


def test_the_weights_of_a_helper_are_verified(tmp_path):
    torch.save(Encoder().state_dict(), tmp_path / "encoder.pt")
    digest = sha256(tmp_path / "encoder.pt")
    assert Pretrained(Encoder, tmp_path / "encoder.pt", sha256=digest[:8]).sha256 == digest
    for weights, given, words in [
        (tmp_path / "encoder.pt", "0123", "but should begin with 0123; use the original file"),
        ("https://example.org/a.pt", "", "`sha256` is ''; give at least 8 of its hexadecimal digits"),
        ("https://example.org/a.pt", None, "`sha256` is required for weights from a URL"),
        ("http://example.org/a.pt", "01", "weights are only downloaded by https"),
    ]:
        with pytest.raises(CheckpointError, match=words):
            Pretrained(Encoder, weights, sha256=given)
    torch.save({"layer.weight": torch.zeros(4, 2)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="does not fit Encoder"):
        Pretrained(Encoder, tmp_path / "other.pt")
    named = Pretrained(Encoder, tmp_path / "encoder.pt", select=lambda t: {**t, "layer.bias": torch.ones(3)})
    assert named.network.layer.bias.sum() == 3


def test_a_constructor_that_loads_weights_can_be_built_without_memory():
    class Loads(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.load_state_dict(
                {"layer.weight": torch.zeros(2, 2, device="cpu"), "layer.bias": torch.zeros(2, device="cpu")}
            )

    with on_meta():
        assert Loads().layer.weight.is_meta


# --- runs and the hub


def test_a_run_is_loaded_from_its_latest_valid_checkpoint(toy, tmp_path):
    run = Toolkit(toy).train(
        "plain", data="cloud", out=tmp_path / "run", checkpoint_every=1, steps=2, ema=0.5, shown=False
    )
    averaged = Toolkit(toy).load(run.path)
    final = Toolkit(toy).load(run.model)
    assert torch.equal(averaged.generate(4, seed=0), final.generate(4, seed=0))
    newest = run.checkpoints()[-1]
    (newest / "state.json").write_text("{}")
    assert not torch.equal(Toolkit(toy).load(run.path).generate(4, seed=0), final.generate(4, seed=0))
    shutil.rmtree(run.checkpoints_folder)
    assert torch.equal(Toolkit(toy).load(run.path).generate(4, seed=0), final.generate(4, seed=0))
    shutil.rmtree(run.model)
    assert refusal(run.path) == "M: has no checkpoint and no model yet"


def test_a_run_with_only_damaged_checkpoints_is_refused_with_the_problem_of_the_latest(toy, tmp_path):
    run = Toolkit(toy).train("plain", data="cloud", out=tmp_path / "run", shown=False)
    shutil.rmtree(run.model)
    (run.checkpoints()[-1] / "game.safetensors").write_bytes(b"x")
    assert refusal(run.path).startswith("M/checkpoints/00000003/game.safetensors: missing or damaged")


def test_a_model_that_is_not_a_local_folder_is_downloaded_from_the_hub(toy, model, monkeypatch):
    asked = []

    def download(name, **options):
        asked.append((name, options["allow_patterns"]))
        return str(model)

    monkeypatch.setattr(gan_core.models.hub, "snapshot_download", download)
    (model / "tokens[1].json").write_text("{}")
    config(model, files={"tokens[1].json": sha256(model / "tokens[1].json")})
    assert Toolkit(toy).load("someone/points").recipe.system == "plain"
    whole = ["config.json", "model.safetensors", "README.md", "tokens[[]1].json"]
    assert asked == [("someone/points", ["config.json"]), ("someone/points", whole)]


@pytest.mark.parametrize("path", ["./none/here", "/none/here", "none", "a/b/c", "~/none"])
def test_paths_are_not_looked_up_on_the_hub(toy, monkeypatch, path):
    monkeypatch.setattr(gan_core.models.hub, "snapshot_download", None)
    with pytest.raises(CheckpointError, match=r"no such folder$"):
        api.load(path)


@pytest.mark.parametrize(
    "path",
    [
        "./typo",
        "../typo",
        "./runs/typo",
        "runs/first/typo",
        "runs\\typo",
        "~/typo",
        "/typo",
        "runs/typo",
        ".a/b",
        "a/b/",
    ],
)
def test_misspelt_local_paths_open_no_connection(monkeypatch, tmp_path, path):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    (tmp_path / "here" / "runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(CheckpointError, match=r"no such folder$"):
        api.load(path)


def test_a_misspelt_run_in_an_existing_folder_is_not_looked_up_on_the_hub(toy, monkeypatch, tmp_path):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gan_core.models.hub, "snapshot_download", None)
    with pytest.raises(CheckpointError, match=r"^runs/frist: no such folder$"):
        api.load("runs/frist")


def test_the_weights_have_the_permissions_of_other_files(toy, tmp_path):
    folder = Alone().save_pretrained(tmp_path / "model")
    modes = {path.name: path.stat().st_mode for path in folder.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]


def test_an_unreachable_hub_is_reported_in_one_line(toy, monkeypatch):
    def no_network(name, **options):
        raise OSError("Name or service not known\nand more")

    monkeypatch.setattr(gan_core.models.hub, "snapshot_download", no_network)
    with pytest.raises(CheckpointError) as error:
        api.load("someone/points")
    assert str(error.value) == (
        "someone/points: neither a local folder (there is no folder `someone` here) nor a model that can be downloaded "
        "from the hub (Name or service not known); for a local folder, write ./someone/points"
    )


def test_a_game_is_uploaded_as_its_model_folder(toy, monkeypatch):
    uploaded = {}

    class Hub:
        def __init__(self, token):
            uploaded["token"] = token

        def create_repo(self, name, *, private, exist_ok):
            uploaded["private"] = private
            return type("Address", (), {"repo_id": f"me/{name}"})

        def upload_folder(self, *, repo_id, folder_path):
            uploaded["files"] = sorted(path.name for path in folder_path.iterdir())
            recipe = read_config(folder_path).recipe
            uploaded["recipe"] = (recipe["system"], recipe["data"]["source"])
            return f"https://hub/{repo_id}"

    monkeypatch.setattr(gan_core.models.hub, "HfApi", Hub)
    game = Toolkit(toy).create("plain")
    game.recipe = game.recipe.but({"data.source": "/srv/alice/points"})
    assert game.push_to_hub("points", private=True, token="secret") == "https://hub/me/points"
    assert uploaded == {
        "token": "secret",
        "private": True,
        "files": ["README.md", "config.json", "model.safetensors"],
        "recipe": ("plain", "points"),
    }
    assert game.recipe.data.source == "/srv/alice/points"


def test_a_failed_upload_is_reported_in_one_line(toy, monkeypatch):
    class Hub:
        def __init__(self, token):
            pass

        def create_repo(self, name, *, private, exist_ok):
            raise ConnectionError("Name or service not known\nand more")

    monkeypatch.setattr(gan_core.models.hub, "HfApi", Hub)
    with pytest.raises(GanError) as error:
        Toolkit(toy).create("plain").push_to_hub("me/points")
    assert str(error.value) == "me/points: cannot be uploaded to the hub (Name or service not known)"


def test_downloads_with_equal_names_are_kept_apart(tmp_path, monkeypatch):
    """On the hub, many files have the name `model.safetensors`."""
    monkeypatch.setenv("GAN_DATA_HOME", str(tmp_path / "home"))
    kept = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "model.safetensors"
        file.write_text(name)
        kept.append(downloaded(file.as_uri(), sha256(file)[:8]))
    assert [file.read_text() for file in kept] == ["one", "two"]
    assert kept[0].name == f"model-{sha256(kept[0])[:8]}.safetensors"
