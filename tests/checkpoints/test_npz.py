"""Weights in .npz files: what MLX and numpy write is read, everything else refused in one line."""

import io
import pickle
import re
import shutil
import struct
import subprocess
import sys
import textwrap
import tracemalloc
import zipfile

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from mlx_aimv2 import LoadOptions, convert, load
from mlx_aimv2.checkpoints import lazy_copy as unpacking
from mlx_aimv2.checkpoints.files import open_tensors, read_header
from mlx_aimv2.checkpoints.headers import DTYPE_NAMES
from mlx_aimv2.checkpoints.npz import write_npz
from mlx_aimv2.checkpoints.shards import Entry
from mlx_aimv2.errors import CheckpointError, DamagedFileError, PickleRefusedError

TENSORS = {
    "a": mx.arange(6.0).reshape(2, 3),
    "b.c": mx.array([1.5, -2.0], dtype=mx.bfloat16),
    "d": mx.array(0.5),
    "turned": mx.arange(24).reshape(2, 3, 4).transpose(2, 1, 0).astype(mx.float16),
    "none": mx.zeros((0, 3)),
    "flags": mx.array([[True, False]]),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


def opened(path):
    return open_tensors(read_header((path,)))


def are_equal(found, expected):
    return found.keys() == expected.keys() and all(
        found[name].dtype == x.dtype and found[name].shape == x.shape and mx.array_equal(found[name], x)
        for name, x in expected.items()
    )


# --- reading ---


def test_what_mlx_writes_is_read(path):
    mx.eval(TENSORS)
    mx.savez(str(path), **TENSORS)
    header = read_header((path,))
    assert header.shapes == {name: tuple(x.shape) for name, x in TENSORS.items()}
    assert {name: info.dtype for name, info in header.tensors.items()} == {
        name: DTYPE_NAMES[x.dtype] for name, x in TENSORS.items()
    }
    assert header.nbytes == sum(x.nbytes for x in TENSORS.values())
    assert are_equal(open_tensors(header), TENSORS)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPE_NAMES if dtype != mx.bfloat16])
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed], ids=["plain", "compressed"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_numpy_writes_is_read(path, dtype, write, order):
    expected = (mx.arange(30).reshape(5, 6) % 3).astype(dtype)
    write(
        path, x=np.array(np.array(expected), order=order), y=np.array(np.array(expected[0, 1]), order=order)
    )
    assert are_equal(opened(path), {"x": expected, "y": expected[0, 1]})


def test_tensors_are_read_when_they_are_needed(path):
    np.savez_compressed(path, **{f"t{k}": np.full((1 << 20,), k, np.float32) for k in range(8)})
    tracemalloc.start()
    before, tensors = mx.get_active_memory(), opened(path)
    assert mx.get_active_memory() - before < 1 << 20
    assert tracemalloc.get_traced_memory()[1] < 8 << 20  # 32 MB have gone through
    tracemalloc.stop()
    path.unlink()  # they are in a file of their own
    assert [tensors[f"t{k}"][9].item() for k in range(8)] == list(range(8))
    assert np.array(tensors["t3"]).sum() == 3 << 20


def test_a_program_that_has_read_them_ends_well(path):
    mx.savez(str(path), **TENSORS)
    code = """
        import sys
        from pathlib import Path
        import mlx.core as mx
        from mlx_aimv2.checkpoints.files import open_tensors, read_header
        tensors = open_tensors(read_header((Path(sys.argv[1]),)))
        mx.eval(tensors["a"])
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), path], check=True)


@pytest.mark.parametrize("variant", ["fixed", "native", "lit"])
@pytest.mark.parametrize("layout", ["mlx", "apple", "apple-mlx", "transformers"])
def test_a_checkpoint_loads_as_from_safetensors(checkpoint, tmp_path, variant, layout):
    folder = shutil.copytree(checkpoint(variant, layout), tmp_path / "x")
    tensors = mx.load(str(folder / "model.safetensors"))
    expected = dict(tree_flatten(load(folder)[0].parameters()))
    mx.savez(str(folder / "weights.npz"), **tensors)
    named, _ = load(folder, options=LoadOptions(weights="weights.npz"))
    (folder / "model.safetensors").unlink()
    model, _ = load(folder)
    assert model.origin.layout == layout
    assert model.origin.checkpoint == named.origin.checkpoint
    assert are_equal(dict(tree_flatten(model.parameters())), expected)
    converted, _ = load(convert(folder, tmp_path / "converted"))
    assert are_equal(dict(tree_flatten(converted.parameters())), expected)


def test_a_kernel_of_either_order_counts_as_mlxs(path):
    mx.savez(str(path), x=mx.zeros((3,)))
    assert read_header((path,)).metadata == {"format": "mlx"}


# --- writing ---


def entries(tensors):
    return [Entry(name, x.dtype, tuple(x.shape)) for name, x in tensors.items()]


def test_what_is_written_opens_with_mlx_with_numpy_and_here(tmp_path):
    write_npz(tmp_path, entries(TENSORS), TENSORS.items())
    assert are_equal(mx.load(str(tmp_path / "model.npz")), TENSORS)
    assert are_equal(opened(tmp_path / "model.npz"), TENSORS)
    with np.load(tmp_path / "model.npz") as data:
        assert data["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and data["turned"].shape == (4, 3, 2)
        assert list(data) == list(TENSORS)


@pytest.mark.parametrize("dtype", DTYPE_NAMES)
def test_every_dtype_is_written(tmp_path, dtype):
    tensors = {"x": (mx.arange(6).reshape(2, 3) % 2).astype(dtype)}
    path = tmp_path / "model.npz"
    write_npz(tmp_path, entries(tensors), iter(tensors.items()))
    assert are_equal(mx.load(str(path)), tensors) and are_equal(opened(path), tensors)


def test_writing_holds_one_tensor_at_a_time(tmp_path):
    names = [f"t{k}" for k in range(6)]
    planned = [Entry(name, mx.float32, (1 << 20,)) for name in names]
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    write_npz(tmp_path, planned, ((name, mx.ones((1 << 20,))) for name in names))
    assert mx.get_peak_memory() - before < 3 * (4 << 20)


def test_the_same_tensors_make_the_same_file(tmp_path):
    write_npz(tmp_path, entries(TENSORS), TENSORS.items())
    first = (tmp_path / "model.npz").read_bytes()
    write_npz(tmp_path, entries(TENSORS), TENSORS.items())
    assert (tmp_path / "model.npz").read_bytes() == first


@pytest.mark.parametrize(
    "found", [("y", mx.zeros((2,))), ("x", mx.zeros((3,))), ("x", mx.zeros((2,), mx.int8))]
)
def test_a_tensor_that_is_not_as_planned_is_refused(tmp_path, found):
    with pytest.raises(CheckpointError, match=f"{found[0]} became .*, not what was planned: Entry"):
        write_npz(tmp_path, [Entry("x", mx.float32, (2,))], iter([found]))


# --- refusals ---


def npy(
    descr="'<f4'", shape="(2,)", data=bytes(8), order="False", version=b"\x01\x00", text=None, length=None
):
    header = text or f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    size = "<H" if version[:1] == b"\x01" else "<L"
    return (
        b"\x93NUMPY" + version + struct.pack(size, len(header) if length is None else length) + header + data
    )


def archive(*members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members or [("x.npy", npy())]:
            file.writestr(name, content)
    return buffer.getvalue()


def edited(content, mark, offset, form, value):
    """A zip file with one number behind the first ``mark`` replaced."""
    content = bytearray(content)
    struct.pack_into(form, content, content.index(mark) + offset, value)
    return bytes(content)


def comment_of(count, size):
    return b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, count, count, size, 0, 0)


CENTRAL, END = b"PK\1\2", b"PK\5\6"
OBJECTS = io.BytesIO()
np.savez(OBJECTS, x=np.array([{}, []], dtype=object))
ZEROS = archive(("x.npy", npy(shape="(100000,)", data=bytes(400_000))), compression=zipfile.ZIP_DEFLATED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an .npz file, or is cut off: download it again"),
        (pickle.dumps({}), "is not an .npz file, or is cut off"),
        (archive()[:-5], "is not an .npz file, or is cut off"),
        (archive()[40:], "is cut off at its start: download it again"),
        (comment_of(65535, 1), "is not an .npz file, or is damaged"),
        (comment_of(3, 2**31), "its directory of 2147483648 bytes is too large for any model's tensors"),
        (archive(("x.txt", b"x")), "x.txt in it is not an .npy file"),
        (archive(("../x\n.npy", npy())), r"its header is damaged \(a tensor named '../x\\n.npy'\)"),
        (archive(("x.npy", b"")), "x is not an array of numbers, or its .npy header is damaged"),
        (archive(("x.npy", b"GIF89a")), "x is not an array of numbers"),
        (archive(("x.npy", npy(length=60_000))), "x is not an array of numbers, or its .npy header is damaged"),
        (archive(("x.npy", npy(version=b"\x02\x00", length=2**31))), "x is not an array of numbers"),
        (archive(("x.npy", npy(text=b"(" * 9000))), "x is not an array of numbers"),
        (archive(("x.npy", npy("__import__('os')"))), "x is not an array of numbers"),
        (archive(("x.npy", npy("[('a', '|O')]"))), "x is not an array of numbers"),
        (archive(("x.npy", npy(shape="(2, -1)"))), "x is not an array of numbers"),
        (archive(("x.npy", npy(shape="(2 3)"))), "is not an .npz file, or is damaged"),
        (archive(("x.npy", npy(shape=f"({'9' * 5000},)"))), "is not an .npz file, or is damaged"),
        (archive(("x.npy", npy(shape="(1, 1, 1, 1, 1, 1, 1, 1, 2)"))), "x has 9 dimensions"),
        (archive(("x.npy", npy(shape=f"({2**40}, 0)", data=b""))), "x has a side of 1099511627776, which is too"),
        (archive(("x.npy", npy(shape="(3,)"))), r"x of shape \[3\] needs 12 bytes and has 8"),
        (archive(("x.npy", npy(shape="()"))), r"x of shape \[\] needs 4 bytes and has 8"),
        (archive(("x.npy", npy("'<f8'", "(1,)"))), "x has the dtype 'F64', which is not supported"),
        (archive(("x.npy", npy("'>f4'"))), "x has the dtype '>f4', which is not supported"),
        (archive(("x.npy", npy("'<c8'", "(1,)"))), "x has the dtype '<c8', which is not supported"),
        (archive(("x.npy", npy("'<U2'", "(1,)"))), "x has the dtype '<U2', which is not supported"),
        (edited(archive(), CENTRAL, 8, "<H", 1), "x is encrypted: save the weights without a password"),
        (archive(compression=zipfile.ZIP_LZMA), "x is packed by method 14, which is not supported"),
        (archive(compression=zipfile.ZIP_BZIP2), "x is packed by method 12, which is not supported"),
        (edited(archive(), CENTRAL, 24, "<L", 2**30), r"x cannot become 1073741824 bytes, it has \d\d"),
        (edited(ZEROS, CENTRAL, 24, "<L", 2**31), r"x cannot become 2147483648 bytes, it has \d+"),
        (edited(ZEROS, CENTRAL, 24, "<L", 400_300), r"x of shape \[100000\] needs 400000 bytes and has 4002"),
        (edited(archive(), CENTRAL, 20, "<L", 10**6), "is cut off: x is not whole; download it again"),
        (edited(archive(), CENTRAL, 42, "<L", 9), "is not an .npz file, or is damaged"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(path, content, message):
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=f"^{re.escape(str(path))}.*{message}"):
        read_header((path,))


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_name_that_comes_twice_is_refused(path):
    path.write_bytes(archive(("x.npy", npy()), ("x.npy", npy())))
    with pytest.raises(DamagedFileError, match=r"its header is damaged \(x is in it twice\)"):
        read_header((path,))


def test_members_that_share_bytes_are_refused(path):
    content = archive(("x.npy", npy()), ("y.npy", npy()))
    place = content.index(CENTRAL, content.index(CENTRAL) + 1)
    path.write_bytes(content[: place + 42] + struct.pack("<L", 3) + content[place + 46 :])
    with pytest.raises(DamagedFileError, match=r"x\.npy and y\.npy share bytes|is damaged"):
        read_header((path,))


def test_more_members_than_any_model_has_are_refused(path, monkeypatch):
    monkeypatch.setattr("mlx_aimv2.checkpoints.headers.MAX_TENSORS", 100)
    path.write_bytes(archive(*((f"{k}.npy", b"") for k in range(101))))
    with pytest.raises(DamagedFileError, match="claims 101 tensors, and no model has over 100"):
        read_header((path,))


def test_python_objects_are_refused_and_not_opened(path):
    path.write_bytes(OBJECTS.getvalue())
    with pytest.raises(
        PickleRefusedError, match=r"x holds pickled Python objects, which can run code .*: save it as"
    ):
        read_header((path,))


def test_a_file_that_is_not_there_is_refused(path):
    with pytest.raises(DamagedFileError, match=r"model\.npz cannot be read: No such file"):
        read_header((path,))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_data_that_has_changed_is_refused(path, compression):
    data = np.arange(3000, dtype=np.float32).tobytes()
    content = bytearray(archive(("x.npy", npy(shape="(3000,)", data=data)), compression=compression))
    content[2000] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(
        DamagedFileError, match=r"the data of x\.npy cannot be read \(.*\): download it again"
    ):
        opened(path)


WHOLE = archive(("x.npy", npy()), ("y.npy", npy("'<V2'", "(2, 1)", bytes(4))))
PACKED = archive(("x.npy", npy()), ("y.npy", npy(shape="(2, 1)")), compression=zipfile.ZIP_DEFLATED)
EDITS = st.lists(st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 255)), min_size=1, max_size=4)


@pytest.mark.parametrize("whole", [WHOLE, PACKED], ids=["plain", "compressed"])
@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(edits=EDITS, cut=st.integers(0, len(WHOLE)) | st.just(len(WHOLE)))
@example(edits=[(0, 0x50)], cut=len(WHOLE))
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_whatever_happened_to_a_file_it_is_read_or_refused(path, whole, edits, cut):
    content = bytearray(whole)
    for place, value in edits:
        content[place % len(content)] = value
    path.write_bytes(bytes(content[:cut]))
    try:
        tensors = opened(path)
    except (DamagedFileError, PickleRefusedError) as error:
        assert "\n" not in str(error)
        return
    mx.eval(tensors)


def test_the_headers_of_a_whole_checkpoint_are_told_without_its_data(checkpoint, tmp_path):
    tensors = mx.load(str(checkpoint("lit", "mlx") / "model.safetensors"))
    path = tmp_path / "model.npz"
    write_npz(tmp_path, entries(tensors), tensors.items())
    expected = read_header((path,))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        for one in archive.infolist():
            info = expected.tensors[one.filename.removesuffix(".npy")]
            name, extra = struct.unpack_from("<HH", content, one.header_offset + 26)
            start = one.header_offset + 30 + name + extra + info.start
            if info.nbytes > 8192:  # of less, zipfile reads all at once, and compares the checksum
                content[start : start + info.nbytes] = b"\xaa" * info.nbytes
    path.write_bytes(content)
    assert read_header((path,)) == expected
    assert expected.shapes == {name: tuple(x.shape) for name, x in tensors.items()}
    with pytest.raises(DamagedFileError, match="cannot be read"):
        open_tensors(expected)


def test_a_name_that_no_tensor_can_have_is_refused(path):
    path.write_bytes(archive(("x.npy", npy()), ("__metadata__.npy", npy())))
    with pytest.raises(DamagedFileError, match=r"model\.npz cannot be opened"):
        opened(path)


@pytest.mark.parametrize("loaded", [{}, {"y": mx.zeros(1)}, mx.zeros(1)], ids=["nothing", "other", "array"])
def test_tensors_that_are_lost_on_the_way_are_noticed(path, monkeypatch, loaded):
    path.write_bytes(archive(("x.npy", npy())))
    header = read_header((path,))
    monkeypatch.setattr(unpacking.mx, "load", lambda *arguments, **options: loaded)
    with pytest.raises(
        DamagedFileError, match=r"model\.npz cannot be opened: some of its tensors are missing in the copy"
    ):
        open_tensors(header)
