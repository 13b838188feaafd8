"""The state of a player: its update step, in one part or several, and the noise of each part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from gan_core import SGD, Player, draws
from gan_core.data import Batch
from gan_core.distributed import Processes
from gan_core.errors import RecipeError
from gan_core.play.objectives import Terms
from gan_core.recipe import parse
from gan_core.training.player_state import PlayerState, share_of_draws

ALONE = Processes("cpu")
CPU = torch.device("cpu")


def recipe(**train: object):
    return parse(
        {"system": "toy", "optimizer": {"name": "sgd", "learning_rate": 0.5}, "train": {"device": "cpu"} | train}
    )


def parts(batch: Batch, count: int) -> list[Batch]:
    return [dict(zip(batch, rows, strict=True)) for rows in zip(*(t.chunk(count) for t in batch.values()), strict=True)]


class Line(nn.Linear):
    """The function w · x, initially with w = 1."""

    def __init__(self) -> None:
        super().__init__(1, 1, bias=False)
        nn.init.ones_(self.weight)


def squares(network: Line) -> Player:
    return Player(
        "line",
        (network,),
        lambda batch: {"square": network(batch["x"]).square().mean(), "shrink": 0.5 * network.weight.square().sum()},
    )


def test_a_step_goes_down_the_gradient_of_the_sum_of_the_terms() -> None:
    network = Line()
    terms = PlayerState(squares(network), recipe(), ALONE).move([{"x": torch.tensor([[1.0], [3.0]])}], seed=0)
    assert {name: term.item() for name, term in terms.items()} == {"square": 5.0, "shrink": 0.5}
    assert network.weight.item() == 1 - 0.5 * (2 * 5 + 1)  # w - rate · (2 w E[x²] + w)
    assert network.weight.grad is None
    assert not any(term.requires_grad for term in terms.values())


@pytest.mark.parametrize("count", [1, 2, 4])
def test_parts_take_the_step_of_the_whole_batch(count: int) -> None:
    network, batch = Line(), {"x": torch.tensor([[1.0], [2.0], [3.0], [4.0]])}
    terms = PlayerState(squares(network), recipe(), ALONE).move(parts(batch, count), seed=0)
    assert terms["square"].item() == 7.5  # (1 + 4 + 9 + 16) / 4
    assert terms["shrink"].item() == 0.5
    assert network.weight.item() == 1 - 0.5 * (2 * 7.5 + 1)


def test_parts_share_the_noise_of_the_batch() -> None:
    batch = {"x": torch.zeros(8, 1)}
    drawn = {}
    for count in (1, 4):
        rows = []
        for index, part in enumerate(parts(batch, count)):
            with share_of_draws(3, ALONE, index, count, part):
                rows.append(draws.normal(len(part["x"]), 5, like=part["x"]))
        drawn[count] = torch.cat(rows)
    assert torch.equal(drawn[4], drawn[1])


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (torch.ones(()), "the loss of `line` returned Tensor; a loss returns named scalars"),
        ({}, "the loss of `line` returned dict; a loss returns named scalars"),
        ({"square": torch.ones(2)}, "the term `square` of `line` is of shape [2]; a loss returns named scalars"),
        ({"square": 1.0}, "the term `square` of `line` is a float; a loss returns named scalars"),
    ],
)
def test_a_loss_must_return_named_scalars(result: Any, words: str) -> None:
    state = PlayerState(Player("line", (Line(),), lambda batch: result), recipe(), ALONE)
    with pytest.raises(RecipeError, match=re.escape(words)):
        state.move([{"x": torch.ones(1, 1)}], seed=0)


def test_a_player_may_bring_its_own_step() -> None:
    def uphill(state: PlayerState, batches: Sequence[Batch]) -> Terms:
        terms = {"square": state.loss(batches[0])["square"]}
        state.backward(-terms["square"])
        state.update()
        return terms

    network = Line()
    plain = squares(network)
    player = Player(plain.name, plain.networks, plain.loss, step=uphill)
    PlayerState(player, recipe(), ALONE).move([{"x": torch.tensor([[1.0]])}], seed=0)
    assert network.weight.item() == 1 + 0.5 * 2


def test_turns_and_optimizers_come_from_the_recipe_then_the_player_then_the_default() -> None:
    network = Line()
    player = Player("line", (network,), squares(network).loss, turns=3, optimizer=SGD(learning_rate=0.25))
    state = PlayerState(player, recipe(), ALONE)
    assert (state.turns, state.optimizer.param_groups[0]["lr"]) == (3, 0.25)
    changed = recipe().but({"players.line.turns": 2, "players.line.optimizer.learning_rate": 0.125})
    state = PlayerState(player, changed, ALONE)
    assert (state.turns, state.optimizer.param_groups[0]["lr"]) == (2, 0.125)
    assert PlayerState(squares(network), recipe(), ALONE).turns == 1


def test_a_network_that_a_player_names_twice_is_changed_once() -> None:
    network = Line()
    player = Player("line", (network, nn.Sequential(network)), squares(network).loss)
    state = PlayerState(player, recipe(), ALONE)
    assert len(state.parameters) == 1
    state.move([{"x": torch.tensor([[1.0]])}], seed=0)
    assert network.weight.item() == 1 - 0.5 * 3


def test_in_bf16_networks_compute_in_bf16_and_weights_stay_in_fp32() -> None:
    network, seen = Line(), []

    def loss(batch: Batch) -> Terms:
        logits = network(batch["x"])
        seen.append(logits.dtype)
        return {"mean": logits.mean()}

    state = PlayerState(Player("line", (network,), loss), recipe(precision="bf16"), ALONE)
    terms = state.move([{"x": torch.ones(4, 1)}], seed=0)
    assert seen == [torch.bfloat16]
    assert (network.weight.dtype, terms["mean"].dtype) == (torch.float32, torch.float32)
    assert network.weight.item() == 0.5


def test_a_watched_step_measures_the_gradient_before_it_is_clipped() -> None:
    network, batch = Line(), {"x": torch.tensor([[1.0], [3.0]])}
    clipped = parse({"system": "toy", "optimizer": {"name": "sgd", "learning_rate": 0.5, "clip_norm": 1.0}})
    state = PlayerState(squares(network), clipped, ALONE)
    state.move([batch], seed=0)
    assert state.gradient_norm is None
    assert network.weight.item() == pytest.approx(0.5)  # a gradient of 11, cut to 1
    state.watched = True
    state.move([batch], seed=0)
    assert state.gradient_norm == pytest.approx(5.5)  # 2 · 0.5 · 5 + 0.5
    assert network.weight.item() == pytest.approx(0.0, abs=1e-6)
