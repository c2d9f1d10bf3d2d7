"""The tour: what it draws, says and leaves; on a small untrained pair, so that nothing has to be right."""

import numpy as np
import pytest

from mlx_aimv2.demo.images import LABELS
from mlx_aimv2.demo.options import TourOptions
from mlx_aimv2.demo.tour import take_tour
from mlx_aimv2.errors import InputError, OutputError
from mlx_aimv2.events import Notice


def test_it_leaves_images_vectors_and_a_sheet(tour):
    names = sorted(path.name for path in tour.folder.iterdir())
    assert names == ["contact-sheet.png", "images", "labels.txt", "vectors.npz"]
    assert tuple((tour.folder / "labels.txt").read_text().splitlines()) == LABELS
    assert sorted((tour.folder / "images").iterdir()) == [one.path for one in tour.images]
    with np.load(tour.folder / "vectors.npz") as file:
        assert file["embeddings"].shape[0] == 6
        assert list(file["paths"]) == [str(one.path) for one in tour.images]


def test_every_step_is_told_with_its_time(tour, tour_events):
    assert [step.name for step in tour.steps] == [
        "load", "label", "copy", "embed", "classify", "rank", "sheet",
    ]  # fmt: skip
    steps = [
        event.message for event in tour_events if isinstance(event, Notice) and event.message.endswith(" s)")
    ]
    assert len(steps) == 7


def test_what_an_earlier_run_left_is_said_to_be_that(model, tmp_path):
    (tmp_path / "images").mkdir()
    message = f"{tmp_path} has the files of an earlier run: replace them with --force, or name another folder"
    with pytest.raises(OutputError) as caught:
        take_tour(tmp_path, TourOptions(model))
    assert str(caught.value) == message


def test_a_folder_with_something_in_it_is_left_alone(model, tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(OutputError) as caught:
        take_tour(tmp_path, TourOptions(model))
    assert str(caught.value) == (
        f"{tmp_path} is not empty: name another folder, or write into it with --force"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_force_replaces_what_an_earlier_tour_left_and_nothing_else(model, tmp_path):
    take_tour(tmp_path, TourOptions(model, count=5))
    own = {"mine.png", "01-holiday.png", "02-red-circle-and-i.png"}
    for name in own:
        (tmp_path / "images" / name).touch()
    tour = take_tour(tmp_path, TourOptions(model, count=4, force=True))
    left = {path.name for path in (tmp_path / "images").iterdir()}
    assert left == own | {one.path.name for one in tour.images} and len(left) == 7


def test_a_file_is_not_a_folder(model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file is not a folder: name another"):
        take_tour(tmp_path / "file", TourOptions(model))


def test_a_folder_that_cannot_be_written(model, tmp_path):
    (tmp_path / "images").touch()
    with pytest.raises(OutputError, match=f"{tmp_path} cannot be written: File exists"):
        take_tour(tmp_path, TourOptions(model, force=True))


def test_a_name_that_no_folder_can_have(model, tmp_path):
    with pytest.raises(OutputError, match="cannot be written: File name too long"):
        take_tour(tmp_path / ("long" * 100), TourOptions(model))


def test_a_vision_encoder_alone_is_refused_before_anything_is_drawn(tiny_vision, tmp_path):
    with pytest.raises(InputError, match="which zero-shot labels need: use the image-text pair lit"):
        take_tour(tmp_path, TourOptions(str(tiny_vision)))
    assert list(tmp_path.iterdir()) == []
