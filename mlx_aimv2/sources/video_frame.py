"""`FrameImage`: a frame of a video as an upright RGB image with square pixels."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from ..errors import ImageError

if TYPE_CHECKING:
    from av import VideoFrame

Turn: TypeAlias = "tuple[Image.Transpose, ...]"  # at most one
TURNS: dict[tuple[int, int, int, int], Turn] = {  # signs of the display matrix -> what makes a frame upright
    (1, 0, 0, 1): (),
    (0, 1, -1, 0): (Image.Transpose.ROTATE_270,),
    (-1, 0, 0, -1): (Image.Transpose.ROTATE_180,),
    (0, -1, 1, 0): (Image.Transpose.ROTATE_90,),
    (-1, 0, 0, 1): (Image.Transpose.FLIP_LEFT_RIGHT,),
    (1, 0, 0, -1): (Image.Transpose.FLIP_TOP_BOTTOM,),
    (0, 1, 1, 0): (Image.Transpose.TRANSPOSE,),
    (0, -1, -1, 0): (Image.Transpose.TRANSVERSE,),
}
MOST_ASPECT = 16  # of a pixel; more is damage
UNSPECIFIED, BT2020_CONSTANT = (2, 3), 10  # matrices of colours, as in ITU-T H.273, table 4
# flags of swscale: bicubic, accurate_rnd, full_chroma_int; PyAV 17 has no names
ACCURATE = 0x4 | 0x40000 | 0x2000
MATRICES = (0, 1, 4, 5, 6, 7, 9)
HD_WIDTH, HD_HEIGHT = 1280, 577  # from here on, unspecified colours are those of BT.709, as players assume


class FrameImage(Image.Image):
    """A frame in mode RGB. It is converted when it is loaded, so that its size can be checked before.

    The matrix and range of the colours are taken from the frame; deeper samples are rounded to 8 bits. Brightness and
    primaries stay as they are: HDR (PQ, HLG) and wide gamuts look pale.
    """

    def __init__(self, frame: VideoFrame, aspect: Fraction = Fraction(1), turn: Turn = ()) -> None:
        """Take a decoded frame.

        Args:
            frame: not changed.
            aspect: the width of a pixel divided by its height.
            turn: what makes the frame upright, in this order.
        """
        super().__init__()
        one = Fraction(1)
        if not one / MOST_ASPECT <= aspect <= MOST_ASPECT:
            aspect = one
        self._frame: VideoFrame | None = frame
        self._square = (round(frame.width * max(aspect, one)), round(frame.height / min(aspect, one)))
        self._turn = turn
        self._mode, self._size = "RGB", self._square[::-1] if self._is_sideways else self._square

    @property
    def _is_sideways(self) -> bool:
        return any(
            step.name not in ("ROTATE_180", "FLIP_LEFT_RIGHT", "FLIP_TOP_BOTTOM") for step in self._turn
        )

    def load(self) -> Any:
        """Convert the frame, the first time."""
        if self._frame is not None:
            image = _to_rgb(self._frame, *self._square)
            for step in self._turn:
                image = image.transpose(step)
            self.im, self._frame = image.im, None
        return super().load()


def turn_of(frame: VideoFrame) -> Turn:
    """What makes a frame upright, by its display matrix, rounded to a multiple of 90 degrees."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return ()
    (a, b), (c, d) = np.frombuffer(data, np.int32)[:6].reshape(2, 3)[:, :2].astype(np.int64)
    # (x, y) is shown at (ax + cy, bx + dy)
    signs = (np.sign(a), 0, 0, np.sign(d)) if abs(a) >= abs(b) else (0, np.sign(b), np.sign(c), 0)
    return TURNS.get(signs, ())


def _to_rgb(frame: VideoFrame, width: int, height: int) -> Image.Image:
    from av.video.reformatter import VideoReformatter

    planes = VideoReformatter().reformat(
        frame,
        width,
        height,
        "gbrp",  # almost twice as fast as "rgb24", with the same values
        src_colorspace=_matrix(frame),
        interpolation=ACCURATE,
        threads=1,
    )
    return Image.fromarray(planes.to_ndarray())


def _matrix(frame: VideoFrame) -> int | None:
    """What to take for the matrix of the colours; None for what the frame says."""
    from av.video.reformatter import Colorspace

    if frame.colorspace in UNSPECIFIED:
        is_hd = frame.width >= HD_WIDTH or frame.height >= HD_HEIGHT
        return int(Colorspace.ITU709 if is_hd else Colorspace.ITU601)
    if frame.colorspace == BT2020_CONSTANT:
        return int(Colorspace.BT2020)
    if frame.colorspace not in MATRICES:
        raise ImageError(
            f"colours of the kind {frame.colorspace} of H.273 are not supported: convert the video"
        )
    return None
