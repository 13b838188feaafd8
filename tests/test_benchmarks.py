"""Benchmarks: every case has a recorded result, and the pages of results show the recorded figures."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "tools" / "benchmarks"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a benchmark, or what benchmarks share, by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_every_regularizer_has_a_recorded_cost(tools: Any) -> None:
    benchmark, figures = tools("regularizers"), tools("_record").recorded("regularizers")
    assert list(figures) == list(benchmark.CASES)


def test_every_objective_and_regularizer_has_a_recorded_result(tools: Any) -> None:
    benchmark, figures = tools("matrix"), tools("_record").recorded("matrix")
    assert list(figures) == [" ".join(cell) for cell in benchmark.cells()]


def test_refusals_in_the_matrix_have_the_current_messages(tools: Any) -> None:
    benchmark, figures = tools("matrix"), tools("_record").recorded("matrix")
    said = {cell: figures[" ".join(cell)].get("refused") for cell in benchmark.cells()}
    assert said == {cell: benchmark.refusal(*cell) for cell in benchmark.cells()}


def test_the_pages_of_results_show_the_recorded_figures(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "docs"))
    for path, text in tools("_results").pages().items():
        assert (ROOT / "shared" / "docs" / path).read_text("utf-8") == text, path


def test_the_table_of_fashion_shows_the_recorded_result_of_every_run(tools: Any) -> None:
    benchmark, figures = tools("fashion"), tools("_record").recorded("fashion")
    assert list(figures["runs"]) == list(benchmark.RUNS)


def test_the_tables_of_modes_show_the_recorded_result_of_every_method(tools: Any) -> None:
    benchmark, figures = tools("modes"), tools("_record").recorded("modes")
    assert {name: list(ways) for name, ways in figures.items()} == {
        name: list(table.methods) for name, table in benchmark.TABLES.items()
    }


def test_the_table_of_the_doctor_shows_the_recorded_result(tools: Any) -> None:
    benchmark, figures = tools("doctor"), tools("_record").recorded("doctor")
    assert list(figures["cases"]) == list(benchmark.CASES)


def test_the_table_of_resynthesis_shows_the_recorded_result_of_both_vocoders(tools: Any) -> None:
    benchmark, figures = tools("resynthesis"), tools("_record").recorded("resynthesis")
    assert {system: list(found["kept_back"]) for system, found in figures.items()} == {
        system: [str(stage) for stage in benchmark.STAGES] for system in benchmark.SYSTEMS
    }


def test_the_table_of_spoken_digits_shows_the_recorded_result_of_both_runs(tools: Any) -> None:
    benchmark, figures = tools("spoken"), tools("_record").recorded("spoken")
    assert list(figures) == list(benchmark.RUNS)


def test_the_table_of_vocoding_shows_the_recorded_result_of_every_case(tools: Any) -> None:
    benchmark, figures = tools("vocoding"), tools("_record").recorded("vocoding")
    assert list(figures) == list(benchmark.CASES)


def test_the_table_of_memory_layouts_shows_the_recorded_result_of_every_case(tools: Any) -> None:
    benchmark, figures = tools("layout"), tools("_record").recorded("layout")
    assert list(figures) == list(benchmark.CASES)


def test_the_tables_of_translation_show_the_recorded_results(tools: Any) -> None:
    benchmark, figures = tools("translation"), tools("_record").recorded("translation")
    assert list(figures["nuclei"]["runs"]) == list(benchmark.RUNS)
    assert list(figures["digits"]) == [str(seed) for seed in range(benchmark.SEEDS)]
    assert list(figures["step"]) == [str(width) for width in benchmark.WIDTHS]


def test_the_best_levels_of_a_translation_have_the_highest_mean_psnr(tools: Any) -> None:
    benchmark = tools("translation")
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(8, 1, 16, 16, generator=generator).round() * 2 - 1
    brightness, noise = torch.rand(8, 1, 1, 1, generator=generator), torch.randn(mask.shape, generator=generator)
    image = (mask * brightness * 0.3 - 0.5) + 0.02 * noise

    def mean_error(levels: torch.Tensor) -> float:
        error: torch.Tensor = (benchmark.paint(levels, mask) - image).square().flatten(1).mean(dim=1).log().mean()
        return error.item()

    best = benchmark.best_levels(mask, image)
    assert mean_error(best) < mean_error(benchmark.class_means(mask, image)) - 0.01
    for change in torch.tensor([[0.003, 0.0], [-0.003, 0.0], [0.0, 0.003], [0.0, -0.003]]):
        assert mean_error(best) < mean_error(best + change)
