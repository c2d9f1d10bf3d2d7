"""Crops: regions of images as images of their own. Those of one image share its decoding."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any

from ..errors import Aimv2Error, ImageError, InputError
from .decode import Decoded, DecodeOptions, ImageInput, decode_reduced
from .image_size import upright_size
from .source_image import SourceImage

AHEAD = 4  # images after the current one that may be decoded already
Box = tuple[int, int, int, int]  # (left, top, right, bottom) in pixels of the upright image


class WholeImage:
    """An image that several crops share: decoded for the first of them, released after the last.

    Attributes:
        uses: how many crops will ask for it.
        next: the image whose crops follow; a thread that would wait for this image decodes that one instead.
        clipped: the boxes that reach beyond the image, as far as their crops have been decoded.
    """

    def __init__(
        self,
        name: str,
        open_image: Callable[[], Any],
        boxes: Sequence[Box],
        size: tuple[int, int] | None = None,
    ) -> None:
        """Take the image; nothing is read yet.

        Args:
            name: of the image, in warnings.
            open_image: returns anything that `decode_image` takes.
            boxes: of all crops. They decide how far decode="fast" may reduce the image.
            size: (width, height) of the image, if the boxes were made for it.
        """
        self.uses = len(boxes)
        self.next: WholeImage | None = None
        self.clipped: set[Box] = set()
        self._name, self._open, self._boxes, self._size = name, open_image, tuple(boxes), size
        self._lock = threading.Lock()
        self._used = self._passes = 0  # crops in this pass over them, and earlier passes
        self._settings: tuple[DecodeOptions, int | None] | None = None
        self._decoded: Decoded | ImageError | OSError | None = None

    def begin(self, uses: int, following: WholeImage | None) -> None:
        """Begin a pass over ``uses`` of the crops, before those of another image."""
        self.uses, self.next, self._used, self._passes = uses, following, 0, 0

    def crop(self, box: Box, options: DecodeOptions, short_edge: int | None) -> Decoded:
        """A part of the image; see `decode_reduced`.

        Raises:
            ImageError: the image cannot be decoded, or has no pixels in the box.
        """
        if not self._lock.acquire(blocking=False):
            self._decode_another(options, short_edge)
            self._lock.acquire()
        try:
            whole = self._take(options, short_edge)
            if isinstance(whole, ImageError):
                raise type(whole)(whole.message.removeprefix(f"{self._name}: "), whole.advice) from whole
            if isinstance(whole, OSError):
                raise whole
            inside = clipped(box, whole.size)
            if not _has_pixels(inside):
                raise ImageError("the box has no pixels in the image of {}x{} pixels".format(*whole.size))
            if inside != box:
                self.clipped.add(box)
        finally:
            self._lock.release()
        return _cropped(whole, inside)

    def _decode_another(self, options: DecodeOptions, short_edge: int | None) -> None:
        """Decode one of the next images while another thread decodes this one."""
        whole = self.next
        for _ in range(AHEAD):
            if whole is None:
                return
            if whole._lock.acquire(blocking=False):
                try:
                    if whole._decoded is None and whole._passes <= self._passes:
                        with suppress(Aimv2Error):  # its own crops report it
                            whole._load(options, short_edge)
                        return
                finally:
                    whole._lock.release()
            whole = whole.next

    def _take(self, options: DecodeOptions, short_edge: int | None) -> Decoded | ImageError | OSError:
        """The decoded image or its error, for one of the crops."""
        try:
            return self._load(options, short_edge)
        finally:
            self._used += 1
            if self._used >= self.uses:
                self._decoded, self._used, self._passes = None, 0, self._passes + 1

    def _load(self, options: DecodeOptions, short_edge: int | None) -> Decoded | ImageError | OSError:
        """The decoded image or its error, which another crop may have left."""
        if self._decoded is None or self._settings != (options, short_edge):
            self._settings, self._decoded = (options, short_edge), None
            try:
                self._decoded = self._decode(options, short_edge)
            except (ImageError, OSError) as error:
                self._decoded = error
        return self._decoded

    def _decode(self, options: DecodeOptions, short_edge: int | None) -> Decoded:
        source = self._open()
        while type(source) is SourceImage:
            source = source.open()
        if short_edge is not None:
            short_edge = self._short_edge(source, options, short_edge) if options.decode == "fast" else None
        decoded = decode_reduced(SourceImage(self._name, lambda: source), options, short_edge)
        if self._size is not None and decoded.size != self._size:
            before, now = ("{}x{}".format(*size) for size in (self._size, decoded.size))
            raise ImageError(
                f"it has {now} pixels, and had {before} when its tiles were listed: run this again"
            )
        return decoded

    def _short_edge(self, source: ImageInput, options: DecodeOptions, short_edge: int) -> int | None:
        """The short edge of the whole image at which no crop has less than ``short_edge``; None for all pixels."""
        if not isinstance(source, (str, os.PathLike, bytes)):
            return None
        try:
            size = self._size or upright_size(source, options)
        except Aimv2Error:  # decoding reports it
            return None
        boxes = [box for box in (clipped(box, size) for box in self._boxes) if _has_pixels(box)]
        least = min((min(right - left, bottom - top) for left, top, right, bottom in boxes), default=1)
        return math.ceil(short_edge * min(size) / least)


@dataclass(frozen=True, kw_only=True)
class Crop(SourceImage):
    """A region of an image; `open` reads the whole image.

    Attributes:
        whole: the image, which other crops share.
        box: the region. What lies beyond the image is left out.
    """

    whole: WholeImage
    box: Box

    def open_for(self, options: DecodeOptions, short_edge: int | None) -> Decoded:  # noqa: D102 - see the base
        return self.whole.crop(self.box, options, short_edge)


def crops(image: ImageInput, boxes: Iterable[Sequence[float]]) -> list[Crop]:
    """Regions of an image, for everything that takes a list of images: the image is decoded once for all of them.

        Embedder(model, processor).images(crops("photo.jpg", [(10, 20, 110, 220)]))  # (1, D)

    Args:
        image: a path, bytes, a binary file, a Pillow image or an array.
        boxes: (left, top, right, bottom) of each region, in pixels of the upright image. They are rounded to whole
            pixels; what lies beyond the image is left out.

    Returns:
        A crop for each box. One without pixels in the image fails when it is decoded.

    Raises:
        InputError: a box is not four finite numbers, has a negative edge, or ends before it begins.
    """
    return crops_of(image, [checked_box(box) for box in boxes])


def crops_of(
    image: ImageInput,
    boxes: Sequence[Box],
    ids: Sequence[str] = (),
    size: tuple[int, int] | None = None,
) -> list[Crop]:
    """Crops of an image by checked boxes.

    Args:
        image: the whole image.
        boxes: of the crops.
        ids: of the crops; an empty one becomes a name such as `photo.jpg[10,20,110,220]`.
        size: (width, height) of the image, if the boxes were made for it.
    """
    name, file, waits = "image", None, False
    if isinstance(image, SourceImage):
        name, file, waits = image.id, image.file, image.waits
    elif isinstance(image, (str, os.PathLike)):
        name = file = os.fsdecode(image)

    def opener() -> ImageInput:
        return image

    whole = WholeImage(name, opener, boxes, size)

    def crop(given: str, box: Box) -> Crop:
        region = ",".join(map(str, box))
        id, version = (given, region) if given else (f"{name}[{region}]", "")
        return Crop(id, opener, file, waits, version, whole=whole, box=box)

    return [crop(given, box) for given, box in zip(ids or [""] * len(boxes), boxes, strict=True)]


def expect(images: Iterable[object]) -> None:
    """Prepare the whole images of crops for a pass over ``images``, which may lack some of the crops."""
    uses = Counter(image.whole for image in images if isinstance(image, Crop))
    for whole, following in zip_longest(uses, islice(uses, 1, None)):
        whole.begin(uses[whole], following)


def count_clipped(images: Iterable[object]) -> int:
    """How many crops among ``images`` were cut at the edge of their image."""
    return sum(image.box in image.whole.clipped for image in images if isinstance(image, Crop))


def checked_box(values: Any) -> Box:
    """A box in whole pixels.

    Raises:
        InputError: it is not four finite numbers, has a negative edge, or ends before it begins.
    """
    try:
        edges = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        edges = []
    named = (
        f"the box [{', '.join(map(str, values))}]"
        if isinstance(values, (list, tuple))
        else f"the box {values!r}"
    )
    if len(edges) != 4 or isinstance(values, str):
        raise InputError(f"{named[:120]} has to be four numbers: left, top, right, bottom in pixels")
    left, top, right, bottom = edges
    if not all(map(math.isfinite, edges)):
        raise InputError(f"{named} holds NaN or infinity")
    if left < 0 or top < 0:
        raise InputError(f"{named} has a negative edge: pixels count from 0 at the left and top")
    if right < left or bottom < top:
        raise InputError(f"{named} ends before it begins: the order is left, top, right, bottom")
    return round(left), round(top), round(right), round(bottom)


def tile_boxes(size: tuple[int, int], rows: int, columns: int) -> list[Box]:
    """The boxes that divide an image of (width, height) into tiles of nearly equal size, row by row."""
    width, height = size
    x = [round(width * k / columns) for k in range(columns + 1)]
    y = [round(height * k / rows) for k in range(rows + 1)]
    return [(x[j], y[i], x[j + 1], y[i + 1]) for i in range(rows) for j in range(columns)]


def clipped(box: Box, size: tuple[int, int]) -> Box:
    """The part of a box within an image of (width, height)."""
    (left, top, right, bottom), (width, height) = box, size
    return min(left, width), min(top, height), min(right, width), min(bottom, height)


def _has_pixels(box: Box) -> bool:
    return box[0] < box[2] and box[1] < box[3]


def _cropped(whole: Decoded, box: Box) -> Decoded:
    """A part of a decoded image, which may be reduced; ``box`` is in pixels before the reduction."""
    if whole.image.size == whole.size:
        return Decoded.whole(whole.image.crop(box))
    start, end = whole.box[:2], whole.box[2:]
    scale = [(end[axis] - start[axis]) / whole.size[axis] for axis in (0, 1)]
    low = [start[axis] + box[axis] * scale[axis] for axis in (0, 1)]
    high = [min(start[axis] + box[axis + 2] * scale[axis], end[axis]) for axis in (0, 1)]
    left, top = map(math.floor, low)
    image = whole.image.crop((left, top, math.ceil(high[0]), math.ceil(high[1])))
    part = (low[0] - left, low[1] - top, high[0] - left, high[1] - top)
    return Decoded(image, (box[2] - box[0], box[3] - box[1]), part)
