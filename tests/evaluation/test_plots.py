import math

import numpy as np
import pytest

from mlx_aimv2.errors import InputError
from mlx_aimv2.evaluation.canvas import TEXT, fit, length, number, span, ticks
from mlx_aimv2.evaluation.metrics import calibrate
from mlx_aimv2.evaluation.plots import BLUE, ORANGE, draw_calibration, draw_confusion, draw_curves

WORDS = [
    "cat",
    "a name that goes on and on and on and on and on",
    "café",
    "собака",
    "猫",
    "हाथी",
    "\x00\n",
    "🦉",
]


def colors(image):
    """Every colour of an image."""
    return {color for _, color in image.getcolors(2**24)}


def has(image, color, least=20):
    """Whether so many pixels have nearly this colour."""
    pixels = np.asarray(image).astype(int)
    return (np.abs(pixels - color).max(axis=-1) < 12).sum() >= least


@pytest.mark.parametrize("classes", [1, 2, 10, 37, 100, 260, 1200])
def test_confusion_of_any_number_of_classes(classes):
    image = draw_confusion(np.eye(classes, dtype=int) * 7, [f"class {k}" for k in range(classes)])
    assert image.mode == "RGB"
    assert min(image.size) >= 200 and max(image.size) <= 2400
    assert len(colors(image)) > 2


def test_labels_of_any_script_and_length():
    image = draw_confusion(np.ones((len(WORDS), len(WORDS))), WORDS)
    assert max(image.size) < 1200


def test_right_is_blue_and_wrong_is_orange():
    def tint(matrix):
        pixels = np.asarray(draw_confusion(np.array(matrix), ["a", "b"])).astype(int)
        return (pixels[..., 2] - pixels[..., 0] > 100).any(), (pixels[..., 0] - pixels[..., 2] > 100).any()

    assert tint([[5, 0], [0, 5]]) == (True, False)
    assert tint([[0, 5], [5, 0]]) == (False, True)


def test_an_empty_matrix_and_nan_are_drawn():
    draw_confusion(np.zeros((3, 3)), ["a", "b", "c"])
    draw_confusion(np.full((3, 3), math.nan), ["a", "b", "c"])


@pytest.mark.parametrize(("shape", "labels"), [((2, 3), ["a", "b"]), ((2, 2), ["a"]), ((0, 0), [])])
def test_a_matrix_that_does_not_fit_its_labels(shape, labels):
    with pytest.raises(InputError, match=f"a confusion matrix of {len(labels)} labels is "):
        draw_confusion(np.zeros(shape), labels)


def training(steps, every=10):
    """Lines of a log."""
    for step in range(1, steps + 1):
        yield {"step": step, "epoch": 0, "loss": 3 / step, "learning_rate": 1e-4 * step, "grad_norm": 1.0}
        if step % every == 0:
            yield {"step": step, "epoch": 0, "validation": {"loss": 4 / step, "top1": 0.5, "macro_f1": 0.4}}


def test_curves_have_three_panels_and_two_colours():
    image = draw_curves(training(100))
    one = draw_curves({"step": k, "loss": 1.0} for k in range(5))
    assert image.size[0] == one.size[0] and image.size[1] > 2 * one.size[1]
    assert has(image, BLUE) and has(image, ORANGE)
    assert has(one, BLUE) and not has(one, ORANGE)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"step": 1}],
        [{"loss": 1.0}],
        [{"step": 1, "loss": 2.0}],
        [{"step": 1, "loss": math.nan}, {"step": 2, "loss": math.inf}, {"step": 3, "loss": None}],
        [{"step": 1, "loss": 0.0}, {"step": 2, "loss": 0.0}],
        [{"step": 5, "validation": {"top1": 1.0}}, {"step": 5, "validation": {"top1": 1.0}}],
        [{"step": 1, "validation": None, "loss": "?"}],
        [{"step": k, "loss": math.nan if k % 7 == 0 else 1e30 * k} for k in range(300)],
        list(training(3000)),
    ],
    ids=range(10),
)
def test_curves_of_whatever_a_log_holds(rows):
    assert draw_curves(rows).size[0] == 900


def test_a_gap_in_a_line_is_no_bridge():
    whole = draw_curves([{"step": k, "loss": 1.0} for k in range(40)])
    gap = draw_curves([{"step": k, "loss": 1.0 if abs(k - 20) > 8 else math.nan} for k in range(40)])
    count = [(np.abs(np.asarray(x).astype(int) - BLUE).max(axis=-1) < 12).sum() for x in (whole, gap)]
    assert 0 < count[1] < 0.8 * count[0]


@pytest.mark.parametrize("confidence", [[], [0.3], [0.0, 1.0, 0.5]])
def test_calibration_of_few_images(confidence):
    bins = calibrate(np.array(confidence), np.array([True] * len(confidence)))
    assert draw_calibration(bins).size == (560, 640)
    assert draw_calibration([]).size == (560, 640)


def test_nothing_is_written_on_the_bars_of_the_calibration():
    confidence = np.linspace(0.02, 0.98, 200)
    image = np.asarray(draw_calibration(calibrate(confidence, np.ones(200, bool)))).astype(int)
    bars = np.abs(image - (191, 219, 254)).max(axis=-1) < 3
    top = np.argmax(bars.sum(axis=1) > 0.6 * bars.sum(axis=1).max()) + 4
    columns = bars[:430].sum(axis=0)
    inside = image[top:430, columns > 0.6 * columns.max()]  # through the bars, which are of full height
    assert not (np.abs(inside - BLUE).max(axis=-1) < 60).any()


@pytest.mark.parametrize(
    ("low", "high", "about", "expected"),
    [(0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.57, 0.97, 4, [0.6, 0.7, 0.8, 0.9]), (-3, 3, 3, [-2, 0, 2])],
)
def test_ticks_are_round(low, high, about, expected):
    assert ticks(low, high, about) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.25, "0.25"), (1200.0, "1200"), (31000, "31000"), (1.5e6, "1.5M"), (3e-5, "3e-05")],
)
def test_numbers_are_short(value, shown):
    assert number(value) == shown


def test_a_span_has_room_and_ignores_what_is_not_finite():
    assert span([]) == span([math.nan, math.inf]) == (0, 1)
    low, high = span([2.0, 4.0, math.nan])
    assert low < 2 and high > 4
    assert span([2.0, 4.0], zero=True)[0] == 0
    assert span([0.0], zero=True) == (0, 1)


def test_long_text_is_cut_to_its_width():
    shown, _ = fit("a very long label indeed", TEXT, 60)
    assert shown.startswith("a very") and shown.endswith("...")
    assert length("a very long label indeed", TEXT, 60) <= 60


def test_text_without_a_font_is_replaced_and_accents_are_dropped_before(monkeypatch):
    monkeypatch.setattr("mlx_aimv2.evaluation.canvas.SYSTEM_FONTS", ())
    assert fit("猫猫", 11, instead="#4")[0] == "#4"
    assert fit("crème brûlée", 11)[0] == "creme brulee"
    assert fit("\n", 11, instead="#5")[0] == "#5"
