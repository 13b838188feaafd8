"""The doctor finds what was broken on purpose, and says what to try."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import gan_core.doctor
from gan_core.api import Toolkit
from gan_core.data import Spec, hold_out
from gan_core.doctor import examine_installation, examine_run
from gan_core.errors import CheckpointError
from gan_core.play.two_player import TwoPlayerGame


@pytest.fixture
def run(toy, tmp_path: Path):
    return Toolkit(toy).train("plain", data="cloud", out=tmp_path / "run", log_every=1, checkpoint_every=1, shown=False)


def findings(run, good):
    return {check.name: check.finding for check in examine_run(run.path) if check.good is good}


def test_a_healthy_run_has_nothing_wrong(run):
    assert findings(run, good=False) == {}
    found = findings(run, good=True)
    assert found["recipe"] == "plain (small), 3 steps"
    assert found["checkpoints"] == "the newest, of step 3, is whole"
    assert found["log"].startswith("3 lines until step 3, ")
    assert found["collapse"] == "not checked: the run has 3 steps; at least 100 are needed"


def test_a_damaged_checkpoint_is_named_with_where_resume_goes_on(run):
    (run.checkpoints()[-1] / "game.safetensors").write_bytes(b"x")
    assert findings(run, good=False)["checkpoints"].endswith("; `resume` goes on from step 2")


def test_a_run_without_checkpoints_or_log_says_which_setting_makes_them(run):
    for checkpoint in run.checkpoints():
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    run.log_file.unlink()
    wrong = findings(run, good=False)
    assert wrong["checkpoints"] == "there is none yet; set `train.checkpoint_every`"
    assert wrong["log"] == "nothing was logged yet; set a smaller `train.log_every`"


def test_a_generator_that_has_collapsed_is_found(toy, tmp_path):
    game = Toolkit(toy).create("plain")
    for parameter in (game.generator.hidden.weight, game.generator.out.weight):
        parameter.data.zero_()
    game.generator.out.bias.data = torch.tensor([1.0, -1.0])
    changes = {"optimizer.learning_rate": 1e-9}
    run = Toolkit(toy).train(game, data="cloud", out=tmp_path / "run", steps=100, shown=False, changes=changes)
    assert "distance between samples 0.00× that of the data" in findings(run, good=False)["collapse"]


def test_a_discriminator_that_has_memorised_is_found_by_what_was_held_out(toy, tmp_path):
    class Remembering(nn.Module):
        def __init__(self, known):
            super().__init__()
            self.known, self.scale = known, nn.Parameter(torch.ones(()))

        def forward(self, points):
            remembered = (points[:, None] == self.known).all(dim=2).any(dim=1)
            return self.scale * remembered + 0 * points.sum(dim=1)

    training, _ = hold_out(sys.modules["gan_toy.data"].load_cloud().fit(Spec()), 0.25)
    known = torch.stack([training[index]["points"] for index in range(len(training))])
    game = TwoPlayerGame(Toolkit(toy).create("plain").generator, Remembering(known))
    run = Toolkit(toy).train(
        game, data="cloud", out=tmp_path / "run", steps=100, shown=False, changes={"data.held_out": 0.25}
    )
    assert "scored as more real than held-out items 100% of the time" in findings(run, good=False)["memory"]


def test_a_broken_recipe_is_a_finding_and_no_crash(run):
    run.recipe_file.write_text("system: [")
    assert "is not YAML" in findings(run, good=False)["recipe"]


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"not a run folder \(it has no recipe.yaml\)$"):
        examine_run(tmp_path)


def test_the_installation_is_looked_at_part_by_part(toy, monkeypatch):
    def broken():
        raise OSError("no\ncompiler")

    monkeypatch.setitem(gan_core.doctor.LOOKS, "compiler", broken)
    checks = {check.name: check for check in examine_installation()}
    assert list(checks) == ["python", "libraries", "device", "compiler", "domains"]
    assert (checks["compiler"].good, checks["compiler"].finding) == (False, "OSError: no compiler")
    assert checks["domains"].finding == "toy: 2 systems"
    assert "torch" in checks["libraries"].finding
    assert checks["device"].good


def test_without_a_domain_the_doctor_says_what_to_install(monkeypatch):
    monkeypatch.setattr(gan_core.doctor, "find_domains", dict)
    monkeypatch.setitem(gan_core.doctor.LOOKS, "compiler", lambda: "")
    found = {check.name: check for check in examine_installation()}["domains"]
    assert (found.good, found.finding) == (False, "LookupError: no domain package is installed: pip install gan-image")
