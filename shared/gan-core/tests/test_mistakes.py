"""Common mistakes in custom games are refused with a message that names the fix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_core.api import train
from gan_core.errors import DataError, GanError, RecipeError
from gan_core.play.game import Game
from gan_core.play.player import Player

DATA = {"points": torch.zeros(8, 2)}


class Line(Game):
    """One network and one player, with a loss that the test gives."""

    def __init__(
        self, loss: Callable[[Any, Any], Any] = lambda game, batch: {"square": game.fit(batch).square().mean()}
    ):
        super().__init__()
        self.generator, self.loss = nn.Linear(2, 1), loss

    def players(self) -> Iterable[Player]:
        yield Player("generator", (self.generator,), lambda batch: self.loss(self, batch))

    def fit(self, batch: dict[str, Tensor]) -> Tensor:
        return self.generator(batch["points"])

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"fit": self.fit(batch)}


def refused(error: type[GanError], game: Game, out: Path, data: Any = DATA, **settings: Any) -> str:
    with pytest.raises(error) as caught:
        train(game, data=data, out=out, steps=2, batch_size=4, device="cpu", shown=False, **settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda game, batch: game.fit(batch).mean(), "the loss of `generator` returned Tensor; a loss returns named"),
        (lambda game, batch: None, "the loss of `generator` returned NoneType; a loss returns named scalars"),
        (lambda game, batch: {"each": game.fit(batch)}, "the term `each` of `generator` is of shape [4, 1]; a loss"),
        (lambda game, batch: {"zero": 0.0}, "the term `zero` of `generator` is a float; a loss returns named scalars"),
    ],
)
def test_a_loss_that_returns_something_else(loss: Callable[[Any, Any], Any], words: str, tmp_path: Path) -> None:
    assert words in refused(RecipeError, Line(loss), tmp_path / "run")


def test_an_error_in_a_loss_names_the_player_and_the_batch(tmp_path: Path) -> None:
    with pytest.raises(KeyError) as caught:
        train(Line(), data={"dots": torch.zeros(8, 2)}, out=tmp_path / "run", steps=2, batch_size=4, shown=False)
    assert caught.value.__notes__ == ["(in the loss of the player `generator`, on a batch of dots [4, 2])"]


def test_networks_in_a_python_list_are_refused(tmp_path: Path) -> None:
    game = Line()
    hidden = [nn.Linear(2, 1)]
    game.players = lambda: [Player("generator", (hidden[0],), game.loss)]  # type: ignore[method-assign]
    assert refused(RecipeError, game, tmp_path / "run") == (
        "the networks of `generator` are not all submodules of the game, so they would not be saved; make them "
        "attributes of the game (several in an nn.ModuleList)"
    )


def test_two_players_with_the_same_name_are_refused(tmp_path: Path) -> None:
    class Twice(Line):
        def players(self) -> Iterable[Player]:
            return [*super().players(), *super().players()]

    words = "Twice has two players named `generator`; give each its own name"
    assert refused(RecipeError, Twice(), tmp_path / "run") == words


def test_a_stage_without_a_player_is_refused(tmp_path: Path) -> None:
    class Stage(Line):
        stagers = ("translator",)

        def stage(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return batch | {"made": self.fit(batch)}

    words = refused(RecipeError, Stage(), tmp_path / "run")
    assert words == (
        "Stage: `stagers` lists translator, but the players are generator; list the player that is trained through "
        "`stage`"
    )


def test_an_average_of_a_missing_network_is_refused(tmp_path: Path) -> None:
    class Other(Line):
        sampling = ("synthesis",)

    words = refused(RecipeError, Other(), tmp_path / "run", ema=0.9)
    assert words == "Other has no network `synthesis`; list in `sampling` the networks that generate samples"


def test_data_without_keys_or_indices_are_refused(tmp_path: Path) -> None:
    bare = torch.utils.data.TensorDataset(torch.zeros(8, 2))
    assert "return dictionaries" in refused(DataError, Line(), tmp_path / "bare", data=bare)
    loader = torch.utils.data.DataLoader(bare)
    assert "`data` is a DataLoader; give tensors" in refused(DataError, Line(), tmp_path / "loader", data=loader)


def test_after_turn_is_called_once_per_turn_also_with_accumulation(tmp_path: Path) -> None:
    class Counting(Line):
        def __init__(self) -> None:
            super().__init__(lambda game, batch: {"mean": game.fit(batch).mean() * 0 + batch["points"].mean()})
            self.register_buffer("total", torch.zeros(()))

        def after_turn(self, player: str, values: dict[str, Tensor]) -> None:
            assert (player, list(values)) == ("generator", ["mean"])
            self.total += values["mean"]

    for accumulate in (1, 2):
        game = Counting()
        data = {"points": torch.ones(8, 2)}
        out = tmp_path / f"run{accumulate}"
        train(game, data=data, out=out, steps=3, batch_size=4, accumulate=accumulate, device="cpu", shown=False)
        assert game.total == 3


def test_a_game_that_fails_in_its_first_step_writes_no_run(tmp_path: Path) -> None:
    def fails(game: Any, batch: Any) -> Any:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        train(Line(fails), data=DATA, out=tmp_path / "run", steps=3, device="cpu", shown=False)
    assert list(tmp_path.iterdir()) == []
