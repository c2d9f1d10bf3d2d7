"""`Plan`: measure a model and the decoding of images on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..backend.device import on_cpu
from ..errors import ImageError, InputError
from ..events import Event, OnEvent, warn
from ..processing.image import ImageProcessor
from ..processing.options import MIN_PATCHES, DecodeOptions, NativeOptions
from .architecture import Architecture, find_architecture
from .decoding import DRAWN, Decoding, Photo, find_photos, measure_decoding
from .forward import Bounds, Cell, measure_settings
from .machine import describe_machine
from .options import BenchOptions
from .report import Report

Mode = Literal["exact", "fast"]
NAMED = "the images of --images"
MODES: tuple[Mode, ...] = ("fast", "exact")


@dataclass(frozen=True)
class Plan:
    """Measurements that are made one by one.

    Attributes:
        report: the report, still without results.
        options: what to measure.
        photos: images to decode.
    """

    report: Report
    options: BenchOptions
    photos: Sequence[Photo]

    @classmethod
    def of(cls, model: str, options: BenchOptions, on_event: OnEvent = warn) -> Plan:
        """Find the architecture and the images. Nothing is downloaded for a published checkpoint.

        Args:
            model: a checkpoint folder, a short name, or `demo`.
            options: what to measure.
            on_event: called with notices.

        Raises:
            InputError: there is no such model, or no image can be decoded.
            CheckpointError: the folder of the model holds no usable checkpoint.
            HubError: a repository that is not one of the published ones cannot be downloaded.
        """
        architecture, photos = find_architecture(model, on_event), find_photos(options.images)
        image_size = _image_size(photos, _processor(architecture, options, MODES[0]))
        what = NAMED if options.images else DRAWN
        return cls(Report(describe_machine(), architecture, image_size, what), options, photos)

    def __len__(self) -> int:
        """The number of results."""
        return len(self.options.settings(on_cpu())) + len(MODES)

    def results(self, on_event: OnEvent = warn) -> Iterator[Cell | Decoding]:
        """Measure the settings of the model, then the modes of decoding.

        A setting that fails, or would take too long, is a cell that says so.
        """
        machine, architecture, seconds = self.report.machine, self.report.architecture, self.options.seconds
        memory = machine.gpu_memory_bytes if machine.device == "gpu" else machine.memory_bytes
        settings = self.options.settings(on_cpu())
        yield from measure_settings(architecture, settings, self.report.image_size, Bounds(seconds, memory))
        named: set[Event] = set()

        def once(event: Event) -> None:
            """Pass on an image that cannot be decoded in the first mode only."""
            if event not in named:
                named.add(event)
                on_event(event)

        for mode in MODES:
            processor = _processor(architecture, self.options, mode)
            yield measure_decoding(self.photos, processor, seconds, once)


def _processor(architecture: Architecture, options: BenchOptions, mode: Mode) -> ImageProcessor:
    native = NativeOptions(min(MIN_PATCHES, options.max_patches), options.max_patches)
    patch_size = architecture.config.vision.patch_size
    return ImageProcessor(architecture.settings, patch_size, DecodeOptions(mode), native)


def _image_size(photos: Sequence[Photo], processor: ImageProcessor) -> tuple[int, int]:
    """The size (H, W) in pixels that the first image gets which can be decoded."""
    problems = []
    for photo in photos:
        try:
            height, width, _ = processor(photo).shape
        except ImageError as error:  # named when decoding is measured
            problems.append(str(error))
            continue
        return height, width
    raise InputError(f"no image can be decoded: {problems[0]}")
