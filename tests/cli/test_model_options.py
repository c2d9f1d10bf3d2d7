"""Options that verbs share: the adapter is read once, and what `load` gets."""

import pytest

from mlx_aimv2.cli.model_options import AdapterOptions, ExactModelOptions, LoadingOptions
from mlx_aimv2.errors import InputError


def test_the_folder_of_an_adapter_is_read_once(probe, pair):
    options = ExactModelOptions(adapter_path=probe)
    named = options.with_base()
    assert named.model == str(pair) and named.adapter is options.adapter


def test_any_base_needs_an_adapter():
    with pytest.raises(InputError, match="--any-base needs --adapter-path"):
        AdapterOptions(any_base=True)


@pytest.mark.parametrize(
    ("patches", "expected"),
    [({"max_patches": 50}, (50, 50)), ({"min_patches": 1}, (1, 4096)), ({}, (112, 4096))],
)
def test_a_small_largest_number_of_patches_lowers_the_default_of_the_least(patches, expected):
    native = LoadingOptions(**patches).load_options().native
    assert (native.min_patches, native.max_patches) == expected
