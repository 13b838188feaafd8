"""A generator for other runtimes computes what ours does."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm
from torch.testing import assert_close

import gan_core.export
from gan_core.blocks import ConditionalBatchNorm, SelfAttention, spectral_layers
from gan_core.errors import GanError, InputError, MissingDependency, RecipeError
from gan_core.export import export_onnx
from gan_core.game import Game, Player
from gan_core.two_player import TwoPlayerGame

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


def run(path, **inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (samples,) = session.run(["samples"], {name: np.asarray(value) for name, value in inputs.items()})
    return torch.from_numpy(samples)


def test_the_exported_generator_computes_the_same_for_any_number_of_samples(toy, tmp_path):
    game = toy.create("plain")
    assert export_onnx(game, tmp_path / "new" / "g.onnx") < 1e-6
    for count in (1, 3, 17):
        z = torch.randn(count, 4)
        assert_close(run(tmp_path / "new" / "g.onnx", z=z), game.generator(z).detach(), atol=1e-5, rtol=1e-4)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["g.onnx"]


def test_classes_are_an_input_of_their_own(toy, tmp_path):
    game = toy.create("plain", num_classes=3)
    export_onnx(game, tmp_path / "g.onnx")
    z, label = torch.randn(5, 4), torch.tensor([2, 0, 1, 2, 2])
    assert_close(run(tmp_path / "g.onnx", z=z, label=label), game.generator(z, label).detach(), atol=1e-5, rtol=1e-4)


def test_an_export_leaves_the_game_as_it_was(toy, tmp_path):
    game = toy.create("plain").train()
    export_onnx(game, tmp_path / "g.onnx")
    assert game.generator.training
    assert all(parameter.requires_grad for parameter in game.parameters())


class Sequences(nn.Module):
    """A generator of sequences from the blocks of gan-core."""

    latent_dim, num_classes = 4, 3

    def __init__(self):
        super().__init__()
        self.project = spectral_norm(nn.Linear(4, 32))
        self.norm, self.attention = ConditionalBatchNorm(8, 3, ndim=1), SelfAttention(8, ndim=1)
        nn.init.ones_(self.attention.gamma)

    def forward(self, z, label):
        return self.attention(self.norm(self.project(z).view(-1, 8, 4), label))


class Judge(nn.Linear):
    num_classes = 3


def test_the_blocks_of_a_generator_can_be_exported_amid_its_training(tmp_path):
    game = TwoPlayerGame(Sequences(), Judge(4, 1))
    z, label = torch.randn(5, 4), torch.tensor([2, 0, 1, 2, 2])
    game.generator(z, label).sum().backward()  # weights that were normalised for it have a gradient's history
    state = {name: tensor.clone() for name, tensor in game.state_dict().items()}
    export_onnx(game, tmp_path / "g.onnx")
    assert all(torch.equal(tensor, state[name]) for name, tensor in game.state_dict().items())
    assert len(list(spectral_layers(game.generator))) == 5
    expected = game.eval().generator(z, label).detach()
    assert_close(run(tmp_path / "g.onnx", z=z, label=label), expected, atol=1e-5, rtol=1e-4)


def test_an_existing_file_is_replaced(toy, tmp_path):
    (tmp_path / "g.onnx").write_text("old")
    export_onnx(toy.create("plain"), tmp_path / "g.onnx")
    assert run(tmp_path / "g.onnx", z=torch.zeros(1, 4)).shape == (1, 2)


def test_a_place_that_cannot_be_written_is_one_line(toy, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as error:
        export_onnx(toy.create("plain"), tmp_path / "file" / "g.onnx")
    assert str(error.value) == f"{tmp_path / 'file' / 'g.onnx'}: cannot be written (File exists); choose another place"


def test_an_export_that_differs_is_not_written(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(gan_core.export, "TOLERANCE", -1.0)
    with pytest.raises(GanError, match=r"g.onnx: differs from torch by .*; nothing was written$"):
        export_onnx(toy.create("plain"), tmp_path / "g.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(gan_core.export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(MissingDependency, match=r"^ONNX needs onnxscript: pip install 'gan-core\[onnx\]'$"):
        export_onnx(toy.create("plain"), tmp_path / "g.onnx")


def test_a_game_without_a_generator_of_latents_is_refused(tmp_path):
    class Other(Game):
        def __init__(self, **networks):
            super().__init__()
            for name, network in networks.items():
                setattr(self, name, network)

        def players(self):
            yield Player("other", (), lambda batch: {})

    with pytest.raises(InputError, match=r"^Other has no generator that takes a latent; only such can be exported$"):
        export_onnx(Other(translator=nn.Linear(2, 2)), tmp_path / "g.onnx")
    with pytest.raises(RecipeError, match=r"^Linear has no attribute `latent_dim`"):
        export_onnx(Other(generator=nn.Linear(2, 2)), tmp_path / "g.onnx")
    with pytest.raises(InputError, match=r"^the generator of Other is told input2 besides its latent; only one of"):
        export_onnx(Other(generator=nn.Bilinear(2, 2, 2)), tmp_path / "g.onnx")
    assert list(tmp_path.iterdir()) == []
