"""The report of an evaluation on disk: its numbers as JSON, and plots of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from ..errors import ExistsError, OutputError
from ..storage.atomic import refuse_existing
from ..storage.swap import replacing_together
from .canvas import save_image

REPORT, PLOTS = "evaluation.json", ("calibration.png", "confusion.png")  # the files of a report


class Reported(Protocol):
    """What a report can be written of."""

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""

    def drawn(self) -> dict[str, Image.Image]:
        """Plots, by the names of their files."""


def write_report(folder: Path, evaluation: Reported) -> list[Path]:
    """Write `evaluation.json`; of labels `calibration.png` and, where an image has one label, `confusion.png`.

    Args:
        folder: is made where it does not exist; an earlier report in it is replaced, all files together.
        evaluation: what to write.

    Returns:
        The files.

    Raises:
        OutputError: one of them cannot be written.
    """
    plots = evaluation.drawn()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.writing(folder, error) from error
    text = json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False)
    with replacing_together(folder / ".report", REPORT) as partial:
        for name, plot in plots.items():
            save_image(partial / name, plot)
        (partial / REPORT).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    for name in set(PLOTS) - plots.keys():
        (folder / name).unlink(missing_ok=True)  # of an earlier report of another kind
    return [folder / name for name in (*plots, REPORT)]


def check_report(folder: Path, force: bool) -> None:
    """Refuse to replace a report that is there, before any work is done.

    Raises:
        ExistsError: there is one, or no folder can be there, and ``force`` is not set.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise ExistsError(f"{folder} is no folder: name another")
    refuse_existing(*(folder / name for name in (REPORT, *PLOTS)), force=force)
