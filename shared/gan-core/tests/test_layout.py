import copy

import pytest
import torch
from torch import nn

from gan_core import Game, Player, train
from gan_core.nn.translators import PatchDiscriminator, ResNetTranslator, UNetTranslator
from gan_core.training.layout import lay_out

LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Contiguous(nn.Sequential):
    memory_format = torch.contiguous_format


def networks():
    return nn.ModuleDict(
        {
            "image": nn.Conv2d(3, 4, 3),
            "one channel": nn.Conv2d(1, 4, 3),
            "volume": nn.Conv3d(3, 4, 3),
            "sequence": nn.Conv1d(3, 4, 3),
            "contiguous": nn.Sequential(Contiguous(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(3, 4, 3)))),
        }
    )


def last(weight):
    """The strides of a dense tensor with its channels last."""
    return torch.empty(weight.shape).to(memory_format=LAST[weight.ndim]).stride()


def test_channels_of_images_and_volumes_are_last_unless_a_network_says_otherwise():
    game = networks()
    before = copy.deepcopy(game.state_dict())
    lay_out(game)
    for name in ("image", "one channel", "volume"):
        assert game[name].weight.stride() == last(game[name].weight), name
    assert all(game.state_dict()[name].stride() == before[name].stride() for name in before if name.startswith("conti"))
    assert game["sequence"].weight.stride() == before["sequence.weight"].stride()
    assert all(torch.equal(tensor, before[name]) for name, tensor in game.state_dict().items())


@pytest.mark.parametrize(
    ("network", "settings", "contiguous"),
    [
        (ResNetTranslator, {"blocks": 1, "norm": "instance"}, True),
        (ResNetTranslator, {"blocks": 1, "norm": "batch"}, False),
        (ResNetTranslator, {"blocks": 1, "norm": "instance", "ndim": 3}, False),
        (UNetTranslator, {"depth": 3}, True),
        (UNetTranslator, {"depth": 3, "ndim": 3}, False),
        (PatchDiscriminator, {"norm": "instance"}, True),
        (PatchDiscriminator, {"norm": "batch"}, False),
    ],
)
def test_translators_have_the_layout_that_was_measured_to_be_fastest(network, settings, contiguous):
    network = copy.deepcopy(network(width=2, **settings))
    lay_out(network)
    for weight in (parameter for parameter in network.parameters() if parameter.ndim > 3):
        expected = torch.empty(weight.shape).stride() if contiguous else last(weight)
        assert weight.stride() == expected


class Faded(Game):
    """A game of networks in several layouts, with one player."""

    def __init__(self):
        super().__init__()
        self.networks = networks()

    def players(self):
        yield Player("generator", (self.networks["image"], self.networks["contiguous"]), self.loss)

    def preview(self, batch):
        return batch

    def loss(self, batch):
        return {"size": sum(parameter.square().sum() for parameter in self.networks.parameters())}


def test_training_lays_out_the_weights(tmp_path):
    game = Faded()
    train(game, data={"image": torch.zeros(4, 1)}, out=tmp_path, steps=1, batch_size=2, device="cpu", shown=False)
    kept = game.networks["contiguous"][0][0][0].weight
    assert game.networks["image"].weight.stride() == last(kept)
    assert kept.is_contiguous()
