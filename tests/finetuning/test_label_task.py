"""Runs on labelled images: data that cannot be trained on."""

from __future__ import annotations

import pytest

from mlx_aimv2.errors import InputError
from mlx_aimv2.finetuning.run import finetune


def test_without_data(options):
    with pytest.raises(
        InputError, match="there is no data: give --data FOLDER, with a folder per class in it"
    ):
        finetune(options(data=""))


def test_without_images_for_validation(options):
    with pytest.raises(
        InputError, match="there are no images for validation: give a --val-fraction, or a folder val/"
    ):
        finetune(options(val_fraction=0.0))


def test_classes_of_one_image_have_nothing_to_hold_out(options, own_data):
    for folder in own_data.iterdir():
        for path in sorted(folder.iterdir())[1:]:
            path.unlink()
    with pytest.raises(InputError, match="no class has two images, so none can be held out: add some"):
        finetune(options(data=str(own_data)))
