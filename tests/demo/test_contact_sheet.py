"""The contact sheet: its size, and the colours of right and wrong labels."""

from dataclasses import replace

from PIL import Image

from mlx_aimv2.demo.contact_sheet import RIGHT, WRONG, draw_contact_sheet


def test_the_sheet_shows_right_and_wrong(tour):
    first = tour.images[0]
    right = replace(first, predictions=[(first.labels[0], 0.9)])
    wrong = replace(first, predictions=[("no such thing", 0.9)])

    def colors(image):
        sheet = draw_contact_sheet(replace(tour, images=(image, *[wrong] * 5), sentences=()))
        return {color for _, color in sheet.getcolors(sheet.width * sheet.height)}

    assert {RIGHT, WRONG} <= colors(right)
    assert RIGHT not in colors(wrong)


def test_the_sheet_is_an_image(tour):
    with Image.open(tour.folder / "contact-sheet.png") as sheet:
        assert sheet.size[0] == 948
