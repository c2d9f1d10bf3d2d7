"""The canvas of the contact sheet: text that does not fit, and characters that the font lacks."""

import numpy as np

from mlx_aimv2.demo.canvas import Canvas, length


def drawn(text, width):
    canvas = Canvas(200, 20)
    canvas.text((0, 10), text, width=width)
    return np.asarray(canvas.finish())


def test_a_long_text_is_cut_to_the_width():
    pixels = drawn("a striped circle" * 10, 100)
    assert (pixels[:, :100] < 128).any() and (pixels[:, 101:] == 255).all()
    assert np.array_equal(drawn("circle", 100), drawn("circle", 60)) and length("circle") < 60


def test_characters_that_the_font_lacks_are_question_marks():
    assert np.array_equal(drawn("caf\u00e9 \u732b", 100), drawn("caf? ?", 100))
