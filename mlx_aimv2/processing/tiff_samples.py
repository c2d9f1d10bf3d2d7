"""Read the samples of a TIFF file with plain or byte-wise compressed strips or tiles to an array.

libtiff, through Pillow, decompresses each strip or tile as a grey image whose pixels are the bytes. This module
interprets the bytes: order, width, sign, predictor.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import BrokenImageError
from .tiff_tags import FLOAT, FLOATING, HORIZONTAL, INT, PLAIN, TiffTags

ROWS_AT_ONCE = 2**22  # bits that are unpacked at once


@dataclass(frozen=True)
class _Grid:
    """The tiles of one plane; strips are tiles as wide as the image.

    Attributes:
        across: Number of tiles in a row.
        down: Number of tiles in a column.
        width: Width of a tile in pixels.
        height: Height of a tile in pixels.
        samples: Samples per pixel in this plane.
        row_bytes: Bytes of one row of a tile.
    """

    across: int
    down: int
    width: int
    height: int
    samples: int
    row_bytes: int


def read_samples(stream: IO[bytes], tags: TiffTags) -> NDArray[Any]:
    """Read the samples, (H, W, samples), in the native byte order.

    Args:
        stream: The file.
        tags: The tags of its first page.

    Raises:
        BrokenImageError: Strips are missing or damaged.
        ImageError: The predictor, or the width or format of samples, is not supported.
    """
    width, height = tags.size
    samples, bits = tags.samples, tags.bits
    kind = _dtype(tags)
    predictor = tags.predictor
    grid = _grid(tags, 1 if tags.in_planes else samples, bits)
    result = np.empty((height, width, samples), kind)
    for plane in range(samples if tags.in_planes else 1):
        raw = _plane(stream, tags, grid, plane)
        raw = raw.reshape(-1, grid.across, grid.row_bytes)[:height]
        values = (
            _predicted_floats(raw, grid, kind) if predictor == FLOATING else _values(raw, grid, tags, kind)
        )
        if predictor == HORIZONTAL:
            unsigned = values.view(f"u{values.dtype.itemsize}")
            np.cumsum(unsigned, axis=2, dtype=unsigned.dtype, out=unsigned)
        pixels = values.reshape(height, -1, grid.samples)[:, :width]
        result[..., plane : plane + grid.samples] = pixels
    return result


def _dtype(tags: TiffTags) -> np.dtype[Any]:
    """The dtype of the samples in memory."""
    bits, kind = tags.bits, tags.sample_format
    possible = {FLOAT: (16, 32, 64), INT: (8, 16, 32, 64)}.get(kind, (*range(1, 17), 32, 64))
    if bits not in possible:
        tags.refuse("BitsPerSample", f"not supported with SampleFormat {kind}")
    letter = {FLOAT: "f", INT: "i"}.get(kind, "u")
    return np.dtype(f"{letter}{max(1, 1 << max(0, math.ceil(math.log2(bits)) - 3))}")


def _grid(tags: TiffTags, samples: int, bits: int) -> _Grid:
    width, height = tags.size
    if "TileWidth" in tags.values:
        tile_width, tile_height = tags.first("TileWidth"), tags.first("TileLength")
        if not (0 < tile_width <= width + 65536 and 0 < tile_height <= height + 65536):
            tags.refuse("TileWidth", "not possible")
    else:
        tile_width, tile_height = width, min(tags.first("RowsPerStrip", height), height) or height
    row_bytes = -(-tile_width * samples * bits // 8)
    return _Grid(
        -(-width // tile_width), -(-height // tile_height), tile_width, tile_height, samples, row_bytes
    )


def _plane(stream: IO[bytes], tags: TiffTags, grid: _Grid, plane: int) -> NDArray[np.uint8]:
    """The bytes of one plane, (rows, across, row_bytes), with all rows of whole tiles."""
    tiled = "TileWidth" in tags.values
    offsets = tags.values.get("TileOffsets" if tiled else "StripOffsets", ())
    counts = tags.values.get("TileByteCounts" if tiled else "StripByteCounts", ())
    number = grid.across * grid.down
    offsets, counts = (list(x[plane * number : (plane + 1) * number]) for x in (offsets, counts))
    height = tags.size[1]
    rows = [min(grid.height, height - start) for start in range(0, height, grid.height)]
    if tiled:
        rows = [grid.height] * len(rows)
    plain = tags.compression == 1
    blocks = _blocks(
        stream, offsets, counts, [n * grid.row_bytes for n in rows for _ in range(grid.across)], plain
    )
    out = np.empty((sum(rows), grid.across, grid.row_bytes), np.uint8)
    for index in range(number):
        top, column = index // grid.across * grid.height, index % grid.across
        target = out[top : top + rows[index // grid.across], column]
        block = next(blocks)
        data = block if plain else _decompressed(block, tags, target.shape)
        if len(data) < target.size:
            what = "tile" if tiled else "strip"
            raise BrokenImageError(f"cut off or damaged ({what} {index + 1} of {number} is incomplete)")
        flat = np.frombuffer(data[: target.size], np.uint8)
        if plain and tags.first("FillOrder", 1) == 2:
            flat = np.packbits(np.unpackbits(flat).reshape(-1, 8)[:, ::-1])
        target[...] = flat.reshape(target.shape)
    return out


def _blocks(
    stream: IO[bytes], offsets: list[int], counts: list[int], sizes: list[int], plain: bool
) -> Iterator[bytes]:
    """The stored bytes of each strip or tile; empty beyond the end of the file."""
    end = stream.seek(0, io.SEEK_END)
    for index, size in enumerate(sizes):
        offset = offsets[index] if index < len(offsets) else end
        count = counts[index] if index < len(counts) else 0
        if plain:
            count = size  # writers disagree on the count of a last strip with fewer rows
        elif count == 0:
            count = max(end - offset, 0)
        if not 0 <= offset < end:
            yield b""
            continue
        stream.seek(offset)
        yield stream.read(min(count, end - offset))


def _decompressed(block: bytes, tags: TiffTags, shape: tuple[int, int]) -> bytes:
    """Decompress one strip or tile with libtiff."""
    height, width = shape
    if not block:
        return b""
    file = _gray_tiff(block, width, height, tags.compression, tags.first("FillOrder", 1))
    image = Image.OPEN["TIFF"][0](io.BytesIO(file), "")
    lift_limit(image)
    image.load()
    return image.tobytes()


def _gray_tiff(block: bytes, width: int, height: int, compression: int, fill_order: int) -> bytes:
    """A little-endian TIFF file with one strip of 8-bit grey."""
    entries = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 266: fill_order}
    entries |= {273: 8, 277: 1, 278: height, 279: len(block)}
    where = 8 + len(block) + len(block) % 2
    directory = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in entries.items())
    head = struct.pack("<2sHL", b"II", 42, where)
    return head + block + bytes(len(block) % 2) + struct.pack("<H", len(entries)) + directory + bytes(4)


def _values(raw: NDArray[np.uint8], grid: _Grid, tags: TiffTags, kind: np.dtype[Any]) -> NDArray[Any]:
    """Unpack (rows, across, row_bytes) to (rows, across, width, samples)."""
    shape = (*raw.shape[:2], grid.width, grid.samples)
    bits = tags.bits
    if bits in (8, 16, 32, 64):
        stored = np.ascontiguousarray(raw).view(kind.newbyteorder("<" if tags.byte_order == "<" else ">"))
        return stored.reshape(shape).astype(kind.newbyteorder("="))
    count = grid.width * grid.samples
    values = np.empty((*raw.shape[:2], count), kind)
    weights = (1 << np.arange(bits)[::-1]).astype(np.uint16)
    step = max(1, ROWS_AT_ONCE // max(1, raw.shape[1] * raw.shape[2] * 8))
    for top in range(0, len(raw), step):
        unpacked = np.unpackbits(raw[top : top + step], axis=-1)[..., : count * bits]
        values[top : top + step] = unpacked.reshape(*unpacked.shape[:2], count, bits) @ weights
    return values.reshape(shape)


def _predicted_floats(raw: NDArray[np.uint8], grid: _Grid, kind: np.dtype[Any]) -> NDArray[Any]:
    """Undo the floating-point predictor (Adobe, TIFF Technical Note 3): differences of bytes, sorted by weight."""
    rows, across = raw.shape[:2]
    steps = raw.reshape(rows, across, -1, grid.samples)
    stored = np.cumsum(steps, axis=2, dtype=np.uint8).reshape(rows, across, kind.itemsize, -1)
    floats = np.ascontiguousarray(stored.swapaxes(2, 3)).view(kind.newbyteorder(">"))
    return floats.reshape(rows, across, grid.width, grid.samples).astype(kind.newbyteorder("="))


def is_plain(tags: TiffTags) -> bool:
    """Whether `read_samples` reads the compression: none, or one of bytes."""
    return tags.compression in PLAIN


def lift_limit(image: Image.Image) -> None:
    """Make Pillow load a TIFF image without checking its process-wide pixel limit.

    Pillow checks the limit when it allocates the pixels, so they are allocated here; the size is already checked.
    """
    image.im = Image.new(image.mode, getattr(image, "_tile_size", image.size)).im
