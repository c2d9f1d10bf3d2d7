"""Write the drawn images with captions and labels to a folder: training, validation, zero-shot, retrieval."""

from __future__ import annotations

import contextlib
import csv
import json
import multiprocessing
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mlx_aimv2.errors import OutputError
from mlx_aimv2.events import OnEvent, Progress, warn
from mlx_aimv2.storage.atomic import new_folder

from .examples import (
    Example,
    close_up_examples,
    recolored_examples,
    retrieval_examples,
    training_examples,
    zero_shot_examples,
)
from .painting import LARGEST, SMALLEST, Conditions
from .parent_process import end_with_parent
from .ranges import check_range
from .scenes import LABELS

STAGE = "drawing"
CHUNK = 250  # images per progress event
PER_FOLDER = 1000
NUMBERED = "{folder:03d}/{index:06d}.png"
COMPRESSION = 1  # of PNG: noise hardly compresses
MOST = 10_000_000

Job = tuple[str, Example]  # path relative to the folder, example


@dataclass(frozen=True)
class WorldOptions:
    """Options of ``write_world``.

    Attributes:
        train: number of training images.
        close_ups: number of close-ups, half as wide and high, for the first stages of training.
        recolored: number of images with grounds and things in random colours, for the last stages of training.
        val: number of validation images.
        zero_shot: number of images of held-out shapes and colours, sorted by label.
        retrieval: number of images with held-out combinations and full captions.
        side: width and height of a whole image in pixels.
        seed: of everything except the held-out combinations.
        conditions: the difficulty of the images.

    Raises:
        InputError: a number is out of range.
    """

    train: int = 60_000
    close_ups: int = 60_000
    recolored: int = 20_000
    val: int = 1_000
    zero_shot: int = 2_000
    retrieval: int = 1_000
    side: int = 112
    seed: int = 0
    conditions: Conditions = field(default_factory=Conditions)

    def __post_init__(self) -> None:
        for name in ("train", "close_ups", "recolored", "val", "zero_shot", "retrieval"):
            check_range(name, getattr(self, name), int(name == "train"), MOST)
        check_range("side", self.side, SMALLEST, LARGEST)


