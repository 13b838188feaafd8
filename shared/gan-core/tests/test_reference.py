"""Published checkpoints: keys and shapes in, our network with those weights out."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gan_core.api import Toolkit
from gan_core.errors import CheckpointError
from gan_core.models.reference import Published, load_reference, renamed


def checkpoint(width=6, latent_dim=3):
    generator = torch.Generator().manual_seed(0)
    shapes = {"fc1.weight": (width, latent_dim), "fc1.bias": (width,), "fc2.weight": (2, width), "fc2.bias": (2,)}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def refusal(toy, name="plain/generator", state=None, **arguments):
    with pytest.raises(CheckpointError) as error:
        load_reference(toy.reference.IMPORTERS, name, checkpoint() if state is None else state, **arguments)
    return str(error.value)


def test_a_published_checkpoint_computes_what_it_did(toy):
    state, z = checkpoint(), torch.randn(4, 3)
    hidden = nn.functional.leaky_relu(z @ state["fc1.weight"].T + state["fc1.bias"], 0.1)
    expected = hidden @ state["fc2.weight"].T + state["fc2.bias"]
    assert_close(Toolkit(toy).load_reference("plain/generator", state)(z), expected)


@pytest.mark.parametrize(("width", "latent_dim"), [(1, 1), (6, 3), (16, 9)])
def test_sizes_are_told_by_the_shapes(toy, width, latent_dim):
    network = load_reference(toy.reference.IMPORTERS, "plain/generator", checkpoint(width, latent_dim))
    assert (network.hidden.out_features, network.latent_dim) == (width, latent_dim)


def test_an_argument_that_agrees_may_be_given(toy):
    assert load_reference(toy.reference.IMPORTERS, "plain/generator", checkpoint(), nz=3, hidden=6).latent_dim == 3


def test_what_does_not_fit_says_why(toy):
    assert refusal(toy, "plain/generatr") == (
        "unknown published network of gan-toy `plain/generatr`; did you mean `plain/generator`?"
    )
    assert refusal(toy, nz=4) == "plain/generator: `nz` is 4, and the checkpoint's is 3"
    assert refusal(toy, ngf=4) == "unknown argument of plain/generator `ngf`; known: hidden, nz"
    assert refusal(toy, state={}) == ("plain/generator: the checkpoint is of another network ('fc1.weight' is missing)")
    state = checkpoint()
    del state["fc2.bias"]
    assert refusal(toy, state=state) == "plain/generator: the checkpoint is of another network ('fc2.bias' is missing)"


def test_a_tensor_of_another_shape_is_named(toy):
    words = refusal(toy, state=checkpoint() | {"fc2.bias": torch.zeros(3)})
    assert words.startswith("the checkpoint does not fit: ")
    assert "out.bias" in words


@pytest.mark.parametrize("odd", [torch.zeros(()), torch.zeros(3), torch.zeros(2, 3, 4)])
def test_a_tensor_of_another_rank_is_no_crash(toy, odd):
    words = refusal(toy, state=checkpoint() | {"fc1.weight": odd})
    assert words.startswith("plain/generator: the checkpoint is of another network (")


def test_sizes_that_no_network_has_are_refused(toy):
    words = refusal(toy, state=checkpoint() | {"fc1.weight": torch.zeros(0, 3)})
    assert words == "plain/generator: the checkpoint's `fc1.weight` is empty"


def test_one_tensor_too_many_is_an_error():
    layer = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"^the checkpoint does not fit: .*extra"):
        Published(lambda: layer, {}, layer.state_dict() | {"extra": torch.zeros(1)}).build()


def test_prefixes_are_renamed_and_other_keys_stay():
    tensor = torch.zeros(1)
    state = dict.fromkeys(["main.0.weight", "main.0", "main.01.weight", "main.1.conv.bias", "tail"], tensor)
    names = {"main.0": "stem.conv", "main.1": "body", "main.1.conv": "body.first"}
    assert list(renamed(state, names)) == ["stem.conv.weight", "stem.conv", "main.01.weight", "body.first.bias", "tail"]


def test_renaming_back_gives_the_checkpoint():
    state = checkpoint()
    there = {"fc1": "hidden", "fc2": "out"}
    back = {ours: theirs for theirs, ours in there.items()}
    assert renamed(renamed(state, there), back).keys() == state.keys()
