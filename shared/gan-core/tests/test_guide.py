"""The examples of the documentation's guide run, and do what the text says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs"
PAGES = re.findall(r"^(guide/\S+)$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
"""Pages of the guide, in order; later pages use what earlier ones define."""
ALONE = ("guide/write-a-system",)
"""Pages whose examples use nothing from earlier pages."""


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Names that the examples define, run in order in an empty folder."""
    names: dict[str, Any] = {"__name__": "guide"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("guide"))
        torch.manual_seed(0)
        for page in PAGES:
            known = {"__name__": "guide"} if page in ALONE else names
            text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
            for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
                exec(compile(block, f"{page}, block {number}", "exec"), known)
            names |= known
        names["folder"] = Path.cwd()
    return names


def log(guide: dict[str, Any], run: str) -> list[dict[str, Any]]:
    from gan_core.runs.run import Run

    return Run(guide["folder"] / "runs" / run).log()


def test_every_sketch_leaves_a_run_with_a_report(guide: dict[str, Any]) -> None:
    runs = sorted(path.parent.name for path in guide["folder"].glob("runs/*/report.html"))
    assert runs == sorted(
        [
            "attngan",
            "brief",
            "captioned",
            "cyclegan",
            "f-anogan",
            "infogan",
            "mine",
            "perceptual",
            "pix2pixhd",
            "points",
            "private",
            "progan",
            "second",
            "seqgan",
            "two-judges",
            "warm",
        ]
    )


def test_a_warm_up_of_an_epoch_comes_before_a_run_of_epochs(guide: dict[str, Any]) -> None:
    lines = log(guide, "warm")
    assert [line["step"] for line in lines if line["phase"] == "warm-up"] == [5, 10, 15]
    assert (lines[-1]["phase"], lines[-1]["step"]) == ("adversarial", 48)


def test_a_regime_ends_a_run_by_its_sentence(guide: dict[str, Any]) -> None:
    assert guide["brief"].ended == "20 batches have been read"
    assert log(guide, "brief")[-1]["regime/batches"] == 20


def test_the_ten_lines_learn_where_the_points_are(guide: dict[str, Any]) -> None:
    assert (guide["samples"].mean(dim=0) - 1).abs().max() < 0.5


def test_the_metric_of_the_guide_counts_samples_far_from_the_data(guide: dict[str, Any]) -> None:
    from gan_core.data import TensorDataset
    from gan_core.testing import measured

    far = torch.full((100, 2), 1.0)
    far[:25] += 10
    assert measured(guide["Outliers"], far, TensorDataset(guide["data"]), {}) == {"outliers": 0.25}


def test_two_discriminators_have_losses_of_their_own_and_the_run_continues(guide: dict[str, Any]) -> None:
    lines = log(guide, "two-judges")
    assert lines[-1]["step"] == 80
    losses = {
        name for name in lines[-1] if name.startswith("discriminator/") and not name.endswith(("_logits", "_sign"))
    }
    assert {"discriminator/first/r1", "discriminator/second/gradient_penalty"} <= losses
    assert not {"discriminator/first/gradient_penalty", "discriminator/second/r1"} & losses
    assert guide["points"].shape == (16, 2)


def test_cyclegan_moves_points_to_the_other_side_and_back(guide: dict[str, Any]) -> None:
    first, last = log(guide, "cyclegan")[0], log(guide, "cyclegan")[-1]
    assert last["generator/cycle"] < first["generator/cycle"]


def test_each_of_cyclegans_adversaries_has_its_own_regularizers_and_their_state(guide: dict[str, Any]) -> None:
    last, game = log(guide, "cyclegan")[-1], guide["cyclegan"]
    assert "discriminator/discriminator_b/r1" in last
    assert "discriminator/discriminator_a/r1" not in last
    assert game.discriminator_a.memory["replay"].pool.shape == (50, 2)


def test_progan_grows(guide: dict[str, Any]) -> None:
    lines = log(guide, "progan")
    assert lines[-1]["phase"] == "8 numbers"
    assert guide["trained"].stages == 3
    assert guide["of_last_phase"].shape == (2, 8)


