"""Feature extractors of images: classifiers of the data's labels, random networks, and published networks.

Each factory takes the argument and the weights of `--extractor NAME[:ARGUMENT] --weights FILE`, the real items, their
facts, and the key of the images. It returns an extractor for images `[B, C, H, W]` in [-1, 1]. Images are first
quantised to 8 bits, as in the published protocols, which read image files; grey is repeated to RGB. The `protocol`
describes everything that the features depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from gan_core.data import Batch, some
from gan_core.errors import CheckpointError, InputError, MissingDependency, unknown
from gan_core.measure.features import Extractor, Features, check_samples, take_no_options
from gan_core.measure.image_classifier import ImageClassifier, learn_image_classes
from gan_core.models.checkpoint import digest, load_state, read_published, sha256
from gan_core.models.pretrained import downloaded

INCEPTION = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
"""URL of the published weights, which equal those of torch-fidelity's `weights-inception-2015-12-05-6726825d.pth`."""

MAX_LEARNED = 20_000
"""Maximum number of images for training and testing the classifier of the data's labels."""

MAX_NORMALISED = 512
"""Maximum number of images for the normalisation statistics of the random network."""


class ImageExtractor(Extractor):
    """A network with its preprocessing.

    Args:
        name: name and argument in `--extractor`.
        network: the network; it is frozen, and moved to the device of the samples.
        prepare: converts uint8 pixels `[B, 3, H, W]` to the network's input.
        extract: returns the features `[B, D]` and the logits `[B, K]` (or None) of the network for its input.
        protocol: description of weights, preprocessing and features, by name.
        accuracy: accuracy of the logits on held-out real images, if they are for the data's classes.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        prepare: Callable[[Tensor], Tensor],
        extract: Callable[[Tensor], tuple[Tensor, Tensor | None]],
        protocol: Mapping[str, str],
        *,
        accuracy: float | None = None,
    ) -> None:
        self.name, self.accuracy = name, accuracy
        self.network, self.prepare, self.extract = network.eval().requires_grad_(False), prepare, extract
        self.protocol = {
            "extractor": name,
            **protocol,
            "input": "quantised to 8 bits, grey repeated to RGB",
            "dtype": "float32",
        }

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Features:
        self.network.to(samples.device)
        return Features(*self.extract(self.prepare(to_pixels(samples))))


def to_pixels(samples: Tensor) -> Tensor:
    """Converts images `[B, C, H, W]` in [-1, 1] to uint8 RGB, rounded as in image files.

    Raises:
        InputError: the samples are not images of 1 or 3 channels, or have non-finite values.
    """
    check_samples(samples, samples.ndim == 4 and samples.shape[1] in (1, 3), "images [B, 1 or 3, H, W]")
    return samples.float().clamp(-1, 1).add(1).mul(127.5).round().byte().expand(-1, 3, -1, -1)


def _scaled(pixels: Tensor) -> Tensor:
    """Converts uint8 pixels to [-1, 1]."""
    return pixels.float().div(127.5).sub(1)


def classifier(
    argument: str | None, weights: Path | None, dataset: Dataset[Batch], facts: Mapping[str, Any], key: str
) -> Extractor:
    """Returns a small classifier that is trained on the data's labels, at the size of the images.

    Its 64 features are the spatial means of the last convolution. They represent only what distinguishes the classes,
    so figures depend less on texture than with Inception, and are comparable only for the same data and image size.

    Raises:
        InputError: an argument or weights are given, or there are too few images.
    """
    take_no_options("classifier", "learns the data's labels", argument, weights)
    batch = some(dataset, MAX_LEARNED)
    images = batch[key].add(1).mul(127.5).round().byte()
    network, accuracy = learn_image_classes(images, batch["label"], num_classes=facts["num_classes"])
    protocol = {
        "weights": f"learnt on {len(images):,} images (tensors {digest(network.state_dict())}), "
        f"accuracy {accuracy:.4f} on held-out ones",
        "resize": "none",
        "scaling": "[-1, 1]",
        "features": f"means of the last convolution, {2 * network.width}",
    }

    def prepare(pixels: Tensor) -> Tensor:
        return _scaled(pixels[:, : images.shape[1]])

    return ImageExtractor("classifier", network, prepare, network.features, protocol, accuracy=accuracy)


def random(
    argument: str | None, weights: Path | None, dataset: Dataset[Batch], facts: Mapping[str, Any], key: str
) -> Extractor:
    """Returns convolutions with fixed random weights, for data without labels (Naeem et al. 2020, arXiv:2002.09797).

    A random network can distinguish sets of images outside the domain of pretrained networks. The architecture is that
    of `classifier` for RGB images; batch normalization uses statistics of at most 512 real images.

    Raises:
        InputError: an argument or weights are given.
    """
    take_no_options("random", "has fixed random weights", argument, weights)
    pixels = to_pixels(some(dataset, MAX_NORMALISED)[key])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = ImageClassifier(3, pixels.shape[-1], num_classes=1).convolutions
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # cumulative mean over all batches
        for part in torch.split(pixels, 64):
            network(_scaled(part))
    protocol = {
        "weights": f"random (tensors {digest(network.state_dict())}), normalised on {len(pixels):,} images",
        "resize": "none",
        "scaling": "[-1, 1]",
        "features": "means of the last convolution, 64",
    }

    def extract(prepared: Tensor) -> tuple[Tensor, None]:
        return network(prepared).mean(dim=(2, 3)), None

    return ImageExtractor("random", network, _scaled, extract, protocol)


def inception(
    argument: str | None, weights: Path | None, dataset: Dataset[Batch], facts: Mapping[str, Any], key: str
) -> Extractor:
    """Returns the Inception v3 network of FID: 2048 features, and 1008 logits (without bias) if the file has them.

    Raises:
        InputError: an argument is given.
        CheckpointError: the weights cannot be downloaded, or are those of another network.
        MissingDependency: torchvision is not installed.
    """
    _require_torchvision("inception")
    from gan_core.measure.inception import SIDE, FIDInception

    if argument is not None:
        raise InputError(f"the extractor `inception` takes no argument, but `{argument}` is given")
    file = weights or downloaded(INCEPTION, "6726825d")
    tensors = read_published(file)
    classifies = "fc.weight" in tensors
    with torch.device("meta"):  # all weights are replaced, so that their initialisation would be wasted
        network = FIDInception()
    network = network.to_empty(device="cpu")
    if not classifies:
        tensors |= {f"fc.{key}": value for key, value in network.fc.state_dict().items()}
    _load(network, tensors, file)

    def extract(pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = network(pixels)
        return features, logits if classifies else None

    protocol = {
        "weights": f"{file.name} ({sha256(file)[:12]})",
        "resize": f"bilinear as TensorFlow 1, no antialias, to {SIDE}x{SIDE}",
        "scaling": "(pixel - 128) / 128",
        "features": "pool3, 2048",
        "logits": "1008, without bias" if classifies else "none in the file",
    }
    return ImageExtractor("inception", network, lambda pixels: pixels, extract, protocol)


def torchvision(
    argument: str | None, weights: Path | None, dataset: Dataset[Batch], facts: Mapping[str, Any], key: str
) -> Extractor:
    """Returns a classifier of torchvision: the input and the output of its last linear layer.

    Args:
        argument: name of the classifier in torchvision.
        weights: file of its weights (default: torchvision's, which are downloaded).
        dataset: not used.
        facts: not used.
        key: not used.

    Raises:
        InputError: torchvision has no classifier of that name, or it does not end in a linear layer.
        CheckpointError: the weights cannot be downloaded, or are those of another network.
        MissingDependency: torchvision is not installed.
    """
    _require_torchvision("torchvision")
    from torchvision import models

    known = models.list_models(module=models)  # only classifiers
    if argument not in known:
        raise unknown("classifier of torchvision", argument or "", known, InputError)
    published = models.get_model_weights(argument).DEFAULT
    file = weights or downloaded(published.url, published.url.rpartition("-")[2].removesuffix(".pth"))
    network = models.get_model(argument, weights=None)  # not on `meta`, where RegNet cannot be built
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not layers or layers[-1].out_features != len(published.meta["categories"]):
        raise InputError(
            f"{argument} does not end in a linear layer, whose input would be the features; choose another"
        )
    _load(network, read_published(file), file)
    prepare = published.transforms()

    def extract(prepared: Tensor) -> tuple[Tensor, Tensor]:
        taken: list[Tensor] = []
        with layers[-1].register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0])):
            logits = network(prepared)
        return taken[-1].flatten(1), logits

    protocol = {
        "weights": f"{file.name} ({sha256(file)[:12]})",
        "resize": f"{prepare.interpolation.value} to {prepare.resize_size[0]}, antialias {prepare.antialias}, "
        f"centre {prepare.crop_size[0]}",
        "scaling": f"mean {list(prepare.mean)}, deviation {list(prepare.std)} on [0, 1]",
        "features": "before the last linear layer",
    }
    return ImageExtractor(f"torchvision:{argument}", network, prepare, extract, protocol)


def transformers(
    argument: str | None, weights: Path | None, dataset: Dataset[Batch], facts: Mapping[str, Any], key: str
) -> Extractor:
    """Returns a vision model of transformers: its pooled output, or else the CLS token.

    The CLS token is used if the weights do not include the pooling layer, which would then be random. If the model
    processes images and text, as CLIP does, only its vision model is used.

    Args:
        argument: repository or folder of the model.
        weights: must be None.
        dataset: not used.
        facts: not used.
        key: not used.

    Raises:
        MissingDependency: transformers is not installed.
        InputError: no model is named, or weights are given.
        CheckpointError: the model cannot be loaded, or lacks weights.
    """
    try:
        from transformers import AutoImageProcessor, AutoModel
    except ImportError as error:
        raise MissingDependency("the extractor `transformers` needs transformers: pip install transformers") from error
    if argument is None:
        raise InputError("name the model: transformers:REPOSITORY, or transformers:FOLDER")
    if weights is not None:
        raise InputError("`--weights` have no effect: a model of transformers includes its weights; omit them")
    try:
        network, report = AutoModel.from_pretrained(argument, use_safetensors=True, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(argument)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{argument}: no vision model that transformers can load ({reason})") from error
    network = getattr(network, "vision_model", network)
    missing = sorted(key.removeprefix("vision_model.") for key in report["missing_keys"])
    pooled = not any("pooler" in key for key in missing)
    if other := [key for key in missing if "pooler" not in key]:
        raise CheckpointError(
            f"{argument}: lacks {len(other)} weights of its network ({other[0]} …), which would be random; choose "
            "another model"
        )

    def prepare(pixels: Tensor) -> Tensor:
        found: Tensor = processor(images=list(pixels), return_tensors="pt", input_data_format="channels_first")[
            "pixel_values"
        ]
        return found.to(pixels.device)

    def extract(prepared: Tensor) -> tuple[Tensor, None]:
        found = network(pixel_values=prepared)
        output = getattr(found, "pooler_output", None) if pooled else None
        if output is None and found.last_hidden_state.ndim != 3:
            raise InputError(f"{argument} has neither a pooled output nor a CLS token; choose another model")
        return (found.last_hidden_state[:, 0] if output is None else output).flatten(1), None

    loaded = {name: tensor for name, tensor in network.state_dict().items() if name not in missing}
    names = ("size", "crop_size", "resample", "image_mean", "image_std")
    settings = {name: getattr(processor, name, None) for name in names}
    settings = {name: dict(value) if isinstance(value, Mapping) else value for name, value in settings.items()}
    protocol = {
        "weights": f"{argument} (tensors {digest(loaded)})",
        "resize": f"{settings['size']}, filter {settings['resample']}, centre {settings['crop_size']}",
        "scaling": f"mean {settings['image_mean']}, deviation {settings['image_std']}",
        "features": "pooled output, else the CLS token" if pooled else "the CLS token",
    }
    return ImageExtractor(f"transformers:{argument}", network, prepare, extract, protocol)


def _require_torchvision(name: str) -> None:
    """Checks that torchvision is installed.

    Raises:
        MissingDependency: it is not.
    """
    try:
        import_module("torchvision")
    except ImportError as error:
        raise MissingDependency(f"the extractor `{name}` needs torchvision: pip install gan-core[pictures]") from error


def _load(network: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Loads published weights. Batch counts of norms, which older files lack, are unused and set to 0."""
    counts = {key: value.zero_() for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
    load_state(network, counts | dict(tensors), {}, file)
