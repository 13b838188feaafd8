"""Pytest plugin with the fixture `shared_data`, which locates test data through `GAN_TEST_DATA`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


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
