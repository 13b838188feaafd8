"""Results of benchmarks: writing with a description of the machine, reading, and saving while a benchmark runs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def processor() -> str:
    """Returns the name of the processor, or the architecture if it is unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def record(name: str, figures: Mapping[str, Any], protocol: str) -> Path:
    """Writes `results/NAME.json` with the figures, the protocol, the date and the machine."""
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "gan-core": version("gan-core"),
    }
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    day = datetime.now(UTC).date().isoformat()
    document = {"benchmark": name, "date": day, "machine": machine, "protocol": protocol, "figures": figures}
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))
    print(f"written to {path}")
    return path


def recorded(name: str) -> dict[str, Any]:
    """Returns the figures in `results/NAME.json`."""
    figures: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["figures"]
    return figures


class Progress:
    """Results of a long benchmark, which are written to a file one by one, so that the benchmark can be continued.

    Args:
        path: file with one line per result; None does not save them.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
        self.found: dict[str, Any] = dict(json.loads(line) for line in lines)

    def take(self, name: str, measure: Callable[[], Any]) -> Any:
        """Returns the saved result of that name, or measures and saves it."""
        if name not in self.found:
            self.found[name] = json.loads(json.dumps(measure()))  # as it is read from the file
            print(name, json.dumps(self.found[name]), flush=True)
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([name, self.found[name]]) + "\n")
        return self.found[name]
