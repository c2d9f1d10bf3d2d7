"""Fixtures of the tests of image and text processing."""

import pytest
from helpers.small_tokenizer import LAYOUTS, write_files

from mlx_aimv2.processing.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer with the small vocabulary."""
    return Tokenizer.from_folder(write_files(tmp_path_factory.mktemp("tokenizer"), LAYOUTS["strings"]))
