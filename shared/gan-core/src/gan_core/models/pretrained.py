"""Frozen pretrained networks of a game, such as the network of a perceptual loss or a text encoder.

Their weights are read from a file or downloaded when the game is built. They are never trained and never saved: model
folders and checkpoints only record their SHA-256.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from gan_core.data.downloads import data_home
from gan_core.errors import CheckpointError
from gan_core.models.checkpoint import load_state, read_published, sha256

DIGITS = re.compile(r"[0-9a-fA-F]{8,64}")
"""Pattern of a SHA-256, or of its first 8 or more hexadecimal digits."""


class Pretrained(nn.Module):
    """A frozen network with published weights, in evaluation mode; gradients pass through it to its input.

    Its weights are not in `state_dict`, and therefore not in checkpoints, model folders and averages. They are not read
    if the game is built on torch's `meta` device.

    Args:
        make: builds the network.
        weights: a file (safetensors, or a torch file of tensors), or the `https` URL of one, which is downloaded once.
        sha256: first digits of the file's SHA-256; required for a URL.
        select: converts the file's tensors to those of the network, for example by removing a prefix or the layers of a
            classifier's head (default: unchanged).

    Attributes:
        network: the network.
        sha256: SHA-256 of the file; empty on the `meta` device.

    Raises:
        CheckpointError: the file is missing, cannot be downloaded, has another SHA-256, or does not fit the network.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        weights: str | Path,
        *,
        sha256: str | None = None,
        select: Callable[[dict[str, Tensor]], Mapping[str, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.sha256 = make(), ""
        if torch.get_default_device().type != "meta":
            file, self.sha256 = find_weights(weights, sha256)
            tensors = read_published(file)
            load_state(self.network, tensors if select is None else select(tensors), {}, file)
        self.network.eval().requires_grad_(False)
        self.register_state_dict_post_hook(_leave_out)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_keep)  # type: ignore[no-untyped-call]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.network(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Keeps the network in evaluation mode."""
        return super().train(False)


def _leave_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    """Removes the helper's weights from a state dict."""
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]


def _keep(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Adds the helper's weights to a state dict before it is loaded, since saved ones lack them."""
    assert isinstance(module, Pretrained)
    state |= module.network.state_dict(prefix=f"{prefix}network.", keep_vars=True)


def helpers_of(module: nn.Module) -> dict[str, Pretrained]:
    """Returns the frozen helpers among a module's submodules, by name."""
    return {name: part for name, part in module.named_modules() if isinstance(part, Pretrained)}


def check_helpers(module: nn.Module, recorded: Mapping[str, str], where: object) -> None:
    """Checks that a game's helpers have the weights with which it was trained.

    Args:
        module: the game.
        recorded: SHA-256 of the weights, by name of the helper.
        where: file that records them, for messages.

    Raises:
        CheckpointError: a helper has other weights.
    """
    for name, helper in helpers_of(module).items():
        if helper.sha256 and recorded.get(name, helper.sha256) != helper.sha256:
            given = f"{where}: the game was trained with weights of `{name}` whose SHA-256 is {recorded[name]}"
            raise CheckpointError(f"{given}, but that of the given weights is {helper.sha256}; use the original file")


def find_weights(weights: str | Path, digest: str | None = None) -> tuple[Path, str]:
    """Returns a file of published weights, downloaded if it is a URL, and its SHA-256.

    Args:
        weights: a file, or the `https` URL of one.
        digest: first digits of its SHA-256.

    Raises:
        CheckpointError: the file is missing, cannot be downloaded, or has another SHA-256.
    """
    text = str(weights)
    if re.match(r"[a-z][a-z0-9+.-]+://", text):
        if not text.startswith("https://"):
            raise CheckpointError(
                f"{text}: weights are only downloaded by https; download the file yourself, and give its path"
            )
        if digest is None:
            raise CheckpointError(f"{text}: `sha256` is required for weights from a URL")
        if not DIGITS.fullmatch(digest):
            raise CheckpointError(f"{text}: `sha256` is {digest!r}; give at least 8 of its hexadecimal digits")
        file = downloaded(text, digest.lower())
        return file, sha256(file)
    file = Path(os.path.expanduser(text))
    if not file.is_file():
        expected = "" if digest is None else f" (its SHA-256 begins with {digest})"
        raise CheckpointError(f"{file}: there is no such weights file{expected}; put it there, or give its path")
    total = sha256(file)
    if digest is not None and not total.startswith(digest.lower()):
        raise CheckpointError(f"{file}: its SHA-256 is {total}, but should begin with {digest}; use the original file")
    return file, total


def downloaded(url: str, digest: str) -> Path:
    """Returns the path of a published file in the download folder, and downloads it if it is missing.

    Args:
        url: URL of the file.
        digest: first digits of its SHA-256.

    Raises:
        CheckpointError: the download failed, or the file has another SHA-256; the message says where to put the file.
    """
    file = data_home() / "weights" / PurePosixPath(urlsplit(url).path).name
    if digest[:8] not in file.name:  # many files have the same name, such as `model.safetensors`
        file = file.with_name(f"{file.stem}-{digest[:8]}{file.suffix}")
    if file.is_file() and sha256(file).startswith(digest):
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), hash_prefix=digest, progress=False)
    except (OSError, RuntimeError, HTTPException, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{url} cannot be downloaded; put {file.name} into {file.parent} by hand, or give the path of a file "
            f"({reason[:200]})"
        ) from error
    return file
