"""A pytest plugin: real data for the tests that need it, found through `GAN_TEST_DATA`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """Finds a data set by the name of its folder in `GAN_TEST_DATA`.

    The test is skipped by that name where it is absent, and fails where `GAN_TEST_DATA_REQUIRED` is 1.
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
