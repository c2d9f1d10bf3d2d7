"""The drawn world as files: images and captions to train on, and held-out combinations to measure on."""

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
from mlx_aimv2.events import OnEvent, Progress, ignore
from mlx_aimv2.storage.atomic import new_folder

from .examples import (
    Example,
    close_up_examples,
    dyed_examples,
    retrieval_examples,
    training_examples,
    zero_shot_examples,
)
from .painting import LARGEST, SMALLEST, Conditions
from .parent_process import end_with_parent
from .ranges import check_range
from .scenes import LABELS

STAGE = "drawing"
CHUNK = 250  # images that a process draws before it reports
PER_FOLDER = 1000
COMPRESSION = 1  # of PNG: noise hardly gets smaller, only slower
MOST = 10_000_000

Job = tuple[str, Example]  # the file, relative to the folder, and what it shows


@dataclass(frozen=True)
class WorldOptions:
    """What ``write_world`` writes.

    Attributes:
        train: images to train on.
        near: cut-outs with one thing whole in each, half as wide and high, to begin with.
        dyed: images with a ground of any colour, every second with things of any colour too, to end with, beside
            as many of those to train on.
        val: images of the same kinds of scenes to validate on.
        zero_shot: images of held-out shapes and colours, sorted by label.
        retrieval: images with held-out combinations and a full caption each.
        side: width and height of a whole image in pixels.
        seed: of everything; which combinations are held out does not depend on it.
        conditions: how hard the images are made.

    Raises:
        InputError: a number is out of range.
    """

    train: int = 60_000
    near: int = 60_000
    dyed: int = 20_000
    val: int = 1_000
    zero_shot: int = 2_000
    retrieval: int = 1_000
    side: int = 112
    seed: int = 0
    conditions: Conditions = field(default_factory=Conditions)

    def __post_init__(self) -> None:
        for name in ("train", "near", "dyed", "val", "zero_shot", "retrieval"):
            check_range(name, getattr(self, name), int(name == "train"), MOST)
        check_range("side", self.side, SMALLEST, LARGEST)


def write_world(
    folder: Path,
    options: WorldOptions | None = None,
    processes: int | None = None,
    on_event: OnEvent = ignore,
) -> Path:
    """Draw the world into a folder, which appears when it is complete.

    - `captions.jsonl`: path, caption and split (train, val) of what is below `train/` and `val/`.
    - `names.jsonl`: path, caption and split of what is below `dyed/`, of as much of `train/` (all of it where nothing
      is dyed), and of `val/`. Captions tell no colour that is dyed; one kind of thing is mostly called by little more
      than its shape and colour.
    - `near/shapes.csv`, `near/captions.jsonl`: the close-ups below `near/`, each with a label (a shape) or caption.
    - `labels.txt`: all 120 labels, one in a line.
    - `zeroshot/`: a folder for each held-out label, such as `red triangle/0000.png`.
    - `retrieval/captions.csv`: path and caption of the images beside it.

    The files do not depend on the number of processes. These are spawned, so a script has to call this under
    `if __name__ == "__main__":` unless it asks for one.

    Args:
        folder: what to write; it must not exist.
        options: how much and how large; None for the usual.
        processes: that draw at once; None for as many as there are processors.
        on_event: called with progress.

    Returns:
        ``folder``.

    Raises:
        InputError: the number of processes is less than 1.
        OutputError: the folder exists or cannot be written, or a process ended before it had drawn its images.
    """
    options = options or WorldOptions()
    processes = processor_count() if processes is None else processes
    check_range("processes", processes, 1, 1024)
    with new_folder(folder) as unfinished:
        train = _numbered_jobs("train", training_examples(options.train, options.seed))
        val = _numbered_jobs("val", training_examples(options.val, options.seed, "val"))
        dyed = _numbered_jobs("dyed", dyed_examples(options.dyed, options.seed))
        close_ups = _numbered_jobs("near", close_up_examples(options.near, options.seed))
        labelled = _sorted_jobs("zeroshot", zero_shot_examples(options.zero_shot, options.seed))
        described = _retrieval_jobs(options)
        every = [*train, *val, *dyed, *close_ups, *labelled, *described]
        _draw(unfinished, every, options, processes, on_event)
        _write_captions(unfinished / "captions.jsonl", train, val)
        named = _named(train[: len(dyed)] if dyed else train)
        _write_captions(unfinished / "names.jsonl", [*dyed, *named], _named(val))
        _write_near(unfinished / "near", close_ups)
        (unfinished / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
        _write_retrieval(unfinished / "retrieval", described)
    return folder


def _named(jobs: Sequence[Job]) -> list[Job]:
    return [(name, example.named()) for name, example in jobs]


def _numbered_jobs(folder: str, examples: Iterable[Example]) -> list[Job]:
    return [
        (f"{folder}/{index // PER_FOLDER:03d}/{index:06d}.png", example)
        for index, example in enumerate(examples)
    ]


def _sorted_jobs(folder: str, examples: Sequence[Example]) -> list[Job]:
    """Each example in a folder of its caption."""
    return [
        (f"{folder}/{example.caption}/{index:04d}.png", example) for index, example in enumerate(examples)
    ]


def _retrieval_jobs(options: WorldOptions) -> list[Job]:
    examples = retrieval_examples(options.retrieval, options.seed)
    return [(f"retrieval/{index:04d}.png", example) for index, example in enumerate(examples)]


def _draw(
    folder: Path, jobs: Sequence[Job], options: WorldOptions, processes: int, on_event: OnEvent
) -> None:
    """Write all images, in chunks, and tell how many there are."""
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
    """The number of images of each chunk, as it is done."""
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
                "a process that draws images ended early: it was killed, as for lack of memory, or the script does"
                ' not call this under `if __name__ == "__main__":` (processes=1 needs no other process)'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _draw_chunk(folder: Path, side: int, conditions: Conditions, jobs: Sequence[Job]) -> int:
    """Write some images; how many."""
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


def _write_near(folder: Path, jobs: Sequence[Job]) -> None:
    """The two tables of the close-ups, with paths relative to their folder."""
    named = [(name.partition("/")[2], example) for name, example in jobs]
    shapes = [(name, example.scene.thing.shape) for name, example in named]
    _write_table(folder / "shapes.csv", ("path", "label"), shapes)
    _write_lines(
        folder / "captions.jsonl", ({"path": name, "caption": example.caption} for name, example in named)
    )


def _write_retrieval(folder: Path, jobs: Sequence[Job]) -> None:
    told = [(Path(name).name, example.caption) for name, example in jobs]
    _write_table(folder / "captions.csv", ("path", "caption"), told)


def _write_lines(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def processor_count() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
