"""Evaluation reports on disk: metrics as JSON, and charts as PNG."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from ..errors import ExistsError, OutputError
from ..storage.atomic import refuse_existing
from ..storage.swap import replacing_together

REPORT, CHARTS = "evaluation.json", ("calibration.png", "confusion.png")  # the files of a report


class Reported(Protocol):
    """An evaluation that a report can be written of."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""

    def charts(self) -> dict[str, bytes]:
        """PNG files by name."""


def write_report(folder: Path, evaluation: Reported) -> list[Path]:
    """Write `evaluation.json`; for labels also `calibration.png` and, with one label per image, `confusion.png`.

    Args:
        folder: is created if it does not exist; all files of an earlier report in it are replaced together.
        evaluation: from `evaluate_labels` or `evaluate_retrieval`.

    Returns:
        The paths of the files.

    Raises:
        OutputError: a file cannot be written.
    """
    charts = evaluation.charts()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.writing(folder, error) from error
    text = json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False)
    with replacing_together(folder / ".report", REPORT) as partial:
        for name, chart in charts.items():
            (partial / name).write_bytes(chart)
        (partial / REPORT).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    for name in set(CHARTS) - charts.keys():
        (folder / name).unlink(missing_ok=True)  # of an earlier report of another kind
    return [folder / name for name in (*charts, REPORT)]


def check_report(folder: Path, force: bool) -> None:
    """Refuse to replace a report, before any work is done.

    Raises:
        ExistsError: ``folder`` is a file, or holds a report and ``force`` is not set.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise ExistsError(f"{folder} is not a folder: name another")
    refuse_existing(*(folder / name for name in (REPORT, *CHARTS)), force=force)
