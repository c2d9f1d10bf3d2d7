"""Options of `mlx-aimv2 evaluate`: the data, its split, the labels to choose from, and the files to write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..finetuning.options import FinetuneOptions
from ..options.fields import check_fields, like, one_of, option
from .model_options import JsonOptions, ModelOptions

if TYPE_CHECKING:
    from ..datasets.held_out import SplitChoice

DATA = "Data"
SPLITS = ("val", "test", "train", "all")
STDOUT = "-"  # the evaluation's own JSON, in place of a file


@dataclass(frozen=True)
class EvaluateOptions:
    """The data, the labels to choose from, and where to write the results."""

    data: Path | None = option(
        None,
        "Labels: a folder per class, train/ and val/ folders, or a table (CSV, JSON, Parquet). Captions: such a"
        " table, or a .txt beside each image.",
        DATA,
    )
    split: str | None = option(
        None,
        "val, test, train or all. [default: images that training held out; of other data val, else test, else all]",
        DATA,
        one_of(SPLITS),
    )
    val_fraction: float | None = like(FinetuneOptions, "val_fraction", None)
    seed: int | None = like(FinetuneOptions, "seed", None, panel=DATA)
    image_column: str | None = like(FinetuneOptions, "image_column", None)
    label_column: str | None = like(FinetuneOptions, "label_column", None)
    caption_column: str | None = like(FinetuneOptions, "caption_column", None)
    image_root: str | None = like(FinetuneOptions, "image_root", None)
    template: tuple[str, ...] = option(
        (), "Zero-shot sentence with {} for the label; may be given several times."
    )
    labels: tuple[str, ...] = option(
        (),
        "Zero-shot labels to choose from: a file with one per line, or separated by commas; or names for classes,"
        " as `id=name`. [default: the names of the classes]",
    )
    output: Path | None = option(
        None, "Folder for evaluation.json, confusion.png, calibration.png.", flags=("-o", "--output")
    )
    predictions: str | None = option(
        None,
        "File (.csv .tsv .json .jsonl .parquet) for the prediction of each image; - for the JSON of --json and"
        " --output.",
        metavar="FILE",
    )
    force: bool = option(False, "Replace what --output and --predictions name.")
    json: bool = like(JsonOptions, "json")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.data is None:
            raise InputError("nothing to evaluate: give --data PATH")

    @property
    def predictions_file(self) -> Path | None:
        """The file of --predictions."""
        return None if self.predictions in (None, STDOUT) else Path(str(self.predictions)).expanduser()

    def splits(self, model: ModelOptions) -> SplitChoice:
        """Which images to evaluate; folders that training and evaluation write are no data."""
        from ..datasets.held_out import SplitChoice
        from ..datasets.options import Columns, Reading

        written = (model.adapter_path, self.output)
        avoid = tuple(str(path.expanduser()) for path in written if path is not None)
        columns = Columns(self.image_column, self.label_column, self.caption_column)
        reading = Reading(model.exclude, avoid, columns, self.image_root)
        return SplitChoice(self.split, self.val_fraction, self.seed, reading)

    def check(self, model: ModelOptions) -> None:
        """Check what can be checked before a model is loaded.

        Raises:
            InputError: options for zero-shot labels beside a trained head; a wrong template, label or file.
        """
        from ..adapters.task import Task
        from ..inference.label_files import read_labels
        from ..inference.zero_shot import check_templates

        for name, value in {"--template": self.template, "--labels": self.labels}.items():
            if value and model.adapter is not None and isinstance(model.adapter.task, Task):
                raise InputError(f"{name} is for zero-shot labels: leave it out, or --adapter-path")
        if self.template:
            check_templates(self.template)
        if self.labels:
            read_labels(self.labels)
        self._check_files()

    def _check_files(self) -> None:
        from ..evaluation.report import check_report
        from ..vectors.record_files import check_record_file

        if self.force and self.predictions_file is None and self.output is None:
            raise InputError("--force is for --output FOLDER and --predictions FILE: leave it out")
        if self.output is not None:
            check_report(self.output, self.force)
        if self.predictions == STDOUT and not self.json and self.output is None:
            raise InputError(
                "--predictions - puts them into the evaluation's JSON: ask for it with --json or --output FOLDER, or"
                " name a file"
            )
        if self.predictions_file is not None:
            check_record_file(self.predictions_file, force=self.force)
