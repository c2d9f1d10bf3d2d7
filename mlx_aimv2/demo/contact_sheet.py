"""A tour on one image: what the model says under each drawing, what it finds for sentences, what is alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..evaluation.canvas import MUTED, SCALE, TEXT, Canvas, Color, length
from .findings import Sentence, Tour, TourImage
from .scenes import LABELS

COLUMNS, SIDE, THUMB = 4, 208, 104
MARGIN, GAP, FRAME = 28, 20, 4
UNDER = 76  # below an image: prediction, truth
HEADER, HEADING = 66, 48
WORDS = 292  # beside a row of thumbnails
ROW = THUMB + 34
TOLD = 19  # from line to line
RIGHT, WRONG, PALE = (21, 128, 61), (194, 65, 12), (203, 213, 225)
WIDTH = 2 * MARGIN + COLUMNS * SIDE + (COLUMNS - 1) * GAP
FOUND = (WIDTH - 2 * MARGIN - WORDS + GAP) // (THUMB + GAP)  # thumbnails in a row
COMPARED = 3  # images whose neighbours are shown
BIG = 21


def draw_contact_sheet(tour: Tour) -> Image.Image:
    """The sheet: images with predictions, then sentences with the images they find, then neighbours."""
    rows = -(-len(tour.images) // COLUMNS)
    grid = rows * (SIDE + UNDER)
    compared = [k * len(tour.images) // COMPARED for k in range(COMPARED)]
    height = MARGIN + HEADER + grid + 2 * HEADING + (len(tour.sentences) + len(compared)) * ROW + MARGIN
    canvas = Canvas(WIDTH, height)
    _header(canvas, tour)
    for k, image in enumerate(tour.images):
        x = MARGIN + k % COLUMNS * (SIDE + GAP)
        _cell(canvas, image, x, MARGIN + HEADER + k // COLUMNS * (SIDE + UNDER))
    top: float = MARGIN + HEADER + grid
    top = _heading(canvas, top, "Images found for a sentence", "the one it was written for is framed")
    for sentence in tour.sentences:
        _sentence(canvas, tour.images, sentence, top)
        top += ROW
    top = _heading(canvas, top, "Nearest neighbours", "by the cosine of their vectors")
    for k in compared:
        _neighbours(canvas, tour.images, k, top)
        top += ROW
    return canvas.finish()


def _header(canvas: Canvas, tour: Tour) -> None:
    canvas.text((MARGIN, MARGIN + 10), f"{tour.right} of {len(tour.images)} labels are right", size=BIG)
    canvas.text(
        (MARGIN, MARGIN + 36),
        f"zero-shot by {Path(tour.model).name}, out of {len(LABELS)}; right: the label names a thing on the drawing",
        color=MUTED,
        width=WIDTH - 2 * MARGIN,
    )


def _heading(canvas: Canvas, top: float, title: str, words: str) -> float:
    """A title with a few words beside it; where the section under it begins."""
    canvas.text((MARGIN, top + 20), title, size=17)
    canvas.text((MARGIN + length(title, 17) + 12, top + 21), words, color=MUTED)
    return top + HEADING


def _cell(canvas: Canvas, image: TourImage, x: float, top: float) -> None:
    """An image, the label it was given and how sure that is, and the truth."""
    color = RIGHT if image.is_right else WRONG
    _paste(canvas, image.path, x, top, SIDE, color)
    label, share = image.predictions[0]
    bottom = top + SIDE
    canvas.box(x, bottom + 9, x + SIDE, bottom + 11, PALE)
    canvas.box(x, bottom + 9, x + SIDE * share, bottom + 11, color)
    _mark(canvas, x + 8, bottom + 26, image.is_right)
    shown = f"{share:.0%}"
    canvas.text((x + SIDE, bottom + 26), shown, "rm", color=MUTED)
    canvas.text((x + 22, bottom + 26), label, size=15, color=color, width=SIDE - 30 - length(shown, TEXT))
    canvas.text((x, bottom + 46), f"truth: {' + '.join(image.labels)}", size=11, color=MUTED, width=SIDE)


def _mark(canvas: Canvas, x: float, y: float, is_right: bool) -> None:
    """A tick or a cross, for those to whom the colours look alike."""
    if is_right:
        canvas.line([(x - 6, y), (x - 2, y + 5), (x + 6, y - 5)], RIGHT, 2.5)
    else:
        canvas.line([(x - 5, y - 5), (x + 5, y + 5)], WRONG, 2.5)
        canvas.line([(x - 5, y + 5), (x + 5, y - 5)], WRONG, 2.5)


def _sentence(canvas: Canvas, images: Sequence[TourImage], sentence: Sentence, top: float) -> None:
    """The sentence, and the images most like it."""
    lines = _wrapped(sentence.text, WORDS - GAP)
    first = top + THUMB / 2 - TOLD * (len(lines) - 1) / 2
    for number, line in enumerate(lines):
        canvas.text((MARGIN, first + TOLD * number), line)
    found = [(k, _two_digits(cosine), RIGHT if k == sentence.own else None) for k, cosine in sentence.ranking]
    _thumbs(canvas, images, found[:FOUND], top)


def _neighbours(canvas: Canvas, images: Sequence[TourImage], k: int, top: float) -> None:
    """An image, and those most like it."""
    own = images[k]
    _paste(canvas, own.path, MARGIN, top, THUMB)
    for number, label in enumerate(own.labels):
        at = (MARGIN + THUMB + 14, top + THUMB / 2 + TOLD * (number - (len(own.labels) - 1) / 2))
        canvas.text(at, label, width=WORDS - THUMB - GAP - 14)
    found = [(number, _two_digits(cosine), None) for number, cosine in own.neighbours]
    _thumbs(canvas, images, found[:FOUND], top)


def _thumbs(
    canvas: Canvas, images: Sequence[TourImage], found: Sequence[tuple[int, str, Color | None]], top: float
) -> None:
    """Small images in a row, each with a number under it and perhaps a frame."""
    for place, (k, words, color) in enumerate(found):
        x = MARGIN + WORDS + place * (THUMB + GAP)
        _paste(canvas, images[k].path, x, top, THUMB, color)
        canvas.text((x + THUMB / 2, top + THUMB + 14), words, "mm", 11, color or MUTED)


def _two_digits(cosine: float) -> str:
    return f"{round(cosine, 2) + 0.0:.2f}"  # no negative zero


def _paste(canvas: Canvas, path: Path, x: float, top: float, side: int, frame: Color | None = None) -> None:
    if frame is not None:
        canvas.box(x - FRAME, top - FRAME, x + side + FRAME - 1, top + side + FRAME - 1, frame)
    canvas.image.paste(_resized(path, side * SCALE), (round(x * SCALE), round(top * SCALE)))


def _resized(path: Path, side: int) -> Image.Image:
    with Image.open(path) as image:
        return image.resize((side, side), Image.Resampling.LANCZOS)


def _wrapped(text: str, width: float) -> list[str]:
    """The text in lines of at most so many pixels, as far as words allow."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if length(longer, TEXT) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
