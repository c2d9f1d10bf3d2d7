"""TIFF files made by hand, so that what is in them is known without a reader."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

CODES = {"none": 1, "lzw": 5, "deflate": 8, "old deflate": 32946, "packbits": 32773, "lzma": 34925}


def lzw(data: bytes) -> bytes:
    """Codes of 9 bits that are all literal: the table is cleared before it would need more."""
    codes: list[int] = []
    for start in range(0, len(data), 240):
        codes += [256, *data[start : start + 240]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def packbits(data: bytes) -> bytes:
    return b"".join(bytes([len(data[k : k + 128]) - 1]) + data[k : k + 128] for k in range(0, len(data), 128))


def compressed(data: bytes, compression: str) -> bytes:
    if compression == "lzma":
        import lzma

        return lzma.compress(data)
    plain = {"none": bytes, "lzw": lzw, "packbits": packbits}
    return plain.get(compression, zlib.compress)(data)


def reversed_bits(data: bytes) -> bytes:
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)


def packed(block: np.ndarray, bits: int, order: str, predictor: int) -> bytes:
    """A strip or tile (rows, columns, samples) as its rows lie in the file."""
    rows, columns, samples = block.shape
    if predictor == 2:
        unsigned = block.view(f"u{block.dtype.itemsize}")
        block = np.concatenate([unsigned[:, :1], unsigned[:, 1:] - unsigned[:, :-1]], axis=1)
    if predictor == 3:
        by_weight = block.astype(block.dtype.newbyteorder(">")).reshape(rows, -1).view(np.uint8)
        by_weight = by_weight.reshape(rows, columns * samples, -1).swapaxes(1, 2).reshape(rows, -1)
        out = by_weight.copy()
        out[:, samples:] = by_weight[:, samples:] - by_weight[:, :-samples]
        return out.tobytes()
    if bits in (8, 16, 32, 64):
        return block.astype(block.dtype.newbyteorder(order)).tobytes()
    lines = []
    for row in block.reshape(rows, -1).tolist():
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        lines.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    return b"".join(lines)


def tiff(
    samples: np.ndarray,
    photometric: int | None = None,
    bits: int | None = None,
    *,
    order: str = "<",
    planar: bool = False,
    compression: str = "none",
    predictor: int = 1,
    fill_order: int = 1,
    rows: int | None = None,
    tile: tuple[int, int] | None = None,
    extra: tuple[int, ...] = (),
    big: bool = False,
    tags: dict[int, Any] | None = None,
) -> bytes:
    """Samples (H, W) or (H, W, C) as a file.

    Args:
        samples: In the type that is stored; unsigned ones may have fewer `bits`.
        photometric: 1 (grey) or 2 (RGB) by the number of channels if None.
        bits: Of a sample; those of the type if None.
        order: "<" or ">".
        planar: Each channel by itself.
        compression: A key of `CODES`.
        predictor: 1, 2 or 3.
        fill_order: 2 turns the bits of all bytes around.
        rows: Of a strip; all if None.
        tile: (height, width) of tiles instead of strips.
        extra: What the last channels are.
        big: BigTIFF.
        tags: More tags, or others: numbers, tuples of numbers, or bytes; None leaves one out.
    """
    samples = samples[..., None] if samples.ndim == 2 else samples
    height, width, channels = samples.shape
    bits = bits or 8 * samples.dtype.itemsize
    blocks = []
    planes = [samples[..., c : c + 1] for c in range(channels)] if planar else [samples]
    for plane in planes:
        if tile:
            down, across = -(-height // tile[0]), -(-width // tile[1])
            padded = np.zeros((down * tile[0], across * tile[1], plane.shape[2]), samples.dtype)
            padded[:height, :width] = plane
            blocks += [
                padded[y * tile[0] : (y + 1) * tile[0], x * tile[1] : (x + 1) * tile[1]]
                for y in range(down)
                for x in range(across)
            ]
        else:
            blocks += [plane[top : top + (rows or height)] for top in range(0, height, rows or height)]
    data = [compressed(packed(np.ascontiguousarray(b), bits, order, predictor), compression) for b in blocks]
    data = [reversed_bits(block) for block in data] if fill_order == 2 else data
    start = 16 if big else 8
    offsets = [start + sum(map(len, data[:k])) for k in range(len(data))]
    kind = {"u": 1, "i": 2, "f": 3, "c": 6}[samples.dtype.kind]
    entries: dict[int, Any] = {
        256: width,
        257: height,
        258: (bits,) * channels,
        259: CODES[compression],
        262: (2 if channels - len(extra) == 3 else 1) if photometric is None else photometric,
        266: fill_order,
        277: channels,
        284: 2 if planar else 1,
        317: predictor,
        339: (kind,) * channels,
    }
    places = (324, 325) if tile else (273, 279)
    entries |= {places[0]: tuple(offsets), places[1]: tuple(map(len, data))}
    entries |= {322: tile[1], 323: tile[0]} if tile else {278: rows or height}
    entries |= {338: extra} if extra else {}
    entries |= tags or {}
    return _file(order, big, b"".join(data), {tag: x for tag, x in entries.items() if x is not None})


def _file(order: str, big: bool, body: bytes, entries: dict[int, Any]) -> bytes:
    mark = b"II" if order == "<" else b"MM"
    body += bytes(len(body) % 2)
    start, inline, number = (16, 8, "Q") if big else (8, 4, "L")
    directory = start + len(body)
    size = (8 + 20 * len(entries) + 8) if big else (2 + 12 * len(entries) + 4)
    table, after = b"", b""
    for tag, value in sorted(entries.items()):
        if isinstance(value, bytes):
            kind, count, raw = (2 if tag == 42113 else 7), len(value), value
        else:
            values = value if isinstance(value, tuple) else (value,)
            kind = 4 if max(values) > 65535 or tag in (273, 324) else 3
            count, raw = len(values), struct.pack(f"{order}{len(values)}{'L' if kind == 4 else 'H'}", *values)
        if len(raw) > inline:
            where = directory + size + len(after)
            after += raw + bytes(len(raw) % 2)
            raw = struct.pack(f"{order}{number}", where)
        table += struct.pack(f"{order}HH{number}", tag, kind, count) + raw.ljust(inline, b"\0")
    if big:
        head = mark + struct.pack(f"{order}HHHQ", 43, 8, 0, directory)
        return head + body + struct.pack(f"{order}Q", len(entries)) + table + bytes(8) + after
    head = mark + struct.pack(f"{order}HL", 42, directory)
    return head + body + struct.pack(f"{order}H", len(entries)) + table + bytes(4) + after


H, W = 13, 21


def samples(kind: str, bits: int, channels: int) -> np.ndarray:
    rng, shape = np.random.default_rng(bits), (H, W, channels)
    if kind == "f":
        return (rng.random(shape) * 800 - 100).astype(f"f{bits // 8}")
    if kind == "i":
        return rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape, np.int64).astype(f"i{bits // 8}")
    width = next(n for n in (8, 16, 32, 64) if n >= bits)
    return rng.integers(0, 2**bits, shape, np.uint64).astype(f"u{width // 8}")


def expected(values: np.ndarray, kind: str, bits: int, photometric: int) -> np.ndarray:
    if kind == "u" and bits == 16 and photometric == 2:
        levels = values >> 8
    elif kind == "u" and bits <= 16:
        levels = np.rint(values / (2**bits - 1) * 255)
    else:
        wide = values.astype(np.float64)
        levels = np.rint((wide - wide.min()) / (wide.max() - wide.min()) * 255)
    return np.broadcast_to(255 - levels if photometric == 0 else levels, (H, W, 3))
