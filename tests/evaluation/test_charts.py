"""Charts: sizes, colours, gaps, labels of any script, and matplotlib left alone."""

import io
import math
import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from mlx_aimv2.errors import InputError
from mlx_aimv2.evaluation import charts
from mlx_aimv2.evaluation.charts import draw_calibration, draw_confusion, draw_curves
from mlx_aimv2.evaluation.metrics import calibrate

BLUE, ORANGE = (37, 99, 235), (234, 88, 12)
LABELS = [
    "cat",
    "a name that goes on and on and on and on and on",
    "café",
    "собака",
    "猫",
    "हाथी",
    "\x00\n",
    "🦉",
    "$5 a_b^c $6",
]


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Fewer pixels, which take less time to draw."""
    monkeypatch.setattr(charts, "DPI", 60)


def pixels(png):
    """The pixels (H, W, 3) of a chart, as int."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def count(png, color):
    """How many pixels have nearly this colour."""
    return int((np.abs(pixels(png) - color).max(axis=-1) < 12).sum())


@pytest.mark.parametrize("classes", [1, 50])
def test_confusion_of_any_number_of_classes(monkeypatch, classes):
    monkeypatch.setattr(charts, "MOST_CLASSES", 40)
    image = pixels(draw_confusion(np.eye(classes, dtype=int) * 7, [f"class {k}" for k in range(classes)]))
    assert min(image.shape[:2]) >= 1.4 * charts.DPI and max(image.shape[:2]) <= 10 * charts.DPI
    assert image.std(axis=(0, 1)).min() > 5


def test_labels_of_any_script_and_length():
    image = pixels(draw_confusion(np.ones((len(LABELS), len(LABELS))), LABELS))
    assert max(image.shape) < 11 * charts.DPI


def test_labels_are_cut_and_numbered_where_no_font_has_them(monkeypatch):
    monkeypatch.setattr(charts, "_characters", lambda: frozenset(map(ord, "é$^… ")) | set(range(48, 123)))
    names = [charts._writable(label, f"#{k}") for k, label in enumerate(LABELS)]
    assert names[:3] == ["cat", "a name that goes on and on…", "café"]
    assert names[3:] == ["#3", "#4", "#5", "#6", "#7", "$5 a_b^c $6"]


def test_right_is_blue_and_wrong_is_orange():
    def tint(matrix):
        image = pixels(draw_confusion(np.array(matrix), ["a", "b"]))
        return (image[..., 2] - image[..., 0] > 100).any(), (image[..., 0] - image[..., 2] > 100).any()

    assert tint([[5, 0], [0, 5]]) == (True, False)
    assert tint([[0, 5], [5, 0]]) == (False, True)


@pytest.mark.parametrize("value", [0, math.nan])
def test_an_empty_matrix_and_nan_are_drawn(value):
    assert draw_confusion(np.full((3, 3), value), ["a", "b", "c"])


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
    three, one = draw_curves(training(100)), draw_curves({"step": k, "loss": 1.0} for k in range(5))
    assert pixels(three).shape[0] == 3 * pixels(one).shape[0]
    assert count(three, BLUE) >= 20 and count(three, ORANGE) >= 20
    assert count(one, BLUE) >= 20 and not count(one, ORANGE)


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
    ],
    ids=range(9),
)
def test_curves_of_whatever_a_log_holds(rows):
    assert pixels(draw_curves(rows)).shape[1] == 9 * charts.DPI


def test_a_gap_in_a_line_is_no_bridge():
    whole = draw_curves([{"step": k, "loss": 1.0} for k in range(40)])
    gap = draw_curves([{"step": k, "loss": 1.0 if abs(k - 20) > 8 else math.nan} for k in range(40)])
    assert 0 < count(gap, BLUE) < 0.8 * count(whole, BLUE)


@pytest.mark.parametrize("confidence", [[], [0.0, 1.0, 0.5]])
def test_calibration_of_few_images(confidence):
    bins = calibrate(np.array(confidence), np.array([True] * len(confidence)))
    assert pixels(draw_calibration(bins)).shape == (384, 384, 3)


def test_nothing_is_written_on_the_bars_of_the_calibration():
    confidence = np.linspace(0.02, 0.98, 200)
    image = pixels(draw_calibration(calibrate(confidence, np.ones(200, bool))))
    bars = np.abs(image - (191, 219, 254)).max(axis=-1) < 3
    rows = np.flatnonzero(bars.sum(axis=1) > 0.6 * bars.sum(axis=1).max())
    inside = image[rows[4] : rows[-4], bars[rows[0] : rows[-1]].sum(axis=0) > 0.6 * len(rows)]
    assert inside.size and not (inside.max(axis=-1) < 60).any()  # no black letters


def test_a_chart_does_not_depend_on_the_settings_of_the_user_and_leaves_them(monkeypatch):
    bins = calibrate(np.array([0.3]), np.array([True]))
    plain = draw_calibration(bins)
    with matplotlib.rc_context({"lines.linewidth": 9.0, "font.size": 20.0, "figure.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert draw_calibration(bins) == plain
        assert dict(matplotlib.rcParams) == before


def test_a_home_that_cannot_be_written_makes_no_noise(tmp_path):
    (tmp_path / "file").touch()
    home = str(tmp_path / "file" / "home")
    env = {key: value for key, value in os.environ.items() if key != "MPLCONFIGDIR"}
    env |= {"HOME": home, "XDG_CACHE_HOME": home, "XDG_CONFIG_HOME": home}
    program = "import sys; from mlx_aimv2.evaluation.charts import draw_curves; draw_curves([{'step': 1, 'loss': 1}])"
    program += "; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("False\n", "")
