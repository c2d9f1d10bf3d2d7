"""`mlx-aimv2 bench`: speed and memory on this machine."""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..benchmarking.options import BenchOptions
from ..checkpoints.load_options import MODEL_HELP
from ..errors import InputError
from ..events import Progress
from ..messages import duration, size
from ..options.fields import like, option
from ..presets import DEFAULT_MODEL
from .completion import DTYPES, checkpoints, choices
from .guard import ALL_DONE, NOT_ALL_DONE, verb
from .jobs import End, saving
from .model_options import DeviceOptions, JsonOptions
from .output import put, say
from .screen import screen
from .tables import table

if TYPE_CHECKING:
    from ..benchmarking.forward import Cell
    from ..benchmarking.report import Report

UNIT = "measurements"
UNEVEN = 1.5  # the slowest run over the fastest one: other programs may compute too


@dataclass(frozen=True)
class MeasuringOptions(BenchOptions):
    """What to measure."""

    dtypes: tuple[str, ...] = like(BenchOptions, "dtypes", autocompletion=choices(DTYPES))


@dataclass(frozen=True)
class BenchOutput(JsonOptions):
    """The model, and where results go."""

    model: str = option(
        DEFAULT_MODEL,
        f"{MODEL_HELP} Published ones are not downloaded: weights are random.",
        flags=("--model", "-m"),
        autocompletion=checkpoints,
    )
    plot: Path | None = option(None, "File (.png) for a chart of speed and memory.", metavar="FILE")
    force: bool = option(False, "Replace what --plot names.")

    def check(self) -> None:
        """Check the file before anything is measured.

        Raises:
            InputError: it is no .png file, or exists.
        """
        from ..storage.atomic import refuse_existing

        if self.plot is None:
            if self.force:
                raise InputError("--force needs --plot")
            return
        if self.plot.suffix.lower() != ".png":
            raise InputError(f"--plot writes PNG: name a .png file, not {self.plot}")
        if not self.plot.parent.is_dir():
            raise InputError(f"--plot {self.plot}: there is no folder {self.plot.parent}")
        refuse_existing(self.plot, force=self.force)


@verb
def bench(options: MeasuringOptions, output: BenchOutput, device: DeviceOptions) -> None:
    """Measure this machine: images per second and memory by dtype, bits and batch size, and decoding."""
    from ..backend.device import require_mlx

    output.check()
    require_mlx()
    from ..benchmarking.run import Plan

    device.use_device()
    with screen() as events:
        plan = Plan.of(output.model, options, events)
        report = plan.report
        say(_introduction(report))

        def finish(end: End) -> None:
            events.close()
            _show(report, output)
            say(f"{_summary(report, len(plan))} in {duration(events.seconds)}{end.value}")

        events(Progress("measured", 0, len(plan), UNIT))
        with saving(finish) as lock:
            for number, result in enumerate(plan.results(events), 1):
                with lock:
                    report = report.with_result(result)
                    events(Progress("measured", number, len(plan), UNIT))
    failed = events.skipped or any(cell.error for cell in report.cells)
    raise SystemExit(NOT_ALL_DONE if failed else ALL_DONE)


def _introduction(report: Report) -> str:
    """What is measured, and on what."""
    architecture, machine, (height, width) = report.architecture, report.machine, report.image_size
    where = f"the {machine.device.upper()} ({machine.device_name})"
    blas = f", BLAS {machine.blas_name}" if machine.device == "cpu" else ""
    return (
        f"{architecture.name}: {architecture.parameters / 1e6:.0f} M weights (random: speed does not depend on their"
        f" values), images of {width} x {height} pixels, on {where}{blas}"
    )


def _summary(report: Report, total: int) -> str:
    """How many results there are of each kind."""
    cells = report.cells
    counts = {
        "left out": sum(cell.left_out is not None for cell in cells),
        "failed": sum(cell.error is not None for cell in cells),
    }
    measured = len(cells) + len(report.decodings) - sum(counts.values())
    others = "".join(f", {count} {kind}" for kind, count in counts.items() if count)
    return f"measured {measured} of {total}{others}"


def _show(report: Report, output: BenchOutput) -> None:
    """Print the results that there are, then write the chart; if that fails, the results are printed."""
    if output.json:
        put(jsonlib.dumps(report.to_dict(), indent=2))
    else:
        _print_tables(report)
    if output.plot is not None and report.cells:
        from ..benchmarking.chart import draw_report
        from ..storage.atomic import replacing

        with replacing(output.plot) as partial:
            partial.write_bytes(draw_report(report))
        say(f"wrote {output.plot}")


def _print_tables(report: Report) -> None:
    """Print the tables and the line to paste; notes go to stderr."""
    in_pipe = not sys.stdout.isatty()  # a table drawn on a terminal ends with an empty line
    if report.cells:
        headers = ("dtype", "bits", "batch", "images/s", "ms/batch", "memory", "note")
        table(headers, [_row(cell, cell is report.best) for cell in report.cells])
    if report.decodings:
        if in_pipe:
            put("")
        rows = [
            (x.mode, f"{x.images_per_second:.1f}", str(x.threads), _rate(report.end_to_end(x)))
            for x in report.decodings
        ]
        table(("decoding", "images/s", "threads", "with computing"), rows)
    if report.line is not None:
        if in_pipe:
            put("")
        put(report.line)
    if any(cell.peak_bytes for cell in report.cells):
        say("memory: the most that MLX held at once, weights included")
    if (limit := report.limit()) is not None:
        say(f"{limit} (decoded: {report.photos})")


def _row(cell: Cell, is_best: bool) -> tuple[str, ...]:
    setting = cell.setting
    timing = cell.timing
    notes = [*(["best"] if is_best else []), *([cell.error] if cell.error else [])]
    if cell.left_out:
        notes.append(f"left out: {cell.left_out}")
    if timing and timing.slowest > UNEVEN * timing.fastest:
        notes.append(f"uneven: {1000 * timing.fastest:.1f} to {1000 * timing.slowest:.1f} ms")
    return (
        setting.dtype,
        "–" if setting.bits is None else str(setting.bits),
        str(setting.batch_size),
        _rate(cell.images_per_second),
        f"{1000 * timing.median:.1f}" if timing else "",
        size(cell.peak_bytes) if cell.peak_bytes else "",
        ", ".join(notes),
    )


def _rate(images_per_second: float | None) -> str:
    return "" if images_per_second is None else f"{images_per_second:.2f}"
