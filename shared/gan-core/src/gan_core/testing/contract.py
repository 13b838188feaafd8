"""Contract of all systems, which is checked for every card of a domain."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from gan_core.api import Toolkit, train_recipe
from gan_core.cards import Card
from gan_core.data import Batch, BatchStream, FittedData, require_keys
from gan_core.distributed import Processes
from gan_core.domain import Domain
from gan_core.draws import drawing
from gan_core.models.checkpoint import split_state
from gan_core.play.game import Game
from gan_core.play.player import Phase
from gan_core.play.preset import on_meta
from gan_core.recipe import Recipe
from gan_core.training.player_state import PlayerState, frozen, release

BATCH = 8


def check_contract(domain: Domain, card: Card, folder: Path) -> None:
    """Checks the presets of a system, and the players, sampling, saving and training of its preset `small`.

    Args:
        domain: domain of the package.
        card: card of the system.
        folder: an empty folder.

    Raises:
        AssertionError: a check fails.
    """
    presets = domain.presets(card.name)
    assert {"paper", "small"} <= presets.keys(), f"{card.name} has the presets {sorted(presets)}"
    with on_meta():
        presets["paper"].build()
    small = presets["small"]
    source = Toolkit(domain).open_data(card.data)
    recipe = small.recipe(domain=domain.name, system=card.name, preset="small")
    recipe = small.complete(
        recipe.but({"train.batch_size": BATCH, "train.steps": 2, "train.device": "cpu"}), source.facts
    )
    game = _seeded(domain, recipe)
    data = FittedData(source, game.spec)
    check_players(game, recipe, data)
    check_sampling(_seeded(domain, recipe), data)
    check_saving(_seeded(domain, recipe), domain, folder)
    check_phases(domain, recipe, data, folder)


def check_players(game: Game, recipe: Recipe, data: FittedData) -> None:
    """Checks that each player, in each phase, trains all its parameters and no others, with finite scalar losses."""
    require_keys(data.source, game.data_keys, recipe.system)
    for number, phase in enumerate(game.phases()):
        game.enter_phase(number)
        batch = _batch(data, phase)
        players = [p for p in game.players() if phase.players is None or p.name in phase.players]
        fixed, states = frozen(game), [PlayerState(player, recipe, Processes("cpu")) for player in players]
        shared = game.shares_samples(player.name for player in players)
        for state in states:
            game.requires_grad_(False)
            state.allow(True)
            before = {name: tensor.clone() for name, tensor in game.named_parameters()}
            for name, term in state.move([_staged(game, batch) if shared else batch], seed=1).items():
                assert term.ndim == 0, f"{state.player.name}/{name} has the shape {tuple(term.shape)}"
                assert torch.isfinite(term), f"{state.player.name}/{name} is {float(term)}"
            _check_moved(game, before, state)
        release(game, fixed)


def _staged(game: Game, batch: Batch) -> Batch:
    with drawing(0, game.device, rows=BATCH, total=BATCH):
        return game.stage(dict(batch))


def _check_moved(game: Game, before: dict[str, Tensor], state: PlayerState) -> None:
    """Checks which parameters had a gradient, possibly zero, by whether the optimizer has a state for them."""
    own = {id(parameter) for parameter in state.parameters}
    for name, parameter in game.named_parameters():
        if id(parameter) in own:
            assert parameter in state.optimizer.state, f"the loss of `{state.player.name}` has no gradient for {name}"
        else:
            assert torch.equal(parameter, before[name]), f"`{state.player.name}` changes {name}, which it does not own"


def check_sampling(game: Game, data: FittedData) -> None:
    """Checks that equal seeds generate equal samples, and different seeds different ones."""
    batch = _batch(data, Phase())
    game.eval()
    first, again = game.preview(batch), game.preview(batch)
    for name in first:
        assert torch.equal(first[name], again[name]), f"`{name}` differs between two previews"
        assert torch.isfinite(first[name]).all(), f"`{name}` has values that are not finite"
    if type(game).sample is not Game.sample:
        torch.testing.assert_close(game.generate(3, seed=1), game.generate(5, seed=1)[:3], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(game.generate(3, seed=1), game.generate(3, seed=2)), "the seed has no effect"


def check_saving(game: Game, domain: Domain, folder: Path) -> None:
    """Checks that a loaded game has the tensors of the saved one."""
    for tensor in game.state_dict().values():
        if isinstance(tensor, Tensor) and tensor.is_floating_point():
            tensor.normal_()
    loaded = Toolkit(domain).load(game.save_pretrained(folder / "model")).state_dict()
    tensors, plain = split_state(game, model=True)
    for name, value in {**tensors, **plain}.items():
        same = torch.equal(value, loaded[name]) if isinstance(value, Tensor) else value == loaded[name]
        assert same, f"{name} is not loaded as it was saved"


def check_phases(domain: Domain, recipe: Recipe, data: FittedData, folder: Path) -> None:
    """Checks that a game trained through all phases generates the same samples after loading."""
    phases = list(_seeded(domain, recipe).phases())
    steps = {"train.steps": len(phases), "train.ema": 0.5, "train.show": BATCH, "data.source": data.source.name}
    run = train_recipe(recipe.but(steps), folder / "run", source=data.source, shown=False)
    batch = _batch(data, phases[-1])
    load = Toolkit(domain).load
    kept, loaded = load(run.path), load(run.model)
    for game in (kept, loaded):
        assert game.phase_number == len(phases) - 1, f"the game is in phase {game.phase_number} after it was loaded"
        assert game.progress == 1, f"the game has the progress {game.progress} after it was loaded"
    restored = _seeded(domain, recipe).restore(run.model)
    with torch.no_grad():
        previews = [game.preview(batch) for game in (kept, loaded, restored)]
    for name, shown in previews[0].items():
        for other in previews[1:]:
            assert torch.equal(shown, other[name]), f"`{name}` of a loaded game differs from that of the trained one"


def _seeded(domain: Domain, recipe: Recipe) -> Game:
    torch.manual_seed(0)
    return domain.preset(recipe.system).build(recipe)


def _batch(data: FittedData, phase: Phase) -> Batch:
    return next(BatchStream(data.for_training(phase.spec), BATCH, seed=0))
