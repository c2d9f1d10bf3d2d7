"""Apple's Flax weights: files as `flax.serialization` writes them are read, everything else refused in one line."""

import contextlib
import re
import shutil
import tracemalloc

import mlx.core as mx
import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from mlx_aimv2 import LoadOptions, convert, load
from mlx_aimv2.checkpoints.files import open_tensors, read_header
from mlx_aimv2.checkpoints.flax import DTYPES
from mlx_aimv2.checkpoints.identity import checkpoint_hash
from mlx_aimv2.errors import DamagedFileError
from mlx_aimv2.loading import inspect


def extension(x, code=1, dtype=None):
    return msgpack.ExtType(code, packed(x.shape, dtype or x.dtype.name, x.tobytes()))


def packed(*parts):
    return msgpack.packb(parts, use_bin_type=True)


def leaf(x):
    """An array as Flax writes it; it calls bfloat16 by that name."""
    x = mx.contiguous(x)
    return (
        extension(np.array(x.view(mx.uint16)), dtype="bfloat16")
        if x.dtype == mx.bfloat16
        else extension(np.array(x))
    )


def flax_file(tensors):
    """What `flax.serialization.to_bytes` makes of a model's variables."""
    tree = {}
    for name, x in tensors.items():
        *modules, last = name.split(".")
        branch = tree.setdefault("params", {})
        for module in modules:
            branch = branch.setdefault(module, {})
        branch[last] = leaf(x)
    return msgpack.packb(tree, strict_types=True)


