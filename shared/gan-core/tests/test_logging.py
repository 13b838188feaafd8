"""Logging: means over an interval, which checkpoints keep exactly, the display of progress, and trackers."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from rich.text import Text

import gan_core.training.logging
from gan_core.distributed import Processes
from gan_core.errors import RecipeError
from gan_core.training.logging import Display, LossMeans, Trackers, in_notebook, main_losses

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


LINE = {"phase": "warm", "generator/adversarial": 0.123456, "samples_per_second": 812.4}


def test_off_a_terminal_lines_of_the_log_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("toy/gan", 10, shown=True) as display:
        display.step(2, 0.2)
        display.line({"step": 2, **LINE})
    assert capsys.readouterr().err == "toy/gan 0/10 0%\ntoy/gan 2/10 20%  warm  G 0.123  812 samples/s\n"
    with Display("toy/gan", 10, shown=False) as display:
        display.line({"step": 2, **LINE})
        display.evaluation({"step": 2, "evaluation/fid": 1.0})
        display.interrupted("SIGINT", 2)
    assert capsys.readouterr().err == ""


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds that the display sees, as a list of one number."""
    seconds = [100.0]
    monkeypatch.setattr(gan_core.training.logging, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    return seconds


def test_lines_are_printed_every_few_seconds_and_the_last_one_always(
    capsys: pytest.CaptureFixture[str], now: list[float]
) -> None:
    with Display("toy/gan", 10, shown=True) as display:
        for step in range(1, 9):
            now[0] += 1.8
            display.line({"step": step, **LINE})
    steps = [line.split()[1].partition("/")[0] for line in capsys.readouterr().err.splitlines()]
    assert steps == ["0", "3", "6", "8"]


def test_slow_steps_are_shown_before_the_first_line_of_the_log(
    capsys: pytest.CaptureFixture[str], now: list[float]
) -> None:
    with Display("toy/gan", 1000, shown=True) as display:
        for step in range(1, 6):
            now[0] += 3
            display.step(step, step / 1000)
    assert capsys.readouterr().err.splitlines() == ["toy/gan 0/1000 0%", "toy/gan 2/1000 0%", "toy/gan 4/1000 0%"]


def test_a_line_has_the_main_loss_of_each_player_and_the_main_figure(capsys: pytest.CaptureFixture[str]) -> None:
    terms = {"discriminator/adversarial": 0.3278, "discriminator/r1": 2.0, "generator/adversarial": 4.851}
    with Display("toy/gan", 10, shown=True) as display:
        display.evaluation({"step": 5, "evaluation/fid": 2.0999, "evaluation/precision": 0.51234})
        display.line({"step": 10, "phase": "adversarial", **terms, "encoder/cycle": 12345.0, "samples_per_second": 9.0})
    assert capsys.readouterr().err.splitlines()[1:] == [
        "toy/gan: step 5: FID 2.1  precision 0.512",
        "toy/gan 10/10 100%  adversarial  D 0.328  G 4.85  encoder 1.23e+04  FID 2.1  9 samples/s",
    ]


def test_the_number_of_steps_follows_from_the_progress_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("toy/gan", 10**6, shown=True) as display:
        display.step(30, 0.25)
        display.line({"step": 30, "phase": "warm", "samples_per_second": 812.4})
    assert capsys.readouterr().err.endswith("toy/gan 30/120 25%  warm  812 samples/s\n")


def test_evaluations_and_the_end_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("toy/gan", 10, shown=True) as display:
        display.evaluation({"step": 5, "evaluation/fid": 12.3456, "protocol/fid": "abc", "phase": "evaluation"})
        display.ended("the budget is used", 6)
        display.interrupted("SIGTERM", 7)
    assert capsys.readouterr().err.splitlines()[1:] == [
        "toy/gan: step 5: FID 12.3",
        "toy/gan: ended at step 6: the budget is used",
        "toy/gan: interrupted by SIGTERM at step 7; continue with `resume`",
    ]


@pytest.mark.parametrize("title", ["image/dcgan", "image/a-system-with-a-very-long-name"])
def test_in_80_columns_step_percentage_and_time_show_and_values_have_their_own_line(
    monkeypatch: pytest.MonkeyPatch, title: str
) -> None:
    monkeypatch.setattr(
        gan_core.training.logging, "Console", lambda **_: Console(file=io.StringIO(), width=80, force_terminal=True)
    )
    display = Display(title, 200_000, shown=True)
    display.step(50_000, 0.25)
    display.line({"step": 50_000, **{f"player-{k}/term{n}": 0.3 for k in range(12) for n in range(3)}})
    with display.console.capture() as captured:
        display.console.print(display.screen.renderable)
    bar, values = Text.from_ansi(captured.get()).plain.splitlines()
    assert bar.startswith(title[:20])
    assert re.search(r"━ +50000/200000 +25% \d:\d\d:\d\d (-:--:--|\d:\d\d:\d\d)$", bar.rstrip()), bar
    assert values.startswith("player-0 0.3  player-1 0.3  ")
    assert (len(bar), len(values)) <= (80, 80)


def test_a_notebook_has_a_bar_if_ipywidgets_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, file = (Console(file=io.StringIO(), force_jupyter=forced) for forced in (True, False))
    for found in (None, object()):
        monkeypatch.setattr(gan_core.training.logging, "find_spec", lambda name, found=found: found)
        assert in_notebook(notebook) is (found is not None)
        assert not in_notebook(file)


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"unknown tracker `tensorbord`; did you mean `tensorboard`\?"):
        Trackers(["tensorbord"], tmp_path)


def test_the_terminal_shows_the_adversarial_term_of_each_player_in_any_order_of_the_log():
    line = {
        "step": 3,
        "generator/mel": 61.8,
        "generator/mpd/adversarial": 1.26,
        "discriminator/real_logits": 3.0,
        "discriminator/adversarial": 0.5,
        "samples_per_second": 9.0,
    }
    for each in (line, dict(reversed(line.items()))):
        assert main_losses(each) == {"D": 0.5, "G": 1.26}
    assert main_losses({"encoder/code": 1.0, "encoder/art": 2.0}) == {"encoder": 2.0}
