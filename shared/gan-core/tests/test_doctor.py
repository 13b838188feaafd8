"""The doctor finds what was broken on purpose, and says what to try."""

import json
from pathlib import Path

import pytest
import torch

import gan_core.doctor
from gan_core.doctor import examine_installation, examine_run
from gan_core.errors import CheckpointError


@pytest.fixture
def run(toy, tmp_path: Path):
    return toy.train("plain", data="cloud", out=tmp_path / "run", log_every=1, checkpoint_every=1, shown=False)


def findings(run, good):
    return {check.name: check.finding for check in examine_run(run.path) if check.good is good}


def log(run, **values):
    lines = [{"step": step, "phase": "adversarial", "samples_per_second": 10.0, **values} for step in range(1, 11)]
    run.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_healthy_run_has_nothing_wrong(run):
    assert findings(run, good=False) == {}
    found = findings(run, good=True)
    assert found["recipe"] == "plain (small), 3 steps"
    assert found["checkpoints"] == "the newest, of step 3, is whole"
    assert found["log"].startswith("3 lines until step 3, ")
    assert found["samples"].startswith("64 samples differ by ")


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


def test_a_discriminator_that_has_won_is_found(run):
    log(run, **{"discriminator/adversarial": 0.01, "generator/adversarial": 7.0})
    assert findings(run, good=False)["losses"] == (
        "the discriminator tells every sample (its loss is 0.01), so the generator learns little; try "
        "`regularizers.gradient_penalty.weight=1`, or a lower `players.discriminator.optimizer.learning_rate`"
    )


@pytest.mark.parametrize("value", [2e3, -2e3, float("nan"), float("inf")])
def test_losses_that_run_away_are_found(run, value):
    log(run, **{"discriminator/adversarial": 1.0, "generator/adversarial": value})
    assert findings(run, good=False)["losses"] == (
        f"generator/adversarial is {value:.3g}; try a lower `optimizer.learning_rate`, or a gradient penalty"
    )


def test_a_generator_that_has_collapsed_is_found(toy, tmp_path):
    game = toy.create("plain")
    for parameter in (game.generator.hidden.weight, game.generator.out.weight):
        parameter.data.zero_()
    game.generator.out.bias.data = torch.tensor([1.0, -1.0])
    run = toy.train(game, data="cloud", out=tmp_path / "run", steps=1, shown=False,
                    changes={"optimizer.learning_rate": 1e-9})  # fmt: skip
    assert "64 samples are alike" in findings(run, good=False)["samples"]


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
