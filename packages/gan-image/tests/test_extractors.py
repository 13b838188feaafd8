"""Extractors: what makes FID's Inception different, and that each reads its weights and says how it was run."""

import hashlib
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from gan_core.cards import resolve
from gan_core.data import ImageSpec, some
from gan_core.errors import CheckpointError, InputError, MissingDependency
from gan_core.measure.features import Extractor
from gan_core.measure.metrics import Moments, frechet_distance
from gan_image import extractors
from gan_image.data import load_digits
from gan_image.extractors import ImageExtractor, downloaded, to_pixels
from gan_image.inception import BlockA, BlockC, BlockE, FIDInception, LastBlockE, resize
from gan_image.metrics import EXTRACTORS


def samples(*, channels: int = 3, size: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_embedded_extractors_learn_the_images_of_any_key():
    items = {"image": samples(channels=1), "target": samples(channels=1, seed=1)}
    assert torch.equal(extractors._images(items), items["image"])
    assert torch.equal(extractors._images({"source": samples(seed=2)} | {"target": items["target"]}), items["target"])
    own = {"grey": samples(channels=1), "colour": samples(), "label": torch.arange(2)}
    assert torch.equal(extractors._images(own), own["colour"])


# --- Inception


def test_resizing_is_tensorflows():
    ramp = torch.arange(4.0).reshape(1, 1, 1, 4).expand(1, 1, 4, 4)
    # output i looks at 4 i / 8; half-pixel centres would give 0, 0.25, 0.75 …; after the last pixel it is repeated
    assert resize(ramp, 8)[0, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    assert resize(ramp, 2)[0, 0, 0].tolist() == [0, 2]  # no antialias
    down = ramp.transpose(2, 3)
    assert_close(resize(down, 8), resize(ramp, 8).transpose(2, 3))
    image = samples(size=299)
    assert_close(resize(image, 299), image, rtol=0, atol=0)


@pytest.mark.parametrize("block", [BlockA(8, 4), BlockC(8, 4), BlockE(8)], ids=["A", "C", "E"])
def test_average_pooling_counts_no_padding(block):
    block.branch_pool = nn.Identity()
    flat = torch.ones(1, 8, 5, 5)
    assert_close(block.eval()(flat)[:, -8:], flat)  # padding that counts would darken the borders


def test_the_last_block_takes_the_maximum():
    block = LastBlockE(8)
    block.branch_pool = nn.Identity()
    x = torch.randn(1, 8, 5, 5)
    assert_close(block.eval()(x)[:, -8:], F.max_pool2d(x, 3, stride=1, padding=1))


@pytest.fixture(scope="module")
def network() -> FIDInception:
    torch.manual_seed(0)
    network = FIDInception().eval()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return network


@pytest.fixture(scope="module")
def published(network, tmp_path_factory):
    """The weights as they are published: without counts of batches."""
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
    extractor = extractors.inception(None, published, None, {})
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
    extractor = extractors.inception(None, tmp_path / "features.pth", None, {})
    grey = samples(channels=1)
    found = extractor(grey)
    assert found.logits is None
    assert_close(found.features, network(to_pixels(grey).float())[0])
    assert extractor.protocol["logits"] == "none in the file"


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="does not fit FIDInception"):
        extractors.inception(None, tmp_path / "other.pth", None, {})
    with pytest.raises(InputError, match="takes no argument"):
        extractors.inception("v3", None, None, {})


def test_samples_are_quantised_and_grey_is_repeated():
    assert (
        to_pixels(torch.tensor([-2.0, -1.0, 0.001, 1.0]).reshape(1, 1, 1, 4))[0, :, 0].tolist()
        == [[0, 0, 128, 255]] * 3
    )
    with pytest.raises(InputError, match="takes images"):
        to_pixels(torch.zeros(2, 2))
    with pytest.raises(InputError, match="not finite"):
        to_pixels(torch.full((1, 1, 2, 2), torch.nan))


# --- downloads


def test_downloads_are_checked_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_DATA_HOME", str(tmp_path / "home"))
    (tmp_path / "there.pth").write_bytes(b"weights")
    url, digest = (tmp_path / "there.pth").as_uri(), hashlib.sha256(b"weights").hexdigest()[:8]
    file = downloaded(url, digest)
    assert file == tmp_path / "home" / "weights" / f"there-{digest}.pth"
    (tmp_path / "there.pth").unlink()
    assert downloaded(url, digest).read_bytes() == b"weights"  # with no second download
    with pytest.raises(CheckpointError, match=r"put there-00000000.pth into .* by hand, or give the path of a file"):
        downloaded(url, "00000000")


# --- torchvision


def test_a_classifier_of_torchvision(tmp_path):
    from torchvision import models

    torch.manual_seed(0)
    network = models.resnet18(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    extractor = extractors.torchvision("resnet18", tmp_path / "resnet18.pth", None, {})
    images = samples(size=40)
    found = extractor(images)
    prepare = models.ResNet18_Weights.DEFAULT.transforms()
    with torch.no_grad():
        logits = network(prepare(to_pixels(images)))
    assert found.features.shape == (2, 512)
    assert_close(found.logits, logits)
    assert_close(network.fc(found.features), logits)
    assert "bilinear to 256" in extractor.protocol["resize"]
    assert "0.485" in extractor.protocol["scaling"]


def test_what_torchvision_has_not_is_refused():
    with pytest.raises(InputError, match=r"unknown classifier of torchvision `resnet19`; did you mean"):
        extractors.torchvision("resnet19", None, None, {})


# --- a random network


def test_random_features_tell_changed_images_from_the_data(tmp_path):
    source = load_digits()
    dataset = source.fit(ImageSpec(image_size=16, channels=1))
    extractor = extractors.random(None, None, dataset, source.facts)
    real = some(dataset, 600)["image"]
    features, logits = extractor(real)
    assert (features.shape, logits) == ((600, 64), None)
    again = extractors.random(None, None, dataset, source.facts)
    assert torch.equal(again(real).features, features)
    assert again.protocol == extractor.protocol

    def distance(images):
        return frechet_distance(Moments.of(features[300:].numpy()), Moments.of(extractor(images).features.numpy()))

    chance, blurred = distance(real[:300]), distance(nn.functional.avg_pool2d(real[:300], 3, 1, 1))
    assert 5 * chance < blurred < distance(torch.zeros_like(real[:300]))
    with pytest.raises(InputError, match="takes no argument"):
        extractors.random("x", None, dataset, source.facts)


# --- the classifier of the data's own labels


@pytest.mark.parametrize("channels", [1, 3])
def test_the_embedded_classifier_tells_the_datas_classes(channels):
    from gan_image.data import load_digits

    source = load_digits()
    dataset = source.fit(ImageSpec(image_size=8, channels=channels))
    extractor = extractors.classifier(None, None, dataset, source.facts)
    images = dataset.tensors["image"][:200].float() / 127.5 - 1
    found = extractor(images)
    assert found.features.shape == (200, 64)
    assert (found.logits.argmax(1) == dataset.tensors["label"][:200]).float().mean() > 0.98
    again = extractors.classifier(None, None, dataset, source.facts)
    assert again.protocol == extractor.protocol  # the same weights every time
    assert_close(again(images).features, found.features, rtol=0, atol=0)
    with pytest.raises(InputError, match="takes no argument"):
        extractors.classifier("x", None, dataset, source.facts)


# --- transformers


@pytest.fixture
def vit(tmp_path, monkeypatch):
    """A tiny vision transformer, saved with a pooling layer and without."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=16, patch_size=8
    )
    torch.manual_seed(0)
    for name, pooling in (("pooled", True), ("bare", False)):
        model = transformers.ViTModel(config, add_pooling_layer=pooling).eval()
        model.save_pretrained(tmp_path / name)
        size = {"height": 16, "width": 16}
        transformers.ViTImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained(
            tmp_path / name
        )
    return tmp_path


@pytest.mark.parametrize("name", ["pooled", "bare"])
def test_a_vision_model_of_transformers(vit, name):
    from transformers import ViTModel

    extractor = extractors.transformers(str(vit / name), None, None, {})
    images = samples()
    found = extractor(images)
    network = ViTModel.from_pretrained(vit / name, add_pooling_layer=name == "pooled").eval()
    with torch.no_grad():
        output = network((to_pixels(images) / 255 - 0.5) / 0.25)
    expected = output.pooler_output if name == "pooled" else output.last_hidden_state[:, 0]
    assert_close(found.features, expected, atol=1e-5, rtol=1e-5)
    assert found.logits is None
    assert "0.25" in extractor.protocol["scaling"]
    where = {"pooled": "pooled output, else the CLS token", "bare": "the CLS token"}
    assert extractor.protocol["features"] == where[name]
    torch.manual_seed(1)  # a pooling layer that the file lacks is random, and must not count
    assert extractors.transformers(str(vit / name), None, None, {}).protocol == extractor.protocol


def test_of_a_model_of_images_and_words_the_images_half_is_taken(vit):
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, ViTImageProcessor

    tiny = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**tiny, image_size=16, patch_size=8).to_dict()
    words = {**tiny, "vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    model = CLIPModel(CLIPConfig(text_config=words, vision_config=vision, projection_dim=4)).eval()
    model.save_pretrained(vit / "clip")
    ViTImageProcessor.from_pretrained(vit / "bare").save_pretrained(vit / "clip")
    images = samples()
    with torch.no_grad():
        expected = model.vision_model((to_pixels(images) / 255 - 0.5) / 0.25).pooler_output
    found = extractors.transformers(str(vit / "clip"), None, None, {})(images)
    assert_close(found.features, expected, atol=1e-5, rtol=1e-5)


def test_transformers_requests_that_cannot_be_met(vit, monkeypatch):
    with pytest.raises(CheckpointError, match="no vision model that transformers can load"):
        extractors.transformers(str(vit), None, None, {})
    with pytest.raises(InputError, match="name the model"):
        extractors.transformers(None, None, None, {})
    with pytest.raises(InputError, match="brings its own"):
        extractors.transformers(str(vit / "bare"), vit / "x.pth", None, {})
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependency, match=r"pip install gan-image\[transformers\]"):
        extractors.transformers("x", None, None, {})


def test_every_name_leads_to_a_factory():
    assert all(callable(resolve(card.make)) for card in EXTRACTORS)
    assert issubclass(ImageExtractor, Extractor)
