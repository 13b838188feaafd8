"""Translators by pairs and without: their losses, what they learn, and runs that were killed.

This file is also a program, which trains and kills itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import l1_loss
from torch.testing import assert_close

import gan_image
from gan_core.data import ImageSpec, read, shuffled
from gan_core.errors import RecipeError
from gan_core.models.checkpoint import read_checkpoint
from gan_core.play.game import Game
from gan_core.play.objectives import least_squares, non_saturating
from gan_core.runs.run import Run

STEPS = 10
CHANGES = {
    "network.width": 4,
    "network.blocks": 1,
    "regularizers.replay.size": 12,
    "data.spec.enlarge": 1.25,
    "data.spec.crop": "random",
    "data.spec.flip": True,
    "train.checkpoint_every": 2,
    "train.log_every": 1,
    "train.ema": 0.9,
    "train.batch_size": 2,
    "train.device": "cpu",
    "train.show": 2,
}


def built(system: str, **changes: object) -> Game:
    torch.manual_seed(0)
    preset = gan_image.DOMAIN.preset(system)
    recipe = preset.recipe(domain="image", system=system, preset="small")
    small = {"network.width": 4, "network.source_channels": 1, "network.target_channels": 1, **changes}
    return preset.build(recipe.but(small)).eval()


def staged(game: Game) -> dict[str, Tensor]:
    torch.manual_seed(1)
    batch = {key: torch.rand(2, 1, 32, 32) * 2 - 1 for key in ("source", "target")}
    with torch.no_grad():
        return game.stage(batch)


# --- losses


def test_the_terms_of_pix2pix_equal_the_papers_equations() -> None:
    game = built("pix2pix")
    batch = staged(game)
    real, fake = (
        game.discriminator.network(torch.cat([batch["source"], batch[key]], dim=1)) for key in ("target", "fake")
    )
    assert fake.shape[1] == 1
    assert_close(
        game.generator_loss(batch),
        {
            "adversarial": non_saturating.generator(fake),
            "reconstruction": 100 * l1_loss(batch["fake"], batch["target"]),
        },
    )
    assert_close(game.discriminator_loss(batch)["adversarial"], non_saturating.discriminator(real, fake))


def test_the_terms_of_cyclegan_equal_the_papers_equations() -> None:
    game = built("cyclegan", **{"game.identity_weight": 5.0, "regularizers.replay": None})
    batch = staged(game)
    a, b, fake_a, fake_b = (batch[key] for key in ("source", "target", "fake_a", "fake_b"))
    judge_a, judge_b = game.discriminator_a.network, game.discriminator_b.network
    assert_close(
        game.generator_loss(batch),
        {
            "discriminator_a/adversarial": (judge_a(fake_a) - 1).square().mean(),
            "discriminator_b/adversarial": (judge_b(fake_b) - 1).square().mean(),
            "cycle": 10 * (l1_loss(game.b_to_a(fake_b), a) + l1_loss(game.a_to_b(fake_a), b)),
            "identity": 5 * (l1_loss(game.a_to_b(b), b) + l1_loss(game.b_to_a(a), a)),
        },
    )
    assert_close(
        game.discriminator_loss(batch),
        {
            "discriminator_a/adversarial": least_squares.discriminator(judge_a(a), judge_a(fake_a)),
            "discriminator_b/adversarial": least_squares.discriminator(judge_b(b), judge_b(fake_b)),
        },
    )


def test_the_identity_term_needs_domains_with_equal_channels() -> None:
    grey_to_colour = {"network.target_channels": 3}
    game = built("cyclegan", **grey_to_colour)
    batch = {"source": torch.zeros(1, 1, 16, 16), "target": torch.zeros(1, 3, 16, 16)}
    assert {name: list(made.shape) for name, made in game.apply(batch).items()} == {
        "to_target": [1, 3, 16, 16],
        "to_source": [1, 1, 16, 16],
    }
    assert set(game.apply({"source": batch["source"]})) == {"to_target"}
    with pytest.raises(RecipeError, match=r"^`game.identity_weight` needs domains with equal channels; set it to 0$"):
        built("cyclegan", **grey_to_colour, **{"game.identity_weight": 5.0})


@pytest.mark.parametrize(
    ("system", "data", "figures"),
    [
        ("pix2pix", "digit-outlines", {"held_out/recognised"}),
        ("cyclegan", "inverted-digits", {"held_out/discriminator_a/recognised", "held_out/discriminator_b/recognised"}),
    ],
)
def test_held_out_items_are_scored(tmp_path: Path, system: str, data: str, figures: set[str]) -> None:
    run = gan_image.train(system, data=data, out=tmp_path / "run", steps=1, changes={"data.held_out": 0.1}, shown=False)
    assert figures <= {key for line in run.log_file.read_text().splitlines() for key in json.loads(line)}


def test_one_discriminator_can_have_its_own_regularizers() -> None:
    game = built("cyclegan", **{"adversaries.discriminator_b.regularizers": {"r1": {"weight": 2.0}, "replay": None}})
    terms = game.discriminator_loss(staged(game))
    assert "discriminator_b/r1" in terms
    assert "discriminator_a/r1" not in terms
    assert {name: list(adversary.memory) for name, adversary in game.adversaries.items()} == {
        "discriminator_a": ["replay"],
        "discriminator_b": [],
    }


def test_sizes_that_the_networks_cannot_take_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for system, size, words in (
        ("pix2pix", [20, 36], "sides of 16 or more that are multiples of 16. Try [16, 32]."),
        ("cyclegan", 18, "sides of 8 or more that are multiples of 4. Try [16, 16]."),
    ):
        with pytest.raises(RecipeError) as error:
            gan_image.train(
                system,
                data="digit-outlines",
                out=tmp_path / "run",
                steps=1,
                shown=False,
                changes={"data.spec.image_size": size},
            )
        assert str(error.value).endswith(words)
    assert list(tmp_path.iterdir()) == []


def test_translations_are_compared_with_the_mean_target_and_the_source(tmp_path: Path) -> None:
    run = gan_image.train(
        "pix2pix",
        data="digit-outlines",
        out=tmp_path / "run",
        steps=1,
        shown=False,
        changes={"network.width": 4, "data.spec.image_size": 16, "train.device": "cpu"},
    )
    figures = gan_image.evaluate(run.path, data="digit-outlines", count=20)["metrics"]
    assert set(figures["similarity"]) == {"psnr", "ssim", "psnr_of_mean", "psnr_of_source", "ssim_of_source"}
    assert figures["similarity"]["psnr_of_source"] < 8 < figures["similarity"]["psnr_of_mean"] < 20
    assert set(figures["fid"]) == {"fid", "fid_of_source"}


def test_translators_without_pairs_are_measured_in_both_directions(tmp_path: Path) -> None:
    run = gan_image.train(
        "cyclegan",
        data="inverted-digits",
        out=tmp_path / "run",
        steps=1,
        shown=False,
        changes={"network.width": 4, "train.device": "cpu"},
    )
    document = gan_image.evaluate(run.path, data="inverted-digits", count=1000)
    figures = document["metrics"]["fid"]
    assert set(figures) == {"fid_to_target", "fid_of_source_to_target", "fid_to_source", "fid_of_target_to_source"}
    assert figures["fid_of_source_to_target"] == pytest.approx(
        figures["fid_of_target_to_source"]
    )  # both compare the same two sets
    assert "similarity" not in document["metrics"]
    protocol = document["protocols"][document["protocol"]["fid"]]
    assert protocol["samples"] == "899 to_target, 898 to_source"


# --- learning


@pytest.mark.slow
def test_pix2pix_fills_outlines_of_held_out_digits(tmp_path: Path) -> None:
    run = gan_image.train(
        "pix2pix",
        data="digit-outlines",
        out=tmp_path / "run",
        steps=250,
        shown=False,
        changes={
            "data.held_out": 0.2,
            "data.spec.image_size": 16,
            "network.discriminator.layers": 1,
            "train.sample_every": None,
        },
    )
    game = gan_image.load(run.path)
    untrained = gan_image.create("pix2pix", source_channels=1, target_channels=1).eval()
    everything = gan_image.open_data("digit-outlines").fit(game.spec.plain())
    order = shuffled(len(everything))
    held, trained = (next(read(everything, rows, len(rows))) for rows in (order[:359], order[359:]))
    with torch.no_grad():
        errors = [l1_loss(each.apply(held)["translated"], held["target"]) for each in (game, untrained)]
    mean = l1_loss(trained["target"].mean(dim=0).expand_as(held["target"]), held["target"])
    assert errors[0] < 0.5 * mean < errors[1]
    figures = gan_image.evaluate(run.path, data="digit-outlines", metrics=["fid", "similarity"])["metrics"]
    assert figures["fid"]["fid"] < 0.1 * figures["fid"]["fid_of_source"]
    assert figures["similarity"]["psnr"] > figures["similarity"]["psnr_of_mean"] + 3


@pytest.mark.slow
def test_cyclegan_learns_to_invert_digits_without_pairs(tmp_path: Path) -> None:
    run = gan_image.train(
        "cyclegan",
        data="inverted-digits",
        out=tmp_path / "run",
        steps=250,
        shown=False,
        changes={"train.sample_every": None},
    )
    game = gan_image.load(run.path)
    digits = next(read(gan_image.open_data("digits").fit(ImageSpec(image_size=16)), range(0, 400, 2), 200))["image"]
    with torch.no_grad():
        made = game.apply({"source": digits})["to_target"].flatten(1)
    nearest = torch.cdist(made, -digits.flatten(1)).argmin(dim=1)
    assert (nearest == torch.arange(200)).float().mean() > 0.5  # chance level: 0.005


# --- killed and resumed


def sets(folder: Path) -> dict[str, str]:
    """Writes two folders of images and returns their paths."""
    torch.manual_seed(0)
    from gan_image.media import write_items

    for side in ("a", "b"):
        if not (folder / side).exists():
            write_items(torch.rand(7, 1, 20, 20) * 2 - 1, folder / side)
    return {"source": str(folder / "a"), "target": str(folder / "b")}


def train(folder: Path, out: Path, **changes: object) -> Run:
    return gan_image.train(
        "cyclegan", data=sets(folder), out=out, steps=STEPS, shown=False, changes={**CHANGES, **changes}
    )


def assert_same(one: Path, other: Path) -> None:
    """Asserts that the last checkpoints and the logs of two runs are equal, bit for bit."""
    files, others = (read_checkpoint(Run(path).checkpoints()[-1])[0] for path in (one, other))
    assert files.keys() == others.keys()
    for name, tensors in files.items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, others[name][key]), f"{name}: {key}"
    lines = [
        [{key: value for key, value in line.items() if key != "samples_per_second"} for line in Run(path).log()]
        for path in (one, other)
    ]
    assert lines[0] == lines[1]


def test_a_killed_cyclegan_continues_bit_for_bit(tmp_path: Path) -> None:
    subprocess.run([sys.executable, __file__, tmp_path, "alone"], check=True, timeout=300)
    pool = read_checkpoint(Run(tmp_path / "whole").checkpoint(STEPS))[0]["game.safetensors"]
    assert len(pool["discriminator_a.memory.replay.pool"]) == 12  # full after six steps of two
    for step in (3, 9):
        assert_same(tmp_path / f"killed-{step}", tmp_path / "whole")
    assert_same(tmp_path / "workers", tmp_path / "whole")


def test_a_cyclegan_in_two_processes_continues_bit_for_bit(tmp_path: Path) -> None:
    program = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        __file__,
        tmp_path,
    ]
    for what, good in (("whole", True), ("kill", False), ("resume", True)):
        ended = subprocess.run([*program, what], timeout=300, capture_output=True, text=True, check=False)
        assert (ended.returncode == 0) == good, ended.stderr[-2000:]
    assert [int(path.name) for path in Run(tmp_path / "killed").checkpoints()][-1] == STEPS
    assert_same(tmp_path / "killed", tmp_path / "whole")


def killing(step: int) -> None:
    """Makes every CycleGAN of this process kill the process in a step."""
    from gan_image.systems.translation import CycleGAN

    discriminator_loss = CycleGAN.discriminator_loss

    def kill(self: CycleGAN, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return discriminator_loss(self, batch)

    CycleGAN.discriminator_loss = kill  # type: ignore[method-assign]


def program(folder: Path, what: str) -> None:
    torch.set_num_threads(1)
    if what == "whole":
        train(folder, folder / "whole")
    elif what == "kill":
        killing(5)
        train(folder, folder / "killed")
    elif what == "resume":
        from gan_core import resume

        resume(folder / "killed", shown=False)
    else:
        train(folder, folder / "whole")
        train(folder, folder / "workers", **{"data.workers": 2})
        from gan_core import resume

        for step in (3, 9):
            if (child := os.fork()) == 0:
                killing(step)
                train(folder, folder / f"killed-{step}")
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
            resume(folder / f"killed-{step}", shown=False)


if __name__ == "__main__":
    program(Path(sys.argv[1]), sys.argv[2])
