"""The doctor: findings of damaged runs and failing trainings."""

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


def test_a_healthy_run_has_no_problems(run):
    assert findings(run, good=False) == {}
    found = findings(run, good=True)
    assert found["recipe"] == "plain (small), 3 steps"
    assert found["checkpoints"] == "the latest, of step 3, is valid"
    assert found["log"].startswith("3 lines up to step 3, ")
    assert found["collapse"] == "not checked: the run has 3 steps; at least 100 are needed"


def test_a_damaged_checkpoint_is_reported_with_the_step_to_resume_from(run):
    (run.checkpoints()[-1] / "game.safetensors").write_bytes(b"x")
    assert findings(run, good=False)["checkpoints"].endswith("; `resume` will continue from step 2")


def test_missing_checkpoints_and_logs_are_reported_with_their_settings(run):
    for checkpoint in run.checkpoints():
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    run.log_file.unlink()
    wrong = findings(run, good=False)
    assert wrong["checkpoints"] == "there are none yet; set `train.checkpoint_every`"
    assert wrong["log"] == "nothing was logged yet; set a smaller `train.log_every`"


def test_mode_collapse_is_found(toy, tmp_path):
    game = Toolkit(toy).create("plain")
    for parameter in (game.generator.hidden.weight, game.generator.out.weight):
        parameter.data.zero_()
    game.generator.out.bias.data = torch.tensor([1.0, -1.0])
    changes = {"optimizer.learning_rate": 1e-9}
    run = Toolkit(toy).train(game, data="cloud", out=tmp_path / "run", steps=100, shown=False, changes=changes)
    assert "distance between samples 0.00× that of the data" in findings(run, good=False)["collapse"]


def test_memorization_is_found_with_held_out_data(toy, tmp_path):
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


def test_a_damaged_recipe_is_a_finding(run):
    run.recipe_file.write_text("system: [")
    assert "is not YAML" in findings(run, good=False)["recipe"]


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"not a run folder \(it has no recipe.yaml\)$"):
        examine_run(tmp_path)


def test_each_part_of_the_installation_is_checked(toy, monkeypatch):
    def broken():
        raise OSError("no\ncompiler")

    monkeypatch.setitem(gan_core.doctor.INSTALLATION_CHECKS, "compiler", broken)
    checks = {check.name: check for check in examine_installation()}
    assert list(checks) == ["python", "libraries", "device", "compiler", "domains"]
    assert (checks["compiler"].good, checks["compiler"].finding) == (False, "OSError: no compiler")
    assert checks["domains"].finding == "toy: 2 systems"
    assert "torch" in checks["libraries"].finding
    assert checks["device"].good


def test_without_a_domain_the_doctor_names_a_package_to_install(monkeypatch):
    monkeypatch.setattr(gan_core.doctor, "find_domains", lambda strict: {})
    monkeypatch.setitem(gan_core.doctor.INSTALLATION_CHECKS, "compiler", lambda: "")
    found = {check.name: check for check in examine_installation()}["domains"]
    assert (found.good, found.finding) == (False, "LookupError: no domain package is installed: pip install gan-image")
