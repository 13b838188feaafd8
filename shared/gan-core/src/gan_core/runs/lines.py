"""Reading of untrusted JSON lines in a run folder: `log.jsonl`, `evaluations.jsonl`, `rollbacks.jsonl`.

A killed process may leave an incomplete line, and a file may be damaged anywhere. Lines that are not JSON objects with
a step are skipped, so that runs can still be resumed and reports can still be written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

EVALUATION, DIAGNOSTICS = "evaluation", "diagnostics"
"""Values of `phase` in lines of the log for evaluations and for diagnostics of samples."""
MEASURED = "evaluations.jsonl"
"""Name of the file in a run folder with evaluations of the trained model."""
LOST_LINES = 20
"""Maximum number of log lines kept in the record of a rollback."""
MAX_LINE = 1 << 20
"""Maximum length of a line, in bytes. A longer line is treated as several damaged lines."""
MAX_STEP = 10**12
"""Upper bound of steps."""


class Lines:
    """The valid lines of a file.

    Attributes:
        damaged: number of lines skipped so far.

    Args:
        path: the file; None or a missing file has no lines.
        stride: only every `stride`-th line is read.
    """

    def __init__(self, path: Path | None, stride: int = 1):
        self.path, self.stride, self.damaged = path, stride, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.path is None or not self.path.is_file():
            return
        with self.path.open("rb") as file:
            for source in islice(iter(lambda: file.readline(MAX_LINE), b""), 0, None, self.stride):
                line = parse_line(source)
                if line is not None:
                    yield line
                elif source.strip():
                    self.damaged += 1


def parse_line(source: bytes) -> dict[str, Any] | None:
    """Returns a line as a dictionary with an integer `step`, or None if it is damaged."""
    try:
        line = json.loads(source)
        step = int(line["step"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return {**line, "step": step} if isinstance(line, dict) and 0 <= step < MAX_STEP else None
