"""Helpers for tests of exported networks; they require the extra `onnx`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from gan_core.models.export import import_onnxruntime


def run_onnx(path: Path, **inputs: Tensor) -> list[Tensor]:
    """Returns the outputs of an ONNX file, computed by onnxruntime on the CPU."""
    onnxruntime = import_onnxruntime()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return [torch.from_numpy(output) for output in outputs]


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of an ONNX file."""
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
