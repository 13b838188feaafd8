"""Networks for other runtimes compute what ours do."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm
from torch.testing import assert_close

import gan_core.models.export
from gan_core.api import Toolkit
from gan_core.errors import DataError, GanError, InputError, MissingDependency
from gan_core.models.export import Value, export_onnx
from gan_core.nn.blocks import ConditionalBatchNorm, SelfAttention
from gan_core.nn.spectral import singular_vectors
from gan_core.play.exported import BATCH, Axis, Exported, Input
from gan_core.play.game import Game
from gan_core.play.player import Player
from gan_core.play.two_player import TwoPlayerGame
from gan_core.testing.onnx import read_metadata, run_onnx

for library in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(library)


def test_an_exported_generator_computes_the_same_for_any_batch_size_and_describes_its_inputs(toy, tmp_path):
    game, path = Toolkit(toy).create("plain", num_classes=3), tmp_path / "new" / "g.onnx"
    game.recipe = game.recipe.but({"data.classes": ["cat", "dog", "eel"]})
    file = export_onnx(game, path)
    assert [path.name for path in path.parent.iterdir()] == ["g.onnx"]
    assert file.difference < 1e-6
    for count in (1, 3, 17):
        z, label = torch.randn(count, 4), torch.arange(count) % 3
        assert_close(run_onnx(path, z=z, label=label)[0], game.generator(z, label).detach(), atol=1e-5, rtol=1e-4)
    assert file.network == "generator"
    assert file.inputs == {
        "z": Value("float32", ("batch", 4), "standard normal"),
        "label": Value("int64", ("batch",), "class, from 0 to 2"),
    }
    assert file.outputs == {"samples": Value("float32", ("batch", 2), "as in the data")}
    assert read_metadata(path) == {
        "system": "plain",
        "network": "generator",
        "input.z": "float32 [batch, 4], standard normal",
        "input.label": "int64 [batch], class, from 0 to 2",
        "output.samples": "float32 [batch, 2], as in the data",
        "axis.batch": "any size",
        "classes": '["cat", "dog", "eel"]',
    }


def test_an_export_does_not_report_the_use_of_onnxruntime(toy, tmp_path):
    code = """if True:
        import os, sys
        from pathlib import Path
        from torch import nn
        from gan_core.models.export import export_onnx
        from gan_core.play.two_player import TwoPlayerGame

        class Generator(nn.Linear):
            latent_dim = 3

        assert "onnxruntime" not in sys.modules
        export_onnx(TwoPlayerGame(Generator(3, 2), nn.Linear(2, 1)), Path(sys.argv[1]))
        assert "onnxruntime" in sys.modules
        print(os.environ["ORT_DISABLE_TELEMETRY"])
    """
    home = tmp_path / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    command = [sys.executable, "-c", code, str(tmp_path / "g.onnx")]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, "1\n"), answer.stderr
    assert not (home / ".cache" / "Microsoft").exists()


def test_an_export_does_not_change_the_game(toy, tmp_path):
    game = Toolkit(toy).create("plain").train()
    export_onnx(game, tmp_path / "g.onnx")
    assert game.generator.training
    assert all(parameter.requires_grad for parameter in game.parameters())


class Sequences(nn.Module):
    """A generator of sequences, made of gan-core's blocks."""

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


def test_blocks_of_a_generator_can_be_exported_during_training(tmp_path):
    game = TwoPlayerGame(Sequences(), Judge(4, 1))
    z, label = torch.randn(5, 4), torch.tensor([2, 0, 1, 2, 2])
    game.generator(z, label).sum().backward()  # weights that were normalised for it have a gradient's history
    state = {name: tensor.clone() for name, tensor in game.state_dict().items()}
    export_onnx(game, tmp_path / "g.onnx")
    assert all(torch.equal(tensor, state[name]) for name, tensor in game.state_dict().items())
    assert len(list(singular_vectors(game.generator))) == 10
    expected = game.eval().generator(z, label).detach()
    assert_close(run_onnx(tmp_path / "g.onnx", z=z, label=label)[0], expected, atol=1e-5, rtol=1e-4)


def test_an_existing_file_is_replaced(toy, tmp_path):
    (tmp_path / "g.onnx").write_text("old")
    export_onnx(Toolkit(toy).create("plain"), tmp_path / "g.onnx")
    assert run_onnx(tmp_path / "g.onnx", z=torch.zeros(1, 4))[0].shape == (1, 2)


