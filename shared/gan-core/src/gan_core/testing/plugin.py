"""Pytest plugin: test data through the fixture `shared_data`, and a folder of its own for what a session keeps."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Sets `GAN_DATA_HOME` to a new folder, so that no test depends on what earlier sessions learnt or downloaded.

    Parallel workers inherit the folder of their session. Importing onnxruntime does not report its use.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if not hasattr(config, "workerinput"):  # pytest-xdist's attribute of its workers
        folder = tempfile.TemporaryDirectory(prefix="gan-data-")
        config.add_cleanup(folder.cleanup)
        os.environ["GAN_DATA_HOME"] = folder.name


@pytest.fixture(scope="session")
def shared_data(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """Returns a function that finds a dataset by the name of its folder in `GAN_TEST_DATA`.

    If the folder is missing, the test is skipped, or fails if `GAN_TEST_DATA_REQUIRED` is 1.
    """
    root = Path(os.environ.get("GAN_TEST_DATA", pytestconfig.rootpath.parent / "shared" / "data"))

    def find(name: str) -> Path:
        folder = root / name
        if not folder.is_dir():
            missing = f"the test data `{name}` are not in GAN_TEST_DATA ({root})"
            if os.environ.get("GAN_TEST_DATA_REQUIRED") == "1":
                pytest.fail(missing)
            pytest.skip(missing)
        return folder

    return find
