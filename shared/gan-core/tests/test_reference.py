"""Import of published checkpoints: settings from shapes, weights under our names."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gan_core.api import Toolkit
from gan_core.errors import CheckpointError
from gan_core.models.reference import (
    Published,
    biggan_batch_norms,
    load_reference,
    norm_after,
    read_reference,
    renamed,
    spectral_norms,
    without_instance_statistics,
)
from gan_core.nn.blocks import ConditionalBatchNorm


def checkpoint(width=6, latent_dim=3):
    generator = torch.Generator().manual_seed(0)
    shapes = {"fc1.weight": (width, latent_dim), "fc1.bias": (width,), "fc2.weight": (2, width), "fc2.bias": (2,)}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def refusal(toy, name="plain/generator", state=None, **arguments):
    with pytest.raises(CheckpointError) as error:
        load_reference(toy.reference.IMPORTERS, name, checkpoint() if state is None else state, **arguments)
    return str(error.value)


def test_a_published_checkpoint_computes_the_published_outputs(toy):
    state, z = checkpoint(), torch.randn(4, 3)
    hidden = nn.functional.leaky_relu(z @ state["fc1.weight"].T + state["fc1.bias"], 0.1)
    expected = hidden @ state["fc2.weight"].T + state["fc2.bias"]
    assert_close(Toolkit(toy).load_reference("plain/generator", state)(z), expected)


@pytest.mark.parametrize(("width", "latent_dim"), [(1, 1), (6, 3), (16, 9)])
def test_sizes_are_inferred_from_the_shapes(toy, width, latent_dim):
    network = load_reference(toy.reference.IMPORTERS, "plain/generator", checkpoint(width, latent_dim))
    assert (network.hidden.out_features, network.latent_dim) == (width, latent_dim)


def test_an_argument_that_agrees_is_accepted(toy):
    assert load_reference(toy.reference.IMPORTERS, "plain/generator", checkpoint(), nz=3, hidden=6).latent_dim == 3


def test_checkpoints_that_do_not_fit_are_refused_with_the_reason(toy):
    assert refusal(toy, "plain/generatr") == (
        "unknown published network `plain/generatr`; did you mean `plain/generator`?"
    )
    assert refusal(toy, nz=4) == "plain/generator: `nz` is 4, but 3 in the checkpoint; omit it"
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
def test_a_tensor_of_another_rank_is_refused(toy, odd):
    words = refusal(toy, state=checkpoint() | {"fc1.weight": odd})
    assert words.startswith("plain/generator: the checkpoint is of another network (")


def test_empty_tensors_are_refused(toy):
    words = refusal(toy, state=checkpoint() | {"fc1.weight": torch.zeros(0, 3)})
    assert words == "plain/generator: the checkpoint's `fc1.weight` is empty"


def test_an_unexpected_tensor_is_refused():
    layer = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"^the checkpoint does not fit: .*extra"):
        Published(lambda: layer, {}, layer.state_dict() | {"extra": torch.zeros(1)}).build()


# --- checkpoints as other projects save them


def prefixed(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "netG.", "model.generator.", "module._orig_mod.module."])
def test_prefixes_that_all_keys_share_are_removed(toy, prefix):
    plain = load_reference(toy.reference.IMPORTERS, "plain/generator", checkpoint())
    found = load_reference(toy.reference.IMPORTERS, "plain/generator", prefixed(prefix, checkpoint()))
    assert_same(found, plain)


@pytest.mark.parametrize(
    ("wrapped", "path"),
    [
        ({"state_dict": checkpoint(), "epoch": 3}, "state_dict"),
        ({"iteration": 5, "models": {"netD": {"a.b": torch.ones(9)}, "netG": checkpoint()}}, "models.netG"),
        ({"a": {"b": {"c": {"module": prefixed("module.", checkpoint())}}}}, "a.b.c.module.module"),
        (
            {
                "state_dict": prefixed("generator.", checkpoint())
                | prefixed("discriminator.", {"x.weight": torch.ones(7)}),
                "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(50), "step": torch.tensor(3.0)}}}],
                "hparams": {"lr": 0.1},
            },
            "state_dict.generator",
        ),
        (prefixed("module.", checkpoint()) | {"n_averaged": torch.tensor(3)}, "module"),
        ({"optimizer": {"state": {0: {"exp_avg": torch.ones(90)}}, "param_groups": []}, "g": checkpoint()}, "g"),
    ],
)
def test_wrapped_weights_are_found_at_any_depth(toy, wrapped, path):
    published = read_reference(toy.reference.IMPORTERS, "plain/generator", wrapped, {})
    assert published.path == path
    assert_same(published.build(), load_reference(toy.reference.IMPORTERS, "plain/generator", checkpoint()))


def assert_same(network, other):
    assert network.state_dict().keys() == other.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_averaged_weights_of_a_generator_have_priority_and_the_choice_is_logged(toy, caplog):
    average = {key: value + 1 for key, value in checkpoint().items()}
    for wrapped, path in (
        ({"g": checkpoint(), "d": {"x": torch.ones(9)}, "g_ema": average}, "g_ema"),
        ({"model": checkpoint(), "ema": average}, "ema"),
        (prefixed("other.", checkpoint()) | prefixed("generator_ema.", average), "generator_ema"),
    ):
        caplog.clear()
        published = read_reference(toy.reference.IMPORTERS, "plain/generator", wrapped, {})
        assert published.path == path
        assert torch.equal(published.build().hidden.weight, average["fc1.weight"])
        assert f"plain/generator: using `{path}` of the checkpoint, which also has `" in caplog.text


def test_the_contents_of_a_checkpoint_without_the_network_are_named(toy):
    words = refusal(toy, state={"mpd": {"a\x1b": torch.ones(1)}, "m\x1bsd": {"a": torch.ones(1), "b": torch.ones(1)}})
    assert words.startswith("plain/generator: the checkpoint is of another network ('fc1.weight' is missing); ")
    assert words.endswith("; the checkpoint has `mpd` (1 tensor), `'m\\x1bsd'` (2 tensors)")


def test_the_name_of_a_system_leads_to_its_networks(toy):
    assert refusal(toy, "plain").startswith("`plain` is a system; name the network in the file: plain/generator")


def test_mappings_that_are_nested_deeply_or_broadly_end(toy):
    deep = {}
    for _ in range(5000):
        deep = {"a": deep}
    broad = {f"k{number}": {f"x.{key}": torch.ones(1) for key in range(100)} for number in range(1000)}
    long = {f"{'a.' * 2000}{number}": torch.ones(1) for number in range(50)}
    for state in (deep, broad, long, {f"{number}.x": torch.ones(1) for number in range(5000)}):
        assert "is of another network" in refusal(toy, state=state)


def test_expanded_tensors_are_refused_before_they_are_copied(toy):
    state = checkpoint() | {"fc1.weight": torch.zeros(1).expand(3_000_000, 3)}
    assert refusal(toy, state=state).startswith("plain/generator: its tensors have 36,0")
    small = {key: torch.zeros(1).expand(value.shape) for key, value in checkpoint().items()}
    assert load_reference(toy.reference.IMPORTERS, "plain/generator", small).latent_dim == 3


@pytest.mark.parametrize("error", [TypeError, OverflowError, ZeroDivisionError, ValueError, MemoryError, IndexError])
def test_networks_that_cannot_be_built_with_the_shapes_are_refused(error):
    def network(**settings):
        raise error("two\nlines")

    with pytest.raises(CheckpointError, match=r"^the checkpoint does not fit: .*two lines"):
        Published(network, {}, {}).build()


def test_shapes_are_compared_before_the_network_is_allocated():
    built = []

    def network():
        layer = nn.Linear(4, 4)
        built.append(layer.weight.device.type)
        return layer

    with pytest.raises(CheckpointError, match="does not fit"):
        Published(network, {}, {"weight": torch.zeros(4, 4)}).build()
    assert built == ["meta"]


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


# --- norms of published code


def test_a_power_iteration_gives_the_vectors_of_torchs_spectral_norm():
    weight = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    state = {"a.weight": weight, "a.bias": torch.ones(2), "a.sn_u": torch.tensor([[0.6, 0.8]]), "a.sn_sigma": weight}
    state["other.weight"] = weight
    found = spectral_norms(state, "sn_u")
    v = torch.tensor([1.8, 3.2]) / 13.48**0.5  # Wᵀu, normalized
    assert found.keys() == {"a.bias", "a.weight_orig", "a.weight_u", "a.weight_v", "other.weight"}
    assert_close(found["a.weight_u"], torch.tensor([0.6, 0.8]))
    assert_close(found["a.weight_v"], v)
    layer = nn.utils.spectral_norm(nn.Linear(2, 2)).eval()
    layer.load_state_dict({key.removeprefix("a."): value for key, value in found.items() if key.startswith("a.")})
    assert_close(layer(torch.eye(2)) - 1, weight / 13.48**0.5)  # u · W v = |Wᵀu|


def test_a_layer_that_iterates_in_evaluation_mode_stores_the_vector_after_the_iteration():
    weight = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    found = spectral_norms({"a.weight": weight, "a.u0": torch.tensor([[0.6, 0.8]])}, "u0", iterates=True)
    after = torch.tensor([5.4, 12.8]) / (5.4**2 + 12.8**2) ** 0.5  # W Wᵀu, normalized
    assert_close(found["a.weight_u"], after)


def test_filters_of_any_rank_are_matrices_to_a_spectral_norm():
    weight = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    found = spectral_norms({"a.weight": weight, "a.sn_u": torch.eye(3)[:1]}, "sn_u")
    assert_close(found["a.weight_v"], nn.functional.normalize(weight[0].flatten(), dim=0))
    assert found["a.weight_orig"].shape == (3, 2, 4, 4)


def test_the_batch_norms_of_biggan_compute_what_they_did():
    x = torch.tensor([[5.0, 1.0], [3.0, -1.0]])
    mean, variance = torch.tensor([1.0, 0.0]), torch.tensor([4.0, 0.25])
    stored = {"n.stored_mean": mean, "n.stored_var": variance, "tail": mean}
    normalized = torch.tensor([[2.0, 2.0], [1.0, -2.0]])  # (x - mean) / deviation
    plain = biggan_batch_norms(stored | {"n.gain": torch.tensor([2.0, 3.0]), "n.bias": torch.tensor([0.5, 0.0])})
    assert torch.equal(plain.pop("tail"), mean)
    norm = nn.BatchNorm1d(2, eps=0.0).eval()
    norm.load_state_dict({key.removeprefix("n."): value for key, value in plain.items()})
    assert_close(norm(x), normalized * torch.tensor([2.0, 3.0]) + torch.tensor([0.5, 0.0]))
    tables = {
        "n.gain.weight": torch.tensor([[0.0, 1.0], [4.0, 4.0]]),
        "n.bias.weight": torch.tensor([[1.0, 2.0], [3.0, 3.0]]),
    }
    conditional = ConditionalBatchNorm(2, 2, ndim=1).eval()
    conditional.norm.eps = 0.0
    found = biggan_batch_norms(stored | tables)
    conditional.load_state_dict({key.removeprefix("n."): value for key, value in found.items() if key != "tail"})
    expected = torch.stack([normalized[0] * torch.tensor([5.0, 5.0]) + 3, normalized[1] * torch.tensor([1.0, 2.0])])
    expected[1] += torch.tensor([1.0, 2.0])
    assert_close(conditional(x, torch.tensor([1, 0])), expected)


STATISTICS = dict.fromkeys(["n.running_mean", "n.running_var", "n.num_batches_tracked"], torch.zeros(2))


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (STATISTICS | {"n.weight": torch.ones(2), "c.weight": torch.ones(2, 2)}, "batch"),
        (STATISTICS | {"c.weight": torch.ones(2, 2), "c.bias": torch.ones(2)}, "instance"),
        ({"c.weight": torch.ones(2, 2), "c.bias": torch.ones(2)}, "instance"),
        ({"c.weight": torch.ones(2, 2)}, "none"),
    ],
)
def test_the_norm_after_a_layer_is_inferred_from_gains_and_biases(state, kind):
    assert norm_after(state, "c") == kind


def test_running_statistics_are_left_out_where_there_are_no_gains():
    state = STATISTICS | {"c.bias": torch.ones(2)}
    assert without_instance_statistics(state).keys() == {"c.bias"}
    state |= {"n.weight": torch.ones(2)}
    assert without_instance_statistics(state).keys() == state.keys()