def test_an_output_that_cannot_be_written_is_reported_in_one_line(toy, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as error:
        export_onnx(Toolkit(toy).create("plain"), tmp_path / "file" / "g.onnx")
    assert str(error.value) == f"{tmp_path / 'file' / 'g.onnx'}: cannot be written (File exists); choose another place"


def test_an_export_that_differs_is_not_written(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(gan_core.models.export, "TOLERANCE", -1.0)
    with pytest.raises(GanError, match=r"g.onnx: differs from torch by .*; nothing was written$"):
        export_onnx(Toolkit(toy).create("plain"), tmp_path / "g.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(gan_core.models.export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(MissingDependency, match=r"^ONNX needs onnxscript: pip install onnxscript$"):
        export_onnx(Toolkit(toy).create("plain"), tmp_path / "g.onnx")


class Styles(nn.Module):
    """A style-based generator: normalized latents, a style for each layer, and a constant input."""

    latent_dim = 4

    def __init__(self):
        super().__init__()
        self.mapping, self.constant = nn.Linear(4, 4), nn.Parameter(torch.randn(1, 4, 4))
        self.scales, self.weight = nn.ModuleList(nn.Linear(4, 4) for _ in range(2)), nn.Parameter(torch.randn(4, 4, 3))

    def forward(self, z):
        z = z * z.square().mean(dim=1, keepdim=True).add(1e-8).rsqrt()
        styles = self.mapping(z).unsqueeze(1).repeat(1, len(self.scales), 1)
        x = self.constant.expand(len(z), -1, -1)
        for scale, style in zip(self.scales, styles.unbind(1), strict=True):
            s = scale(style).unsqueeze(2)
            demodulated = (self.weight * s.transpose(1, 2).unsqueeze(3)).square().sum(dim=(2, 3)).add(1e-8).rsqrt()
            x = nn.functional.conv1d(x * s, self.weight, padding=1) * demodulated.unsqueeze(2)
        return x


def test_a_generator_that_uses_its_batch_size_keeps_the_axis_dynamic(tmp_path):
    game = TwoPlayerGame(Styles(), nn.Linear(4, 1))
    file = export_onnx(game, tmp_path / "g.onnx")
    assert file.inputs["z"].shape == ("batch", 4)
    for count in (1, 2, 5):
        z = torch.randn(count, 4)
        assert_close(run_onnx(tmp_path / "g.onnx", z=z)[0], game.generator(z).detach(), atol=1e-5, rtol=1e-4)


class Broken(nn.Linear):
    """A generator that cannot be exported: for one batch size, with a data-dependent branch, or without tensors."""

    latent_dim = 4

    def __init__(self, kind):
        super().__init__(4, 4)
        self.kind = kind
        self.register_buffer("three", torch.randn(3, 4))

    def forward(self, z):
        if self.kind == "batch":
            return super().forward(z) + self.three
        if self.kind == "branch":
            return super().forward(z) if z.sum() > 0 else z
        return super().forward(z) * torch.nan


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("batch", r"`generator` of .* cannot be converted to ONNX \(it only works for the size 3 of `batch`\)"),
        ("branch", r"`generator` of .* cannot be converted to ONNX \(.*branching.*\)"),
        ("nan", r".*g.onnx: differs from torch by nan; nothing was written"),
    ],
)
def test_a_network_that_cannot_be_exported_is_reported_in_one_line_without_a_file(tmp_path, capfd, kind, message):
    with pytest.raises(GanError, match=f"^{message}$"):
        export_onnx(TwoPlayerGame(Broken(kind), nn.Linear(4, 1)), tmp_path / "g.onnx")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


class Halves(nn.Module):
    """Doubles images with even sides, and returns their means `[B]`."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 2, 2, stride=2)

    def forward(self, source):
        if source.shape[2] % 2 or source.shape[3] % 2:
            raise DataError("odd")
        return nn.functional.interpolate(self.down(source), scale_factor=4.0), source.mean(dim=(1, 2, 3))


class Several(Game):
    """A game that offers networks of images and of pairs of images."""

    def __init__(self, **networks):
        super().__init__()
        for name, network in networks.items():
            setattr(self, name, network)

    def players(self):
        yield Player("other", (), lambda batch: {})

    def exports(self):
        height, width = (Axis(name, multiple=2, least=4) for name in ("height", "width"))
        inputs = {"source": Input((BATCH, 1, height, width), "[-1, 1]")}
        outputs = {"images": "unbounded", "means": "[-1, 1]"}
        return {name: Exported(one, inputs, outputs, {"rate": 3}) for name, one in self.named_children()}


def test_axes_keep_their_names_through_a_network(tmp_path):
    game, path = Several(halves=Halves()), tmp_path / "g.onnx"
    file = export_onnx(game, path)
    assert file.inputs["source"].shape == ("batch", 1, "height", "width")
    assert {name: value.shape for name, value in file.outputs.items()} == {
        "images": ("batch", 2, "4*(height / 2)", "4*(width / 2)"),
        "means": ("batch",),
    }
    for shape in ((1, 1, 4, 4), (2, 1, 6, 10), (5, 1, 32, 8)):
        source = torch.randn(shape)
        for one, expected in zip(run_onnx(path, source=source), game.halves(source), strict=True):
            assert_close(one, expected.detach(), atol=1e-5, rtol=1e-4)
    assert read_metadata(path) | {"axis.height": "a multiple of 2, at least 4", "rate": "3"} == read_metadata(path)


def test_one_of_several_networks_is_chosen_by_name(tmp_path):
    game = Several(one=Halves(), two=Halves())
    with pytest.raises(
        InputError, match=r"^Several offers several networks for export; choose one: --network one or two$"
    ):
        export_onnx(game, tmp_path / "g.onnx")
    with pytest.raises(InputError, match=r"^`three` of Several cannot be exported; choose --network one or two$"):
        export_onnx(game, tmp_path / "g.onnx", "three")
    assert export_onnx(game, tmp_path / "g.onnx", "two").network == "two"


def test_a_network_without_weights_is_not_offered(tmp_path):
    game = Several(one=Halves(), two=Halves().to("meta"))
    assert export_onnx(game, tmp_path / "g.onnx").network == "one"
    with pytest.raises(InputError, match=r"^`two` of Several cannot be exported; choose --network one$"):
        export_onnx(game, tmp_path / "g.onnx", "two")


def test_a_game_that_offers_nothing_is_refused(toy, tmp_path):
    class Other(TwoPlayerGame):
        def exports(self):
            return {}

    class Pairs(nn.Bilinear):
        latent_dim = 2

    with pytest.raises(InputError, match=r"^Other offers no network for export; override `exports` in Other$"):
        export_onnx(Other(Styles(), nn.Linear(4, 1)), tmp_path / "g.onnx")
    message = r"^`generator` of TwoPlayerGame needs input2 besides z; override `exports`$"
    with pytest.raises(InputError, match=message):
        export_onnx(TwoPlayerGame(Pairs(2, 2, 2), nn.Linear(2, 1)), tmp_path / "g.onnx")
    assert list(tmp_path.iterdir()) == []
