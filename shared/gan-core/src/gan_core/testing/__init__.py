"""Helpers for the tests of all packages: conformance fixtures, and contracts of systems and domains.

`gan_core.testing.plugin` is a pytest plugin with the fixture `shared_data`.
"""

from gan_core.testing.conformance import Adapter, Fixture, find_fixtures, run_fixture
from gan_core.testing.contract import check_contract
from gan_core.testing.domain import check_domain
from gan_core.testing.measuring import measured

__all__ = ["Adapter", "Fixture", "check_contract", "check_domain", "find_fixtures", "measured", "run_fixture"]
