"""FID's Inception v3: the differences from torchvision's network, and its extractor."""

import hashlib
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from gan_core.errors import CheckpointError, InputError, MissingDependency
from gan_core.measure import image_extractors
from gan_core.measure.image_extractors import to_pixels

inception = pytest.importorskip("gan_core.measure.inception", exc_type=ImportError)  # it needs torchvision
BlockA, BlockC, BlockE, LastBlockE = inception.BlockA, inception.BlockC, inception.BlockE, inception.LastBlockE
FIDInception, resize = inception.FIDInception, inception.resize

NOTHING: Any = (None, {}, "image")  # the dataset, facts and key, which the extractor does not use


def samples(*, channels: int = 3, size: int = 16) -> Tensor:
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_images_are_resized_as_in_tensorflow_1():
    ramp = torch.arange(4.0).reshape(1, 1, 1, 4).expand(1, 1, 4, 4)
    # output i is read at 4 i / 8; half-pixel centres would give 0, 0.25, 0.75 …; the last pixel is repeated
    assert resize(ramp, 8)[0, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    assert resize(ramp, 2)[0, 0, 0].tolist() == [0, 2]  # no antialias
    down = ramp.transpose(2, 3)
    assert_close(resize(down, 8), resize(ramp, 8).transpose(2, 3))
    image = samples(size=299)
    assert_close(resize(image, 299), image, rtol=0, atol=0)


@pytest.mark.parametrize("block", [BlockA(8, 4), BlockC(8, 4), BlockE(8)], ids=["A", "C", "E"])
def test_average_pooling_excludes_the_padding(block):
    block.branch_pool = nn.Identity()
    flat = torch.ones(1, 8, 5, 5)
    assert_close(block.eval()(flat)[:, -8:], flat)  # zeros of the padding would reduce the means at the borders


def test_the_last_block_uses_maximum_pooling():
    block = LastBlockE(8)
    block.branch_pool = nn.Identity()
    x = torch.randn(1, 8, 5, 5)
    assert_close(block.eval()(x)[:, -8:], F.max_pool2d(x, 3, stride=1, padding=1))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    network = FIDInception().eval()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return network


@pytest.fixture(scope="module")
def published(network, tmp_path_factory):
    """A file with the published keys: without counts of batches."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    weights = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(weights, path)
    return path


def test_names_and_counts_are_the_published_ones(network):
    keys = network.state_dict().keys()
    assert {
        "Conv2d_1a_3x3.conv.weight",
        "Mixed_5b.branch_pool.bn.running_var",
        "Mixed_7c.branch3x3dbl_3b.conv.weight",
        "fc.bias",
    } <= keys
    assert not any(key.startswith("AuxLogits") for key in keys)
    assert network.fc.weight.shape == (1008, 2048)
    assert network.Mixed_5b.branch_pool.conv.out_channels == 32
    assert sum(parameter.numel() for parameter in network.parameters()) == 23_850_960
    assert isinstance(network.Mixed_7b, BlockE)
    assert isinstance(network.Mixed_7c, LastBlockE)


def test_inception_of_a_file(network, published):
    extractor = image_extractors.inception(None, published, *NOTHING)
    images = samples(size=20)
    found = extractor(images)
    pixels = (images * 127.5 + 127.5).round()
    with torch.no_grad():
        features, logits = network(pixels)
        by_hand = nn.functional.linear(features, network.fc.weight, network.fc.bias) - network.fc.bias
    assert found.features.shape == (2, 2048)
    assert_close(found.features, features)
    assert_close(found.logits, logits)
    assert_close(logits, by_hand, atol=1e-4, rtol=1e-4)  # without bias
    assert extractor.protocol["weights"] == f"inception.pth ({hashlib.sha256(published.read_bytes()).hexdigest()[:12]})"
    assert "TensorFlow 1, no antialias, to 299x299" in extractor.protocol["resize"]
    assert {"extractor", "weights", "resize", "input", "dtype"} <= extractor.protocol.keys()


def test_a_file_without_the_last_layer_gives_no_logits(network, tmp_path):
    weights = {key: value for key, value in network.state_dict().items() if not key.startswith("fc.")}
    torch.save(weights, tmp_path / "features.pth")
    extractor = image_extractors.inception(None, tmp_path / "features.pth", *NOTHING)
    grey = samples(channels=1)
    found = extractor(grey)
    assert found.logits is None
    assert_close(found.features, network(to_pixels(grey).float())[0])
    assert extractor.protocol["logits"] == "none in the file"


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="does not fit FIDInception"):
        image_extractors.inception(None, tmp_path / "other.pth", *NOTHING)
    with pytest.raises(InputError, match=r"^the extractor `inception` takes no argument, but `v3` is given$"):
        image_extractors.inception("v3", None, *NOTHING)


def test_torchvision_is_required(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    message = r"^the extractor `inception` needs torchvision: pip install gan-core\[pictures\]$"
    with pytest.raises(MissingDependency, match=message):
        image_extractors.inception(None, None, *NOTHING)
