"""`FinetuneOptions`: all options with default, checks and help text, for command line, YAML files and Python."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from ..adapters.targets import MAX_RANK, TARGETS, short_names
from ..backend.device import DTYPES
from ..checkpoints.load_options import FileOptions
from ..datasets.options import Columns, Reading
from ..errors import InputError
from ..options.fields import at_least, between, check_fields, fraction, like, more_than, one_of, option
from ..presets import DEFAULT_MODEL
from ..training.options import OPTIMIZERS, WITHOUT_DECAY, LoopOptions
from ..training.schedule import SCHEDULES
from .methods import METHODS, check_method
from .task_rules import ADAPTED, TASKS, TOWER_STATES, TRAINED, check_task, check_towers

WEIGHT_DECAY = 0.01  # the default, for optimizers with weight decay
RESIZING = ("bicubic", "bilinear")  # the filters of `training.augment`, which imports Pillow
MAX_SEED = 2**64 - 1  # of MLX
DATA, METHOD, TRAINING, AUGMENTATION, RUN = "Data", "Method", "Training", "Augmentation", "Run"


@dataclass(frozen=True)
class FinetuneOptions:
    """Options of fine-tuning; the metadata of each field has its help text and the rules for its value.

    Raises:
        InputError: an option has a value that breaks its rules, or does not go with the task or the method.
    """

    data: str = option(
        "",
        "A folder per class, train/ and val/ folders, or a table (CSV, JSON, Parquet); for captions such a table, or"
        " a folder with a .txt beside each image.",
        DATA,
    )
    task: str = option(
        "classify",
        f"{', '.join(TASKS)}: learn labels, or which caption belongs to which image.",
        METHOD,
        one_of(TASKS),
    )
    model: str = option(DEFAULT_MODEL, "A checkpoint folder, a repository, or a short name.", METHOD)
    revision: str | None = like(FileOptions, "revision", panel=METHOD)
    adapter_path: str = option("adapters", "The folder to write.", RUN)
    fine_tune_type: str = option("lora", f"{', '.join(METHODS)}.", METHOD, one_of(METHODS))
    val_fraction: float = option(
        0.2, "Fraction of the images to hold out as val, if the data has no such split.", DATA, fraction()
    )
    exclude: tuple[str, ...] = like(Reading, "exclude", panel=DATA)
    image_column: str | None = option(
        None, "Column of a table with the path. [default: the usual names]", DATA
    )
    label_column: str | None = option(None, "Column with the label, or with several separated by ;.", DATA)
    caption_column: str | None = option(None, "Column with the caption.", DATA)
    image_root: str | None = like(Reading, "image_root", panel=DATA)
    decode: str = option(
        "exact",
        "exact, or native: the same pixels, with JPEGs decoded by mlx-data.",
        DATA,
        one_of(("exact", "native")),
    )
    class_weights: str = option(
        "none", "none, or balanced: rare classes count more.", DATA, one_of(("none", "balanced"))
    )

    pooling: str = option(
        "mean",
        "What a linear head sees: mean (of the tokens) or head (the pooling head).",
        METHOD,
        one_of(("mean", "head")),
    )
    vision_tower: str | None = option(
        None,
        f"Contrastive: {', '.join(TOWER_STATES)}. [default: adapted, or trained for full]",
        METHOD,
        one_of(TOWER_STATES),
    )
    text_tower: str | None = option(
        None,
        "The same for the text encoder. [default: adapted, or trained for full]",
        METHOD,
        one_of(TOWER_STATES),
    )
    num_layers: int | None = option(
        None, "Train only the last so many layers. [default: all]", METHOD, at_least(1)
    )
    target_modules: str = option(",".join(TARGETS), "Projections that LoRA and DoRA adapt.", METHOD)
    rank: int = option(8, "Rank of LoRA and DoRA.", METHOD, between(1, MAX_RANK))
    alpha: float = option(16.0, "Scale of LoRA and DoRA: alpha / rank.", METHOD, more_than(0))
    dropout: float = option(0.0, "Dropout before LoRA and DoRA.", METHOD, fraction())
    batch_norm: bool = option(False, "Normalize features before a linear head, as AIM's probes do.", METHOD)
    neighbours: int = option(20, "Neighbours that vote, for knn.", METHOD, at_least(1))

    epochs: int | None = option(
        None,
        "Times to go over the training images. [default: 10, or more where the data is small]",
        TRAINING,
        at_least(1),
    )
    iters: int | None = option(None, "Steps to do instead of epochs.", TRAINING, at_least(1))
    batch_size: int = option(16, "Images computed at once.", TRAINING, at_least(1))
    grad_accumulation_steps: int = option(1, "Batches whose gradients make one step.", TRAINING, at_least(1))
    learning_rate: float | None = option(
        None, "Highest learning rate. [default: the method's]", TRAINING, more_than(0)
    )
    head_lr: float | None = option(
        None,
        "Learning rate of the head; of a pair, of what is outside its towers. [default: --learning-rate]",
        TRAINING,
        more_than(0),
    )
    layer_decay: float = option(
        1.0,
        "Learning rate of a layer over that of the next one.",
        TRAINING,
        fraction(zero=False, whole=True),
    )
    weight_decay: float | None = option(
        None, f"Weight decay. [default: {WEIGHT_DECAY}]", TRAINING, at_least(0)
    )
    optimizer: str = option("adamw", f"{', '.join(OPTIMIZERS)}.", TRAINING, one_of(OPTIMIZERS))
    schedule: str = option("cosine", f"{', '.join(SCHEDULES)}.", TRAINING, one_of(SCHEDULES))
    warmup: float = option(
        0.1, "Part of all steps in which the learning rate rises.", TRAINING, between(0, 1)
    )
    max_grad_norm: float = option(
        1.0, "Clip the gradient to this norm; 0 for not at all.", TRAINING, at_least(0)
    )
    grad_checkpoint: bool = option(False, "Compute layers twice: less memory, more time.", TRAINING)
    ema: float = option(
        0.0,
        "Average weights over steps with this decay, such as 0.999; 0 for not at all.",
        TRAINING,
        fraction(),
    )
    metric: str | None = option(
        None,
        f"Which epoch is best: {'; for captions '.join(', '.join(x.metrics) for x in TASKS.values())}."
        " [default: the first; map for several labels]",
        TRAINING,
    )
    patience: int = option(
        0,
        "Stop after so many epochs without improvement, those of the warm-up not counted; 0 for never.",
        TRAINING,
        at_least(0),
    )
    sweep: bool = option(False, "Try learning rates and weight decays (probes only).", TRAINING)

    random_resized_crop: float = option(
        0.0,
        "Train on crops of at least this part of an image; 0 for whole images.",
        AUGMENTATION,
        between(0, 1),
    )
    flip: float = option(0.0, "Chance of an image being mirrored.", AUGMENTATION, between(0, 1))
    color_jitter: float = option(
        0.0, "Strength of changes of brightness, contrast and colour.", AUGMENTATION, between(0, 10)
    )
    randaugment: int = option(0, "Operations of RandAugment on each image.", AUGMENTATION, between(0, 100))
    randaugment_magnitude: float = option(9.0, "Their strength, 0 to 30.", AUGMENTATION, between(0, 30))
    resize: str = option(
        "bicubic",
        f"Filter that resizes training images: {', '.join(RESIZING)}.",
        AUGMENTATION,
        one_of(RESIZING),
    )
    mixup: float = option(0.0, "Alpha of mixup.", AUGMENTATION, at_least(0))
    cutmix: float = option(0.0, "Alpha of cutmix.", AUGMENTATION, at_least(0))
    label_smoothing: float = option(
        0.0, "Part of every target spread over all classes.", AUGMENTATION, fraction()
    )

    dtype: str = option(
        "auto",
        "float32, float16, bfloat16, or auto: bfloat16 for a frozen encoder on a GPU, else float32.",
        RUN,
        one_of(("auto", *DTYPES)),
    )
    save_every: int = option(100, "Steps between saved states, besides every epoch.", RUN, at_least(1))
    resume: bool = option(
        False, "Go on with the run in --adapter-path; more --epochs or --iters go on after its end.", RUN
    )
    resume_adapter_file: str | None = option(
        None,
        "Begin with the weights of this adapter or head: a folder, or the adapter_model.safetensors in it.",
        RUN,
    )
    seed: int = option(
        0,
        "Seed of the choice of images to hold out; in training also of order, augmentation and fresh weights.",
        RUN,
        between(0, MAX_SEED),
    )

    def __post_init__(self) -> None:
        check_fields(self)
        try:
            short_names(self.modules)
        except InputError as error:
            raise error.at(f"--target-modules {self.target_modules!r}") from error
        if self.weight_decay and self.optimizer in WITHOUT_DECAY:
            raise InputError(
                f"--weight-decay {self.weight_decay}: {self.optimizer} has none: use adamw, or leave it out"
            )
        changed = {
            field.name for field in dataclasses.fields(self) if getattr(self, field.name) != field.default
        }
        check_task(self.task, self.fine_tune_type, self.best_metric, changed)
        if self.task == "contrastive":
            check_towers(self.towers, self.fine_tune_type, self.dtype)
            if self.batch_size < 2:
                raise InputError("--batch-size 1: captions are told apart within a batch, so give at least 2")
        check_method(self.fine_tune_type, changed, self.dtype, self.sweep)

    @property
    def towers(self) -> dict[str, str]:
        """The state of each tower, "vision" and "text": "frozen", "adapted" or "trained"."""
        default = TRAINED if METHODS[self.fine_tune_type].full else ADAPTED
        return {"vision": self.vision_tower or default, "text": self.text_tower or default}

    @property
    def reading(self) -> Reading:
        """How the data is read; the folder of the run is not part of the data."""
        return Reading(
            exclude=self.exclude,
            avoid=(os.path.expanduser(self.adapter_path),),
            columns=Columns(self.image_column, self.label_column, self.caption_column),
            image_root=self.image_root,
        )

    @property
    def loop(self) -> LoopOptions:
        """The options of the training loop."""
        return LoopOptions(
            metric=self.best_metric,
            larger_is_better=TASKS[self.task].metrics[self.best_metric],
            learning_rate=self.peak_learning_rate,
            schedule=self.schedule,
            warmup=self.warmup,
            epochs=self.epochs,
            iters=self.iters,
            least_steps=METHODS[self.fine_tune_type].least_steps,
            grad_accumulation_steps=self.grad_accumulation_steps,
            ema=self.ema,
            patience=self.patience,
            save_every=self.save_every,
            grad_checkpoint=self.grad_checkpoint,
            seed=self.seed,
        )

    @property
    def modules(self) -> tuple[str, ...]:
        """The names of the projections to adapt."""
        return tuple(name.strip() for name in self.target_modules.split(",") if name.strip())

    @property
    def best_metric(self) -> str:
        """``metric``, or the default of the task; `with_metric` sets that of images with several labels."""
        return self.metric or next(iter(TASKS[self.task].metrics))

    @property
    def peak_learning_rate(self) -> float:
        """``learning_rate``, or the default of the method."""
        return self.learning_rate or METHODS[self.fine_tune_type].learning_rate

    @property
    def decay(self) -> float:
        """``weight_decay``, or the default of the optimizer."""
        if self.weight_decay is None:
            return 0.0 if self.optimizer in WITHOUT_DECAY else WEIGHT_DECAY
        return self.weight_decay
