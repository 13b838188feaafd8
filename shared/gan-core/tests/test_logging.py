"""What is logged: means over an interval, kept exactly from one checkpoint to the next run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gan_core.distributed import Processes
from gan_core.errors import RecipeError
from gan_core.training.logging import Display, LossMeans, Trackers

ALONE = Processes("cpu")


def values(*numbers: float) -> list[torch.Tensor]:
    return [torch.tensor(number) for number in numbers]


def test_the_mean_of_a_term_is_over_the_turns_that_had_it() -> None:
    means = LossMeans()
    for value in values(1.0, 2.0, 6.0):
        means.add("generator", {"adversarial": value})
    means.add("discriminator", {"adversarial": torch.tensor(5.0), "r1": torch.tensor(0.5)})
    assert means.means(ALONE) == {
        "generator/adversarial": 3.0,
        "discriminator/adversarial": 5.0,
        "discriminator/r1": 0.5,
    }
    assert means.means(ALONE)["generator/adversarial"] == 3.0  # reading it changes nothing
    means.clear()
    assert means.means(ALONE) == {}


def test_an_interval_that_was_saved_goes_on_to_the_last_bit() -> None:
    thirds = [torch.rand((), generator=torch.Generator().manual_seed(n)) / 3 for n in range(20)]
    whole, first, second = LossMeans(), LossMeans(), LossMeans()
    for number, value in enumerate(thirds):
        whole.add("g", {"x": value})
        (first if number < 7 else second).add("g", {"x": value})
        if number == 6:
            second.load(json.loads(json.dumps(first.state())), ALONE)
    assert second.means(ALONE) == whole.means(ALONE)
    assert second.state() == whole.state()


def test_an_interval_of_two_processes_goes_on_in_one_with_their_mean() -> None:
    means = LossMeans()
    means.load({"g/x": [[2.0, 6.0], 2]}, ALONE)
    assert means.means(ALONE) == {"g/x": 2.0}  # (2 + 6) / 2 processes / 2 turns


def test_off_a_terminal_every_line_of_the_log_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("toy/gan", 10, shown=True) as display:
        display.step(2, 0.2)
        display.line({"step": 2, "phase": "warm", "generator/adversarial": 0.123456, "samples_per_second": 812.4})
    assert capsys.readouterr().err == "toy/gan 2/10 [warm] generator/adversarial 0.123  812 samples/s\n"
    with Display("toy/gan", 10, shown=False) as display:
        display.line({"step": 2, "phase": "warm", "generator/adversarial": 0.1, "samples_per_second": 812.4})
    assert capsys.readouterr().err == ""


def test_the_number_of_steps_is_what_the_progress_of_the_run_points_to(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("toy/gan", 10**6, shown=True) as display:
        display.step(30, 0.25)
        display.line({"step": 30, "phase": "warm", "samples_per_second": 812.4})
    assert capsys.readouterr().err == "toy/gan 30/120 [warm]   812 samples/s\n"


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"unknown tracker `tensorbord`; did you mean `tensorboard`\?"):
        Trackers(["tensorbord"], tmp_path)