def write_world(
    folder: Path,
    options: WorldOptions = WorldOptions(),
    processes: int | None = None,
    on_event: OnEvent = warn,
) -> Path:
    """Draw all images into a folder, which appears when it is complete, and return the folder.

    - `captions.jsonl`: path, caption and split (train, val) of the images in `train/` and `val/`.
    - `names.jsonl`: the same of the images in `recolored/`, of as many in `train/` (of all if none is recolored), and
      of `val/`. Captions do not mention random colours, and mostly name one kind of thing by shape and colour only.
    - `close_ups/shapes.csv`, `close_ups/captions.jsonl`: path and label (a shape) or caption of each close-up.
    - `labels.txt`: all 120 labels, one per line.
    - `zeroshot/`: a folder for each held-out label, such as `red triangle/0000.png`.
    - `retrieval/captions.csv`: path and caption of each image in the folder.

    The files do not depend on the number of processes. These are spawned, so a script has to call this function under
    `if __name__ == "__main__":` unless ``processes`` is 1.

    Args:
        folder: the folder to write; it must not exist.
        options: number and size of images.
        processes: number of processes; None for the number of processors.
        on_event: called with progress.

    Raises:
        InputError: the number of processes is less than 1.
        OutputError: the folder exists or cannot be written, or a process ended early.
    """
    processes = processor_count() if processes is None else processes
    check_range("processes", processes, 1, 1024)
    with new_folder(folder) as unfinished:
        train = _jobs(f"train/{NUMBERED}", training_examples(options.train, options.seed))
        val = _jobs(f"val/{NUMBERED}", training_examples(options.val, options.seed, "val"))
        recolored = _jobs(f"recolored/{NUMBERED}", recolored_examples(options.recolored, options.seed))
        close_ups = _jobs(f"close_ups/{NUMBERED}", close_up_examples(options.close_ups, options.seed))
        zero_shot = _jobs(
            "zeroshot/{caption}/{index:04d}.png", zero_shot_examples(options.zero_shot, options.seed)
        )
        retrieval = _jobs("retrieval/{index:04d}.png", retrieval_examples(options.retrieval, options.seed))
        jobs = [*train, *val, *recolored, *close_ups, *zero_shot, *retrieval]
        _draw(unfinished, jobs, options, processes, on_event)
        _write_captions(unfinished / "captions.jsonl", train, val)
        named = _named(train[: len(recolored)] if recolored else train)
        _write_captions(unfinished / "names.jsonl", [*recolored, *named], _named(val))
        _write_close_ups(unfinished / "close_ups", close_ups)
        (unfinished / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
        rows = [(Path(name).name, example.caption) for name, example in retrieval]
        _write_table(unfinished / "retrieval" / "captions.csv", ("path", "caption"), rows)
    return folder


def _named(jobs: Sequence[Job]) -> list[Job]:
    return [(name, example.named()) for name, example in jobs]


def _jobs(pattern: str, examples: Iterable[Example]) -> list[Job]:
    return [
        (pattern.format(index=index, folder=index // PER_FOLDER, caption=example.caption), example)
        for index, example in enumerate(examples)
    ]


def _draw(
    folder: Path, jobs: Sequence[Job], options: WorldOptions, processes: int, on_event: OnEvent
) -> None:
    """Write all images in chunks, and report progress."""
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    draw_chunk = partial(_draw_chunk, folder, options.side, options.conditions)
    done = 0
    on_event(Progress(STAGE, done, len(jobs)))
    with contextlib.closing(_counts(draw_chunk, chunks, processes)) as counts:
        for count in counts:
            done += count
            on_event(Progress(STAGE, done, len(jobs)))


def _counts(
    draw_chunk: partial[int], chunks: Sequence[Sequence[Job]], processes: int
) -> Generator[int, None, None]:
    """Draw all chunks; yield the number of images of each when it is done."""
    if min(processes, len(chunks)) == 1:
        yield from map(draw_chunk, chunks)
        return
    spawn = multiprocessing.get_context("spawn")  # threads of MLX do not survive a fork
    with ProcessPoolExecutor(min(processes, len(chunks)), spawn, end_with_parent) as pool:
        try:
            for future in as_completed([pool.submit(draw_chunk, chunk) for chunk in chunks]):
                yield future.result()
        except BrokenProcessPool as error:
            raise OutputError(
                "a process that draws images ended early: it was killed, perhaps for lack of memory, or the script"
                ' does not call write_world under `if __name__ == "__main__":` (processes=1 needs no other process)'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _draw_chunk(folder: Path, side: int, conditions: Conditions, jobs: Sequence[Job]) -> int:
    """Write images and return their number."""
    for name, example in jobs:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        example.image(side, conditions).save(path, compress_level=COMPRESSION)
    return len(jobs)


def _write_captions(path: Path, train: Sequence[Job], val: Sequence[Job]) -> None:
    rows = (
        {"path": name, "caption": example.caption, "split": split}
        for split, jobs in (("train", train), ("val", val))
        for name, example in jobs
    )
    _write_lines(path, rows)


def _write_close_ups(folder: Path, jobs: Sequence[Job]) -> None:
    """Write the two tables of close-ups, with paths relative to their folder."""
    named = [(name.partition("/")[2], example) for name, example in jobs]
    shapes = [(name, example.scene.thing.shape) for name, example in named]
    _write_table(folder / "shapes.csv", ("path", "label"), shapes)
    _write_lines(
        folder / "captions.jsonl", ({"path": name, "caption": example.caption} for name, example in named)
    )


def _write_lines(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def processor_count() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