@contextlib.contextmanager
def held_at_most(nbytes):
    """Fails where Python holds more at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < nbytes
    finally:
        tracemalloc.stop()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "flax_model.msgpack"


# --- reading ---


def test_names_shapes_dtypes_and_places_are_told(path):
    tensors = {"a.kernel": mx.arange(6.0).reshape(2, 3), "b.c.scale": mx.array([1.5, 2], dtype=mx.bfloat16)}
    path.write_bytes(flax_file({**tensors, "log_logit_scale": mx.array(0.5)}))
    header = read_header((path,))
    assert header.shapes == {"a.kernel": (2, 3), "b.c.scale": (2,), "log_logit_scale": ()}
    assert [info.dtype for info in header.tensors.values()] == ["F32", "BF16", "F32"]
    info = header.tensors["a.kernel"]
    assert path.read_bytes()[info.start : info.start + info.nbytes] == np.arange(6, dtype="<f4").tobytes()
    found = open_tensors(header)
    assert all(found[name].dtype == x.dtype and mx.array_equal(found[name], x) for name, x in tensors.items())


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name not in ("float64", "bfloat16")])
@pytest.mark.parametrize("size", [0, 1, 7, 300, 70_000])
def test_every_dtype_and_length_is_read(path, dtype, size):
    x = (np.arange(size) % 2).astype(dtype)
    path.write_bytes(msgpack.packb({"params": {"x": extension(x)}}))
    (found,) = open_tensors(read_header((path,))).values()
    assert str(found.dtype).removeprefix("mlx.core.").rstrip("_") == dtype
    assert np.array_equal(np.array(found), x)


def test_scalars_and_trees_without_params_are_read(path):
    path.write_bytes(msgpack.packb({"a": {"b": extension(np.array(2.5, np.float32), code=3)}, "n": {}}))
    assert open_tensors(read_header((path,)))["a.b"].item() == 2.5


@pytest.mark.parametrize("variant", ["fixed", "native", "lit", "biases"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_loads_as_from_safetensors(checkpoint, tmp_path, variant, dtype):
    folder = shutil.copytree(checkpoint(variant, "flax", dtype), tmp_path / "x")
    expected, _ = load(folder, dtype="float32")
    (folder / "flax_model.msgpack").write_bytes(flax_file(mx.load(str(folder / "model.safetensors"))))
    named = inspect(folder, weights="flax_model.msgpack")
    (folder / "model.safetensors").unlink()
    model, _ = load(folder, dtype="float32", options=LoadOptions(weights=None))
    assert model.origin.layout == named.layout.name == "flax"
    assert model.origin.checkpoint == checkpoint_hash(named.header) == expected.origin.checkpoint
    converted, _ = load(convert(folder, tmp_path / "converted"), dtype="float32")
    wanted = dict(tree_flatten(expected.parameters()))
    for one in (model, converted):
        found = dict(tree_flatten(one.parameters()))
        assert found.keys() == wanted.keys()
        assert all(mx.array_equal(found[name], x) for name, x in wanted.items())


def test_heads_alone_are_read(path):
    size = 3 << 30  # of an array that takes no room on the disk
    head = packed([size // 4], "float32")[1:] + b"\xc6" + size.to_bytes(4, "big")
    with path.open("wb") as file:
        file.write(b"\x81\xa1x\xc9" + (len(head) + 1 + size).to_bytes(4, "big") + b"\x01\x93" + head)
        file.truncate(file.tell() + size)
    with held_at_most(2**20):
        assert read_header((path,)).shapes == {"x": (size // 4,)}


def test_a_shape_of_millions_of_sides_is_not_read(path):
    sides = 4 * 2**20
    body = b"\x93\xdd" + sides.to_bytes(4, "big") + bytes(sides) + packed("float32", b"")[1:]
    path.write_bytes(tree(msgpack.ExtType(1, body)))
    with (
        held_at_most(2**20),
        pytest.raises(DamagedFileError, match=f"x has {sides} dimensions, and no weight"),
    ):
        read_header((path,))


# --- refusals ---

ONE = extension(np.zeros(2, np.float32))


def tree(value=ONE):
    return msgpack.packb({"params": {"x": value}})


def nested(depth):
    return b"\x81\xa1a" * depth + msgpack.packb(ONE)


def array(*parts, code=1):
    return tree(msgpack.ExtType(code, packed(*parts)))


ZEROS = bytes(8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is cut off in its start: download it again"),
        (b"\x80", "is not a file of Flax weights: download it again"),
        (b"\xc1", "is not a file of Flax weights"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer: run"),
        (tree()[:-1], "is cut off in x: download it again"),
        (tree()[:12], "is cut off in x: download it again"),
        (tree()[:4], r"is cut off in (params|its start): download it again"),
        (tree() + b"\0", r"is not as Flax writes it \(1 bytes after its end\): download it again"),
        (b"\xdf\xff\xff\xff\xff\xa1x", "is cut off in its start"),
        (b"\x81\xa1x\xdf\xff\xff\xff\xff", "is cut off in x"),
        (b"\x81\xa1x\xc9\xff\xff\xff\xff\x01\x93", "is cut off in x"),
        (nested(40), r"is not as Flax writes it \(maps more than 32 deep\)"),
        (b"\x81\xa1a" * 100_000, r"\(maps more than 32 deep\)|name"),
        (b"\xdf\x00\x02\x00\x00" + b"\xa1x\x80" * (1 << 17), "claims 100001 tensors, and no model has over 100000"),
        (msgpack.packb({3: ONE}), "integer in its start where text should be"),
        (msgpack.packb({b"x": ONE}), "bytes in its start where text should be"),
        (b"\x81\xa2\xff\xfe" + msgpack.packb(ONE), "a name that is not text in its start"),
        (msgpack.packb({"x" * 5000: ONE}), "a name of 5000 bytes in its start"),
        (msgpack.packb({"a\nb": ONE}), r"its header is damaged \(a tensor named 'a\\nb'\)"),
        (msgpack.packb({"x" * 900: {"y" * 900: ONE}}), "its header is damaged .a tensor named"),
        (b"\x82\xa1x" + msgpack.packb(ONE) + b"\xa1x" + msgpack.packb(ONE), r"\(x is in it twice\)"),
        (tree(None), r"\(x is nothing, not an array\)"),
        (tree(True), r"\(x is true, not an array\)"),
        (tree(1.5), r"\(x is a number, not an array\)"),
        (tree(-40), r"\(x is a negative number, not an array\)"),
        (tree([ONE]), r"\(x is list, not an array\)"),
        (tree("x"), r"\(x is text, not an array\)"),
        (tree(msgpack.ExtType(2, packed(1.0, 2.0))), r"\(x is of extension type 2, not an array\)"),
        (array([2], "float32", ZEROS, code=5), r"\(x is of extension type 5, not an array\)"),
        (array([2], "float32"), r"\(x is not shape, dtype and data\)"),
        (array([2], "float32", ZEROS, 1), r"\(x is not shape, dtype and data\)"),
        (tree(msgpack.ExtType(1, b"\x01")), r"\(integer in x where list should be\)"),
        (array(2, "float32", ZEROS), r"\(integer in x where list should be\)"),
        (array(["2"], "float32", ZEROS), r"\(text in x where integer should be\)"),
        (array([-1], "float32", ZEROS), r"\(a negative number in x where integer should be\)"),
        (array([2], 4, ZEROS), r"\(integer in x where text should be\)"),
        (array([2], "float32", "12345678"), r"\(text in x where bytes should be\)"),
        (array([1] * 9, "float32", ZEROS), "x has 9 dimensions, and no weight has over 8"),
        (array([2**40, 0], "float32", b""), "x has a side of 1099511627776, which is too large"),
        (array([1], "float64", ZEROS), "x has the dtype 'F64', which is not supported"),
        (array([1], "complex64", ZEROS), "x has the dtype 'complex64', which is not supported"),
        (array([3], "float32", ZEROS), r"x of shape \[3\] needs 12 bytes and has 8"),
        (tree(msgpack.ExtType(1, packed([2], "float32", ZEROS) + b"1234")), r"needs 8 bytes and has 12"),
        (
            tree({"__msgpack_chunked_array__": True, "shape": {"0": 2}, "chunks": {"0": ONE}}),
            "params.x is stored in chunks, which is not supported: no AIMv2 tensor needs them",
        ),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(path, content, message):
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=f"^{re.escape(str(path))}.*{message}") as caught:
        read_header((path,))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1500


def test_a_file_that_is_not_there_is_refused(path):
    with pytest.raises(DamagedFileError, match=r"flax_model\.msgpack cannot be read: No such file"):
        read_header((path,))


WHOLE = flax_file({"a.kernel": mx.arange(6.0).reshape(2, 3), "b.scale": mx.array([1], dtype=mx.bfloat16)})
EDITS = st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4)


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(edits=EDITS, cut=st.integers(0, len(WHOLE)) | st.just(len(WHOLE)))
@example(edits=[(0, 0x81)], cut=len(WHOLE))
def test_whatever_happened_to_a_file_it_is_read_or_refused(path, edits, cut):
    content = bytearray(WHOLE)
    for place, value in edits:
        content[place] = value
    path.write_bytes(bytes(content[:cut]))
    try:
        tensors = open_tensors(read_header((path,)))
    except DamagedFileError as error:
        assert "\n" not in str(error)
        return
    mx.eval(tensors)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=4)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
ARRAYS = st.builds(
    lambda shape, dtype, data, code: msgpack.ExtType(code, packed(shape, dtype, data)),
    JUNK | st.lists(st.integers(0, 4), max_size=3),
    JUNK | st.sampled_from(["float32", "uint8"]),
    JUNK | st.binary(max_size=40),
    st.integers(0, 127) | st.just(1),
)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    value=st.dictionaries(
        st.text(max_size=3), ARRAYS | JUNK | st.dictionaries(st.text(max_size=2), ARRAYS), max_size=3
    )
)
def test_whatever_a_tree_holds_it_is_read_or_refused(path, value):
    path.write_bytes(msgpack.packb({"params": value}))
    try:
        tensors = open_tensors(read_header((path,)))
    except DamagedFileError as error:
        assert "\n" not in str(error)
        return
    mx.eval(tensors)
