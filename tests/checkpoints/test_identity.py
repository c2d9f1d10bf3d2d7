import hashlib
import re

import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2.checkpoints.files import read_header
from mlx_aimv2.checkpoints.identity import SAMPLE_BYTES, checkpoint_hash
from mlx_aimv2.errors import DamagedFileError

TENSORS = {"a": mx.arange(6.0).reshape(2, 3), "b": mx.arange(2048.0), "c": mx.array(1.0)}


@pytest.fixture
def hash_of(tmp_path):
    def write(*parts):
        files = []
        for tensors in parts:
            files.append(tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors")
            mx.save_safetensors(str(files[-1]), tensors)
        return checkpoint_hash(read_header(tuple(files)))

    return write


def test_the_hash_is_sixteen_digits_and_the_same_again(hash_of):
    first = hash_of(TENSORS)
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert hash_of(TENSORS) == first


def test_files_and_order_do_not_matter(hash_of):
    split = hash_of({"c": TENSORS["c"], "b": TENSORS["b"]}, {"a": TENSORS["a"]})
    assert split == hash_of(TENSORS)


@pytest.mark.parametrize(
    "change",
    [
        {"c": mx.array(2.0)},
        {"c": mx.array([1.0])},
        {"a": TENSORS["a"].astype(mx.float16)},
        {"a": TENSORS["a"].reshape(3, 2)},
        {"d": mx.array(0.0)},
        {"b": mx.where(mx.arange(2048) == SAMPLE_BYTES // 4 - 1, -1.0, TENSORS["b"])},
    ],
    ids=["value", "rank", "dtype", "shape", "name", "last-sampled-value"],
)
def test_any_other_checkpoint_has_another_hash(hash_of, change):
    assert hash_of({**TENSORS, **change}) != hash_of(TENSORS)


def test_values_beyond_the_sample_are_not_read(hash_of):
    deep = mx.where(mx.arange(2048) == SAMPLE_BYTES // 4, -1.0, TENSORS["b"])
    assert hash_of({**TENSORS, "b": deep}) == hash_of(TENSORS)


def test_the_hash_stays_what_stored_vectors_carry(hash_of):
    expected = hashlib.sha256(b"a F32 (1,)\n" + bytes(4) + b"b F16 ()\n" + bytes(2)).hexdigest()[:16]
    assert hash_of({"b": mx.array(0.0, dtype=mx.float16), "a": mx.zeros((1,))}) == expected


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed], ids=["plain", "compressed"])
@pytest.mark.parametrize("name", ["model.npz", "weights.npz"])
def test_an_npz_has_the_hash_of_its_tensors(hash_of, tmp_path, write, name):
    write(tmp_path / name, **{name: np.array(x) for name, x in TENSORS.items()})
    assert checkpoint_hash(read_header((tmp_path / name,))) == hash_of(TENSORS)


def test_a_file_that_is_gone_has_none(tmp_path):
    mx.save_safetensors(str(tmp_path / "x.safetensors"), TENSORS)
    header = read_header((tmp_path / "x.safetensors",))
    (tmp_path / "x.safetensors").unlink()
    with pytest.raises(
        DamagedFileError, match=r"x\.safetensors: the data of a tensor cannot be read \(.*No such"
    ):
        checkpoint_hash(header)