def test_seqgan_learns_its_grammar_by_likelihood_and_keeps_it_under_the_policy(guide: dict[str, Any]) -> None:
    game = guide["SeqGAN"]().restore(guide["folder"] / "runs/seqgan")
    tokens = game.generate(200, seed=0)
    real = {tuple(row) for row in guide["sentences"].tolist()}
    share = sum(tuple(row) in real for row in tokens.tolist()) / 200
    assert share > 0.5  # 2 sentences of 4096: chance is 0.0005
    assert "policy/reward" in log(guide, "seqgan")[-1]
    assert "policy/policy" not in log(guide, "seqgan")[0]


def test_points_are_where_their_caption_says(guide: dict[str, Any]) -> None:
    game, left = guide["captioned_game"], guide["on_the_left"]
    right = game.generate(100, seed=0, caption="near right")
    assert (left < 0).float().mean() > 0.8  # the data: -2 and 2 on both axes
    assert (right > 0).float().mean() > 0.8
    assert (guide["ways"][0].mean() < 0) & (guide["ways"][1].mean() > 0)


def test_attngan_leaves_its_encoder_as_it_was(guide: dict[str, Any]) -> None:
    torch.manual_seed(3)
    encoder = guide["mlp"](6, 4)
    before = [parameter.clone() for parameter in encoder.parameters()]
    game = guide["AttnGAN"](encoder)
    generator = game.generators[0][0].weight.clone()
    guide["train"](game, data=guide["captioned"], out=guide["folder"] / "runs/frozen", steps=3, shown=False)
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True))
    assert not torch.equal(generator, game.generators[0][0].weight)


def test_f_anogans_encoder_learns_to_reconstruct(guide: dict[str, Any]) -> None:
    real = guide["data"]["points"][:200]
    game = guide["f_anogan"]
    with torch.no_grad():
        error = (game.generator(game.encoder(real)) - real).square().mean()
        mean = (game.generate(200, seed=0) - real).square().mean()
    assert error < mean


def test_pix2pixhds_enhancer_plays_in_the_second_phase_alone(guide: dict[str, Any]) -> None:
    game = guide["Pix2PixHD"]()
    assert [len(player.networks) for player in game.players()] == [1, 1]
    game.enter(game.phases()[1])
    assert [len(player.networks) for player in game.players()] == [2, 1]


def test_a_private_step_moves_no_further_than_its_clip_without_noise(guide: dict[str, Any]) -> None:
    class PlayerState:
        def __init__(self) -> None:
            self.parameters = [torch.nn.Parameter(torch.zeros(3))]

        def part(self, *_: Any) -> Any:
            return torch.enable_grad()

        def loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"steep": 100 * (batch["x"] * self.parameters[0]).sum()}

        def update(self) -> None:
            self.norm = self.parameters[0].grad.norm()

    state = PlayerState()
    guide["private_step"](state, [{"x": torch.eye(3)}], clip=1.0, noise=0.0)
    assert state.norm == pytest.approx(3**0.5 / 3)  # three gradients of length 1, at right angles, averaged


def test_a_derived_preset_keeps_what_it_does_not_change(guide: dict[str, Any]) -> None:
    recipe = guide["MINE_WGAN_GP"].recipe()
    assert recipe.objective == "wasserstein"
    assert recipe.players["discriminator"].turns == 5
    assert guide["MINE"].recipe().objective == "non_saturating"


def test_the_task_cleans_volumes_in_tiles_and_names_the_damaged_one(guide: dict[str, Any]) -> None:
    made = sorted(str(path) for path in guide["outcome"].files)
    assert made == ["cleaned/new/a.npy", "cleaned/new/b.npy", "cleaned/new/c.npy"]
    assert list(guide["outcome"].skipped) == ["scans/damaged.npy"]
    assert len(guide["part"].files) + len(guide["part"].skipped) == 2
    network, load = guide["network"], guide["np"].load
    with torch.no_grad():
        whole = network(torch.tensor(load(guide["folder"] / "scans/new/a.npy"))[None, None, :68])
    found = torch.tensor(load(guide["folder"] / "cleaned/new/a.npy"))
    assert found.shape == (70, 20, 20)
    torch.testing.assert_close(found[:50], whole[0, 0, :50], atol=1e-5, rtol=0)
