"""ICC profiles made by hand: matrix and gamma, for RGB; a gamma alone, for grey."""

from __future__ import annotations

import struct

import numpy as np

D50 = np.array([0.9642, 1.0, 0.8249])
D65_TO_D50 = np.array(  # Bradford
    [
        [1.0478112, 0.0228866, -0.0501270],
        [0.0295424, 0.9904844, -0.0170491],
        [-0.0092345, 0.0150436, 0.7521316],
    ]
)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
PRIMARIES = {
    "Display P3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    "Adobe RGB": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)),
    "swapped": (SRGB[1], SRGB[0], SRGB[2]),
}
PROPHOTO = np.array([[0.7976749, 0.1351917, 0.0313534], [0.2880402, 0.7118741, 0.0000857], [0, 0, 0.8252100]])


def matrix(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """From linear RGB with a white of D65 to XYZ with one of D50."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    return D65_TO_D50 @ (xyz * np.linalg.solve(xyz, white))


def matrix_of(name: str) -> np.ndarray:
    return PROPHOTO if name == "ProPhoto" else matrix(PRIMARIES[name])


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _profile(space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr", pcs: bytes = b"XYZ ") -> bytes:
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content
    size = at + len(body)
    head = struct.pack(">I", size) + b"lcms" + struct.pack(">I", 0x02400000) + kind + space + pcs
    head += bytes(12) + b"acsp" + bytes(28) + _fixed(*D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


_TEXTS = {
    b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78),
    b"cprt": b"text" + bytes(4) + b"none\0",
    b"wtpt": b"XYZ " + bytes(4) + _fixed(*D50),
}


def rgb_profile(to_xyz: np.ndarray, gamma: float) -> bytes:
    """A profile of RGB whose linear values become XYZ by a matrix (3, 3)."""
    columns = {
        name: b"XYZ " + bytes(4) + _fixed(*to_xyz[:, at])
        for at, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))
    }
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma))
    return _profile(b"RGB ", {**_TEXTS, **columns, **curves})


def gray_profile(gamma: float) -> bytes:
    """A profile of grey."""
    return _profile(b"GRAY", {**_TEXTS, b"kTRC": _curve(gamma)})


def cmyk_profile() -> bytes:
    """A profile of CMYK in which black ink alone counts: the lightness L* is 100 less its percentage."""
    straight = bytes(range(256))
    corners = b"".join(
        bytes((255 * (1 - (at & 1)), 128, 128)) for at in range(16)
    )  # the last ink runs fastest
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += straight * 4 + corners + straight * 3
    return _profile(b"CMYK", {**_TEXTS, b"A2B0": table}, b"prtr", b"Lab ")


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear values 0..1 as 8-bit sRGB."""
    linear = np.clip(linear, 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * curved).astype(np.uint8)


def in_srgb(pixels: np.ndarray, to_xyz: np.ndarray, gamma: float) -> np.ndarray:
    """What 8-bit pixels (H, W, 3) of a profile are in sRGB."""
    gamma = round(gamma * 256) / 256
    return encode_srgb((pixels / 255) ** gamma @ to_xyz.T @ np.linalg.inv(matrix(SRGB)).T)
