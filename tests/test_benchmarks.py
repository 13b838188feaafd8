"""The benchmarks' tables in the READMEs are what was recorded, of what there is today."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "tools" / "benchmarks"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a benchmark, or what benchmarks share, by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_the_table_of_costs_is_what_was_recorded_of_every_regularizer(tools: Any) -> None:
    benchmark, figures = tools("regularizers"), tools("_record").recorded("regularizers")
    assert list(figures) == list(benchmark.CASES)
    assert tools("_tables").shown("regularizers") == benchmark.table(figures)


def test_the_table_of_fashion_is_what_was_recorded_of_every_run(tools: Any) -> None:
    benchmark, figures = tools("fashion"), tools("_record").recorded("fashion")
    assert list(figures["runs"]) == list(benchmark.RUNS)
    assert tools("_tables").shown("fashion") == benchmark.table(figures)
