"""The contact sheet of the demo: images with predictions, images ranked for sentences, nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .canvas import MUTED, SCALE, Canvas, Color, length
from .findings import Sentence, Tour, TourImage
from .images import LABELS

COLUMNS, SIDE, THUMB = 4, 208, 104
MARGIN, GAP, FRAME = 28, 20, 4
UNDER = 76  # below an image: prediction and correct labels
HEADER, HEADING = 66, 48
CAPTION = 292  # width of the text beside a row of thumbnails
ROW = THUMB + 34
LINE = 19  # line height
RIGHT, WRONG, PALE = (21, 128, 61), (194, 65, 12), (203, 213, 225)
WIDTH = 2 * MARGIN + COLUMNS * SIDE + (COLUMNS - 1) * GAP
THUMBS = (WIDTH - 2 * MARGIN - CAPTION + GAP) // (THUMB + GAP)  # thumbnails in a row
COMPARED = 3  # images with a row of neighbours
BIG = 21


def draw_contact_sheet(tour: Tour) -> Image.Image:
    """Draw images with predictions, then sentences with their best images, then nearest neighbours."""
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
    top = _heading(
        canvas, top, "Images for a sentence", "best first; the image that it describes has a frame"
    )
    for sentence in tour.sentences:
        _sentence(canvas, tour.images, sentence, top)
        top += ROW
    top = _heading(canvas, top, "Nearest neighbours", "by the cosine of their embeddings")
    for k in compared:
        _neighbours(canvas, tour.images, k, top)
        top += ROW
    return canvas.finish()


def _header(canvas: Canvas, tour: Tour) -> None:
    canvas.text((MARGIN, MARGIN + 10), f"{tour.right} of {len(tour.images)} labels are right", size=BIG)
    canvas.text(
        (MARGIN, MARGIN + 36),
        f"zero-shot by {Path(tour.model).name}, out of {len(LABELS)}; right: the label names a shape on the image",
        color=MUTED,
        width=WIDTH - 2 * MARGIN,
    )


def _heading(canvas: Canvas, top: float, title: str, note: str) -> float:
    """Draw a title with a note beside it; return the top of the section below."""
    canvas.text((MARGIN, top + 20), title, size=17)
    canvas.text((MARGIN + length(title, 17) + 12, top + 21), note, color=MUTED)
    return top + HEADING


def _cell(canvas: Canvas, image: TourImage, x: float, top: float) -> None:
    """Draw an image with its predicted label, the probability and the correct labels."""
    color = RIGHT if image.is_right else WRONG
    _paste(canvas, image.path, x, top, SIDE, color)
    label, share = image.predictions[0]
    bottom = top + SIDE
    canvas.box(x, bottom + 9, x + SIDE, bottom + 11, PALE)
    canvas.box(x, bottom + 9, x + SIDE * share, bottom + 11, color)
    _mark(canvas, x + 8, bottom + 26, image.is_right)
    percent = f"{share:.0%}"
    canvas.text((x + SIDE, bottom + 26), percent, "rm", color=MUTED)
    canvas.text((x + 22, bottom + 26), label, size=15, color=color, width=SIDE - 30 - length(percent))
    canvas.text((x, bottom + 46), f"truth: {' + '.join(image.labels)}", size=11, color=MUTED, width=SIDE)


def _mark(canvas: Canvas, x: float, y: float, is_right: bool) -> None:
    """Draw a tick or a cross, for readers who cannot tell the colours apart."""
    if is_right:
        canvas.line([(x - 6, y), (x - 2, y + 5), (x + 6, y - 5)], RIGHT, 2.5)
    else:
        canvas.line([(x - 5, y - 5), (x + 5, y + 5)], WRONG, 2.5)
        canvas.line([(x - 5, y + 5), (x + 5, y - 5)], WRONG, 2.5)


def _sentence(canvas: Canvas, images: Sequence[TourImage], sentence: Sentence, top: float) -> None:
    """Draw a sentence and its best images."""
    lines = _wrapped(sentence.text, CAPTION - GAP)
    first = top + THUMB / 2 - LINE * (len(lines) - 1) / 2
    for number, line in enumerate(lines):
        canvas.text((MARGIN, first + LINE * number), line)
    ranked = [(k, cosine, RIGHT if k == sentence.own else None) for k, cosine in sentence.ranking]
    _thumbs(canvas, images, ranked[:THUMBS], top)


def _neighbours(canvas: Canvas, images: Sequence[TourImage], k: int, top: float) -> None:
    """Draw an image and its nearest neighbours."""
    own = images[k]
    _paste(canvas, own.path, MARGIN, top, THUMB)
    for number, label in enumerate(own.labels):
        at = (MARGIN + THUMB + 14, top + THUMB / 2 + LINE * (number - (len(own.labels) - 1) / 2))
        canvas.text(at, label, width=CAPTION - THUMB - GAP - 14)
    _thumbs(canvas, images, [(j, cosine, None) for j, cosine in own.neighbours[:THUMBS]], top)


def _thumbs(
    canvas: Canvas, images: Sequence[TourImage], items: Sequence[tuple[int, float, Color | None]], top: float
) -> None:
    """Draw a row of thumbnails: the index of an image, the cosine under it, the colour of its frame if it has one."""
    for column, (k, cosine, color) in enumerate(items):
        x = MARGIN + CAPTION + column * (THUMB + GAP)
        _paste(canvas, images[k].path, x, top, THUMB, color)
        cosine = round(cosine, 2) + 0.0  # no negative zero
        canvas.text((x + THUMB / 2, top + THUMB + 14), f"{cosine:.2f}", "mm", 11, color or MUTED)


def _paste(canvas: Canvas, path: Path, x: float, top: float, side: int, frame: Color | None = None) -> None:
    if frame is not None:
        canvas.box(x - FRAME, top - FRAME, x + side + FRAME - 1, top + side + FRAME - 1, frame)
    with Image.open(path) as image:
        resized = image.resize((side * SCALE, side * SCALE), Image.Resampling.LANCZOS)
    canvas.image.paste(resized, (round(x * SCALE), round(top * SCALE)))


def _wrapped(text: str, width: float) -> list[str]:
    """Break a text into lines of at most ``width`` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if length(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
