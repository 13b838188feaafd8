"""Checks of the entry point and the public functions of a domain package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points

from gan_core.domain import Domain

OFFERS = ("create", "evaluate", "load", "load_reference", "open_data", "resume", "train")
"""Functions of every domain package."""


def check_domain(domain: Domain, systems: Sequence[str]) -> None:
    """Checks a package's entry point, public functions, imports and list of systems.

    Args:
        domain: the package's domain.
        systems: names of its systems, in order.

    Raises:
        AssertionError: a check fails.
    """
    (point,) = entry_points(group="gan.domains", name=domain.name)
    assert point.load() is domain
    package = import_module(domain.package)
    assert package.DOMAIN is domain
    for name in OFFERS:
        assert getattr(package, name).__self__.domain is domain, f"{domain.package}.{name} belongs to another domain"
    code = f"import sys, {domain.package}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0, f"importing {domain.package} imports torch"
    assert list(domain.systems) == list(systems)
