"""ProGAN (Karras et al. 2018, arXiv:1710.10196): growing, fading in, and the modules that each phase trains."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.testing import assert_close

import gan_image
from gan_core.errors import RecipeError
from gan_core.models.checkpoint import read_checkpoint, read_tensors, sha256
from gan_core.play.objectives import OBJECTIVES
from gan_core.play.regularizers import Replay
from gan_core.runs.run import Run
from gan_image.systems.progan import Discriminator, Generator, ProGAN, upsample, with_drift

SMALL = {"image_size": 16, "channels": 1, "widths": (8, 6, 4)}


def small(**settings: object) -> ProGAN:
    torch.manual_seed(0)
    return ProGAN(Generator(latent_dim=5, **SMALL), Discriminator(**SMALL), **settings)


def grown(game: ProGAN, size: int, progress: float) -> ProGAN:
    """Enters the phase of a size."""
    game.enter_phase([phase.spec["image_size"] for phase in game.phases()].index(size), progress)
    return game


def images(size: int) -> Tensor:
    return torch.randn(8, 1, size, size, generator=torch.Generator().manual_seed(size))


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as file:
        return file.size


Z = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [8, 16])
def test_the_generator_starts_a_phase_with_the_previous_images_and_has_faded_the_block_in_halfway(size: int) -> None:
    game = small()
    before = upsample(grown(game, size // 2, 1.0).generator(Z))
    start, quarter, half, end = (grown(game, size, progress).generator(Z) for progress in (0.0, 0.25, 0.5, 1.0))
    assert torch.equal(start, before)
    assert torch.equal(half, end)
    assert (start - end).abs().mean() > 0.1
    assert_close(quarter, (start + end) / 2)
    with torch.no_grad():
        game.generator.rgb[game.generator.stage - 1].bias.add_(1)  # the layer that is faded out
    assert torch.equal(game.generator(Z), end)


@pytest.mark.parametrize("size", [8, 16])
def test_the_discriminator_starts_a_phase_unchanged_and_has_faded_the_block_in_halfway(size: int) -> None:
    game, seen = small(), images(size)
    before = grown(game, size // 2, 1.0).discriminator(avg_pool2d(seen, 2))
    start, half, end = (grown(game, size, progress).discriminator(seen) for progress in (0.0, 0.5, 1.0))
    assert torch.equal(start, before)
    assert torch.equal(half, end)
    assert (start - end).abs().mean() > 0.01
    network = game.discriminator.network
    with torch.no_grad():
        network.rgb[network.stage - 1][0].bias.add_(1)
    assert torch.equal(game.discriminator(seen), end)


def test_real_images_are_faded_like_generated_ones() -> None:
    game, batch = small(), {"image": images(8)}
    half = upsample(avg_pool2d(batch["image"], 2))
    expected = {0.0: half, 0.25: (half + batch["image"]) / 2, 0.5: batch["image"], 1.0: batch["image"]}
    for progress, shown in expected.items():
        assert_close(grown(game, 8, progress).real(batch)[0], shown)
    first = {"image": images(4)}
    assert torch.equal(grown(game, 4, 0.0).real(first)[0], first["image"])


def test_players_train_the_modules_that_are_used_at_the_current_size() -> None:
    game = small()
    parameters = dict(game.named_parameters())
    names = {id(parameter): name for name, parameter in parameters.items()}
    owned = {}
    for size in (4, 8, 16):
        players = grown(game, size, 0.0).players()
        owned[size] = {names[id(parameter)] for player in players for parameter in player.parameters()}
    assert {name.split(".")[1] for name in owned[4] if name.startswith("generator.")} == {"blocks", "rgb"}
    assert owned[4] < owned[8]
    assert {name for name in owned[8] - owned[16] if ".rgb.0." not in name} == set()  # faded out before
    assert parameters.keys() - owned[16] == {name for name in parameters if ".rgb.0." in name}


def test_samples_have_the_full_size_in_every_phase() -> None:
    game = small()
    assert game.generator.stage == 0
    assert torch.equal(game.generate(3, seed=1), grown(game, 4, 0.0).generate(3, seed=1))
    for size in (4, 8, 16):
        samples = grown(game, size, 1.0).generate(3, seed=1)
        assert samples.shape == (3, 1, 16, 16)
        cells = samples.unfold(2, 16 // size, 16 // size).unfold(3, 16 // size, 16 // size)
        assert torch.equal(cells, cells[..., :1, :1].expand_as(cells))


def test_drift_is_the_mean_square_of_the_real_logits() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 7.0])
    plain = OBJECTIVES["wasserstein"]
    assert_close(with_drift(plain, 0.1).discriminator(real, fake), plain.discriminator(real, fake) + 0.1 * 5)
    batch = {"image": images(4)}
    terms = []
    for drift in (0.0, 0.1):
        torch.manual_seed(1)
        terms.append(small(drift=drift).discriminator_loss(batch)["adversarial"])
    assert_close(terms[1] - terms[0], 0.1 * small().discriminator(batch["image"]).square().mean())


def test_the_paper_preset_has_the_published_parameter_counts_and_numbers_of_images() -> None:
    with torch.device("meta"):
        game = gan_image.create("progan", preset="paper")
    networks = game.generator, game.discriminator.network
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == [23_086_795, 23_087_249]
    phases = list(game.phases())
    steps, shares = game.recipe.train.steps, sum(phase.share for phase in phases)
    shown = [steps * phase.share / shares * phase.batch_size for phase in phases]
    assert shown == pytest.approx([800_000] + 8 * [1_600_000], rel=1e-5)
    assert [phase.spec["image_size"] for phase in phases] == [4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert [phase.batch_size for phase in phases] == [16, 16, 16, 16, 16, 16, 14, 6, 3]


@pytest.mark.parametrize(("image_size", "counts"), [(128, (22_941_074, 22_941_313)), (256, (23_051_989, 23_052_353))])
def test_smaller_sizes_have_the_published_parameter_counts(image_size: int, counts: tuple[int, int]) -> None:
    with torch.device("meta"):
        networks = Generator(image_size=image_size), Discriminator(image_size=image_size)
    assert tuple(sum(p.numel() for p in network.parameters()) for network in networks) == counts


def test_a_training_grows_through_all_phases(tmp_path: Path) -> None:
    torch.manual_seed(0)
    game = gan_image.create("progan", **SMALL, latent_dim=5)
    before = {name: tensor.clone() for name, tensor in game.state_dict().items()}
    changes = {"train.log_every": 1, "train.sample_every": 2, "train.show": 4, "train.ema": None}
    run = gan_image.train(
        game, data="digits", out=tmp_path / "run", steps=10, batch_size=8, shown=False, changes=changes
    )
    phases = [line["phase"] for line in run.log() if "generator/adversarial" in line]
    assert phases == ["4 pixels"] * 2 + ["8 pixels"] * 4 + ["16 pixels"] * 4
    still = {name for name, tensor in game.state_dict().items() if torch.equal(tensor, before[name])}
    assert still == {"discriminator.network.judge.bias"}  # a relative objective does not depend on it
    pictures = [size_of(path) for path in run.samples_folder.glob("0*.png")]
    assert len(pictures) == 5
    assert len(set(pictures)) == 1
    assert_close(gan_image.load(run.path).generate(4, seed=0), game.generate(4, seed=0))


def test_a_training_is_resumed_during_a_fade(tmp_path: Path) -> None:
    changes = {"train.checkpoint_every": 3, "train.keep_checkpoints": 9, "train.sample_every": None}
    whole = gan_image.train(
        "progan",
        data="digits",
        out=tmp_path / "whole",
        steps=10,
        batch_size=8,
        shown=False,
        changes={f"network.{key}": value for key, value in SMALL.items()} | changes,
    )
    cut = Path(shutil.copytree(whole.path, tmp_path / "cut"))
    shutil.rmtree(cut / "model")
    for checkpoint in sorted((cut / "checkpoints").iterdir())[1:]:
        shutil.rmtree(checkpoint)
    gan_image.resume(cut, shown=False)
    weights, again = (read_tensors(path / "model" / "model.safetensors") for path in (whole.path, cut))
    assert weights.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())


def test_replayed_fakes_are_discarded_when_the_size_grows(tmp_path: Path) -> None:
    game = small(objective=OBJECTIVES["wasserstein"], regularizers=[Replay(size=8)])
    gan_image.train(game, data="digits", out=tmp_path / "run", steps=5, batch_size=8, shown=False)
    assert game.discriminator.memory["replay"].pool.shape == (8, 1, 16, 16)


def test_too_few_widths_or_batch_sizes_are_refused() -> None:
    with pytest.raises(RecipeError) as error:
        Generator(image_size=32, widths=(4, 4))
    said = "`widths` has 2 values, but from 4 to 32 pixels there are 4 sizes; give a width for each"
    assert str(error.value) == said
    with pytest.raises(RecipeError) as error:
        small(batch_sizes=(8, 8))
    assert str(error.value) == "`game.batch_sizes` has 2 values, but there are 3 phases; give one for each, or none"


# --- killed at the borders of phases


def test_a_run_that_started_from_another_and_is_killed_at_each_phase_boundary_continues_bit_for_bit(
    tmp_path: Path,
) -> None:
    program = [sys.executable, __file__, str(tmp_path)]
    ended = subprocess.run(program, timeout=300, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    whole, first = Run(tmp_path / "whole"), Run(tmp_path / "first")
    start = whole.recipe.start["generator"]
    assert (start.source, start.sha256) == (str(first.path), sha256(first.checkpoints()[-1] / "average.safetensors"))
    before, after = gan_image.load(first.path).generator, gan_image.load(tmp_path / "unmoved").generator
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    for step in BORDERS:
        killed = Run(tmp_path / f"killed-{step}")
        assert killed.recipe.start == whole.recipe.start
        files, others = (read_checkpoint(run.checkpoints()[-1])[0] for run in (killed, whole))
        for file, tensors in others.items():
            assert all(torch.equal(files[file][name], tensor) for name, tensor in tensors.items()), (step, file)
        assert figures(killed) == figures(whole)


def figures(run: Run) -> list[dict[str, object]]:
    """Returns the log without the speed."""
    return [{key: value for key, value in line.items() if key != "samples_per_second"} for line in run.log()]


BORDERS = (2, 3, 6, 7)
"""The first two steps of the phases of 8 and of 16 pixels, of 10 steps in all."""


def train(out: Path, **settings: object) -> None:
    torch.manual_seed(0)
    changes = {"train.log_every": 1, "train.checkpoint_every": 1, "train.ema": 0.9, "train.show": 4}
    changes |= {f"network.{name}": value for name, value in SMALL.items()}
    gan_image.train("progan", data="digits", out=out, batch_size=8, shown=False, changes=changes, **settings)


def program(folder: Path) -> None:
    """Trains a run, others that start from it, and some that are killed and resumed."""
    torch.set_num_threads(1)
    train(folder / "first", steps=4, seed=1)
    start = {"generator": folder / "first"}
    train(folder / "whole", steps=10, start=start)
    still = {"optimizer.name": "sgd", "optimizer.learning_rate": 1e-30, "train.ema": None}
    gan_image.train(
        "progan",
        data="digits",
        out=folder / "unmoved",
        batch_size=8,
        steps=3,
        shown=False,
        start=start,
        changes=still | {f"network.{name}": value for name, value in SMALL.items()},
    )
    loss = ProGAN.discriminator_loss

    def kill_at(step: int) -> None:
        def kill(self: ProGAN, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            if self.step == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return loss(self, batch)

        ProGAN.discriminator_loss = kill  # type: ignore[method-assign]

    for step in BORDERS:
        if (child := os.fork()) == 0:
            kill_at(step)
            train(folder / f"killed-{step}", steps=10, start=start)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        gan_image.resume(folder / f"killed-{step}", shown=False)


if __name__ == "__main__":
    program(Path(sys.argv[1]))
