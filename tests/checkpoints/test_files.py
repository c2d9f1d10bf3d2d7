import json
import os
import struct

import mlx.core as mx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlx_aimv2.checkpoints.files import (
    MAX_HEADER,
    check_links,
    find_weights,
    inside,
    open_tensors,
    read_header,
)
from mlx_aimv2.checkpoints.headers import MAX_TENSORS
from mlx_aimv2.errors import ConfigError, DamagedFileError, NotACheckpointError, PickleRefusedError

TENSORS = {"a": mx.arange(6.0).reshape(2, 3), "b.c": mx.array([1, 2], dtype=mx.int32), "d": mx.array(0.5)}


@pytest.fixture
def put(tmp_path):
    """Makes empty files, and an index where one is given; gives the folder."""

    def write(*names, index=None):
        for name in names:
            (tmp_path / name).touch()
        if index is not None:
            text = index if isinstance(index, str) else json.dumps({"weight_map": index})
            (tmp_path / "model.safetensors.index.json").write_text(text)
        return tmp_path

    return write


def raw(header, data=b"", length=None):
    """A safetensors file of this header, which may be anything."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.fixture
def header_of(tmp_path):
    def read(content):
        (tmp_path / "x.safetensors").write_bytes(content)
        return read_header((tmp_path / "x.safetensors",))

    return read


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.mark.parametrize(
    ("names", "index", "found"),
    [
        (["model.safetensors"], None, ["model.safetensors"]),
        (["model.safetensors", "mlx_model.safetensors"], None, ["model.safetensors"]),
        (["model.safetensors", *SHARDS], {"a": SHARDS[0]}, ["model.safetensors"]),
        (SHARDS, {"a": SHARDS[1], "b": SHARDS[0], "c": SHARDS[1]}, SHARDS),
        ([SHARDS[0], "mlx_model.safetensors"], {"a": SHARDS[0]}, [SHARDS[0]]),
        (["weights.safetensors"], {"a": "weights.safetensors"}, ["weights.safetensors"]),
        (["mlx_model.safetensors", "else.safetensors"], None, ["mlx_model.safetensors"]),
        (["weights.safetensors", "pytorch_model.bin"], None, ["weights.safetensors"]),
        (["weights.safetensors", "model.npz", "flax_model.msgpack"], None, ["weights.safetensors"]),
        (["weights.npz", "model.npz", "flax_model.msgpack"], None, ["model.npz"]),
        (["weights.npz", "else.npz"], None, ["weights.npz"]),
        (["else.npz", "flax_model.msgpack", "pytorch_model.bin"], None, ["else.npz"]),
        (["flax_model.msgpack", "pytorch_model.bin"], None, ["flax_model.msgpack"]),
    ],
    ids=[
        "single",
        "single-first",
        "single-before-index",
        "shards",
        "index",
        "one-shard",
        "apple-mlx",
        "other",
        "safetensors-first",
        "model-npz",
        "weights-npz",
        "other-npz",
        "flax",
    ],
)
def test_weights_are_found(put, names, index, found):
    folder = put(*names, index=index)
    assert [path.name for path in find_weights(folder)] == list(found)


def test_a_file_can_be_named(put):
    folder = put("model.safetensors", "mlx_model.safetensors")
    assert find_weights(folder, "mlx_model.safetensors") == (folder / "mlx_model.safetensors",)


@pytest.mark.parametrize(
    ("names", "index", "error", "message"),
    [
        (
            [],
            None,
            NotACheckpointError,
            "is no checkpoint: looked for model.safetensors, .* mlx_model.safetens",
        ),
        (["config.json"], None, NotACheckpointError, "is no checkpoint"),
        (
            ["b.safetensors", "a.safetensors"],
            None,
            NotACheckpointError,
            r"2 weight files \(a.saf.*, b.saf.*name one",
        ),
        (
            ["b.npz", "a.npz", "flax_model.msgpack"],
            None,
            NotACheckpointError,
            r"2 weight files \(a.npz, b.npz\): name one with weights",
        ),
        (
            ["pytorch_model.bin"],
            None,
            PickleRefusedError,
            r"only pickled weights \(pytorch_model.bin\), which can run",
        ),
        (["model.ckpt"], None, PickleRefusedError, "safetensors/convert make a model.safetensors of them"),
        (
            [SHARDS[0]],
            {"a": SHARDS[0], "b": SHARDS[1]},
            NotACheckpointError,
            f"lacks the weight file {SHARDS[1]}",
        ),
        (
            [],
            {"a": "../x.safetensors"},
            DamagedFileError,
            "names '../x.safetensors', which is not a safetensors file beside it",
        ),
        (
            [],
            {"a": "/etc/passwd"},
            DamagedFileError,
            "names '/etc/passwd', which is not a safetensors file beside it",
        ),
        ([], {"a": "sub\\x.safetensors"}, DamagedFileError, "which is not a safetensors file beside it"),
        ([], {"a": ".."}, DamagedFileError, r"names '\.\.', which is not a safetensors file beside it"),
        ([], {"a": ""}, DamagedFileError, "names '', which is not a safetensors file beside it"),
        ([], {"a": 3}, DamagedFileError, "names 3, which is not a safetensors file beside it"),
        (
            [],
            {"a": [SHARDS[0]]},
            DamagedFileError,
            r"names \[.*\], which is not a safetensors file beside it",
        ),
        ([], {}, DamagedFileError, "is not an index of safetensors shards: no weight_map in it"),
        ([], "{}", DamagedFileError, "is not an index of safetensors shards: no weight_map in it"),
        (
            [],
            '{"weight_map": [1]}',
            DamagedFileError,
            "is not an index of safetensors shards: no weight_map in it",
        ),
        ([], "{", ConfigError, "index.json is not valid JSON"),
        ([], "[]", ConfigError, "index.json must hold a JSON object, not list"),
    ],
)
def test_folders_without_usable_weights_are_refused(put, names, index, error, message):
    with pytest.raises(error, match=message):
        find_weights(put(*names, index=index))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("other.safetensors", NotACheckpointError, "lacks the weight file other.safetensors"),
        ("../model.safetensors", NotACheckpointError, "lacks the weight file ../model.safetensors"),
        ("", NotACheckpointError, "lacks the weight file : found"),
    ],
)
def test_a_wrong_name_is_refused(put, name, error, message):
    with pytest.raises(error, match=message):
        find_weights(put("model.safetensors"), name)


def test_a_pickle_that_is_named_is_refused(put):
    with pytest.raises(PickleRefusedError, match=r"these are pickled weights \(x\.bin\), which can run code"):
        find_weights(put("model.safetensors", "x.bin"), "x.bin")


def test_a_header_tells_names_shapes_dtypes_and_places(tmp_path):
    path = tmp_path / "x.safetensors"
    mx.save_safetensors(str(path), TENSORS, metadata={"format": "mlx"})
    header = read_header((path,))
    assert header.shapes == {"a": (2, 3), "b.c": (2,), "d": ()}
    assert {name: info.dtype for name, info in header.tensors.items()} == {
        "a": "F32",
        "b.c": "I32",
        "d": "F32",
    }
    assert (header.metadata["format"], header.nbytes) == ("mlx", 24 + 8 + 4)
    info = header.tensors["a"]
    assert struct.unpack("<6f", path.read_bytes()[info.start : info.start + info.nbytes]) == tuple(range(6))


def test_shards_are_one_header(tmp_path):
    files = tuple(tmp_path / name for name in SHARDS)
    mx.save_safetensors(str(files[0]), {"a": TENSORS["a"]})
    mx.save_safetensors(str(files[1]), {"d": TENSORS["d"]}, metadata={"format": "pt"})
    header = read_header(files)
    assert header.tensors["a"].file == files[0] and header.tensors["d"].file == files[1]
    assert header.metadata["format"] == "pt"
    assert {name: x.tolist() for name, x in open_tensors(header).items()} == {
        "a": [[0, 1, 2], [3, 4, 5]],
        "d": 0.5,
    }


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    files = tuple(tmp_path / name for name in SHARDS)
    for file in files:
        mx.save_safetensors(str(file), {"a": TENSORS["a"]})
    with pytest.raises(DamagedFileError, match=f"{SHARDS[1]}: the tensor a is in another file"):
        read_header(files)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DamagedFileError, match=r"x\.safetensors cannot be read: No such file"):
        read_header((tmp_path / "x.safetensors",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a safetensors file, or is cut off: download it again"),
        (b"\x80\x02}q\x00.", "is not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer: run"),
        (raw({"a": entry()}, bytes(4), length=2**63), "is not a safetensors file"),
        (raw({"a": entry()}, bytes(4), length=MAX_HEADER + 1), "is not a safetensors file"),
        (raw({"a": entry()}, bytes(4), length=0), "is not a safetensors file"),
        (raw({"a": entry()})[:20], "is not a safetensors file, or is cut off"),
        (raw(b"{nothing}"), "its header is damaged"),
        (raw(b"[1]"), r"its header is damaged \(not an object\)"),
        (raw(b"\xff\xff\xff\xff"), "its header is damaged"),
        (raw(b"[" * 50_000), "its header is damaged"),
        (raw({"a\nb": entry()}, bytes(4)), r"its header is damaged \(a tensor named 'a\\nb'\)"),
        (raw({"a": [1]}), "the entry of a in its header is damaged"),
        (raw({"a": "F32"}), "the entry of a in its header is damaged"),
        (raw({"a": None}), "the entry of a in its header is damaged"),
        (raw({"a": {"dtype": "F32", "shape": [1]}}), "the entry of a in its header is damaged"),
        (raw({"a": entry(offsets=(0, 4, 8))}), "the entry of a in its header is damaged"),
        (raw({"a": {**entry(), "shape": 1}}, bytes(4)), "the entry of a in its header is damaged"),
        (raw({"a": {**entry(), "shape": "1"}}, bytes(4)), "a has a shape or offsets that are not whole numbers"),
        (raw({"a": entry(shape=(-1,))}, bytes(4)), "a has a shape or offsets that are not whole numbers"),
        (raw({"a": entry(shape=(True,))}, bytes(4)), "a has a shape or offsets that are not whole numbers"),
        (raw({"a": entry(offsets=(-4, 0))}, bytes(4)), "a has a shape or offsets that are not whole numbers"),
        (raw({"a": entry("F64", offsets=(0, 8))}, bytes(8)), "a has the dtype 'F64', which is not supported"),
        (raw({"a": entry("F8_E4M3", offsets=(0, 1))}, bytes(1)), "a has the dtype 'F8_E4M3', which is not"),
        (raw({"a": entry(["F32"])}, bytes(4)), r"a has the dtype \['F32'\], which is not supported"),
        (raw({"a": entry(shape=(2,))}, bytes(4)), r"a of shape \[2\] needs 8 bytes and has 4"),
        (raw({"a": entry(offsets=(4, 0))}, bytes(4)), "needs 4 bytes and has -4"),
        (raw({"a": entry()}, bytes(3)), "is cut off: a ends 1 bytes after it; download it again"),
        (raw({"a" * 1001: entry()}, bytes(4)), r"its header is damaged \(a tensor named 'aaaa"),
        (raw({"a": entry(shape=[1] * 9)}, bytes(4)), "a has 9 dimensions, and no weight has over 8"),
        (raw({str(n): 0 for n in range(MAX_TENSORS + 1)}), "claims 100001 tensors, and no model has over 100000"),
        (raw(b'{"a": %s, "a": %s}' % ((json.dumps(entry()).encode(),) * 2), bytes(4)), "'a' is in it twice"),
        (raw(b'{"a": {"dtype": "F32", "shape": [1], "shape": [2]}}'), r"damaged \('shape' is in it twice\)"),
        (raw(b'{"a": {"shape": [%s]}}' % (b"9" * 9000)), r"its header is damaged \(a number of 9000 digits\)"),
        (raw({"a": entry(), "b": entry()}, bytes(4)), r"its header is damaged \(a and b share bytes\)"),
        (raw({"a": entry("U8", (8,), (0, 8)), "b": entry("I32", (1,), (4, 8))}, bytes(8)), "a and b share bytes"),
        (raw({"a": entry(shape=(0, 2**40), offsets=(0, 0))}), "a has a side of 1099511627776, which is too large"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(header_of, content, message):
    with pytest.raises(DamagedFileError, match=message):
        header_of(content)


@pytest.mark.parametrize(
    "other",
    [{"b": entry()}, {"a": entry(shape=(1, 1))}, {"a": entry("I32")}, {}],
    ids="name shape dtype none".split(),
)
def test_a_file_that_has_changed_since_its_header_was_read_is_refused(header_of, other):
    header = header_of(raw({"a": entry()}, bytes(4)))
    header.files[0].write_bytes(raw(other, bytes(4)))
    with pytest.raises(DamagedFileError, match="its weights have changed meanwhile: run it again"):
        open_tensors(header)


def test_a_file_that_mlx_cannot_open_is_refused(header_of, tmp_path):
    header = header_of(raw({"a": entry()}, bytes(4)))
    (tmp_path / "x.safetensors").unlink()
    with pytest.raises(DamagedFileError, match="cannot be opened"):
        open_tensors(header)


WHOLE = raw({"a": entry(shape=(2,), offsets=(0, 8)), "b": entry("I32", (1,), (8, 12))}, bytes(range(12)))
LENGTH = len(WHOLE) - 12
EDITS = st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS, cut=st.integers(0, len(WHOLE)) | st.just(len(WHOLE)))
@example(edits=[(0, LENGTH)], cut=len(WHOLE))
def test_whatever_happened_to_a_file_it_is_read_or_refused(tmp_path, edits, cut):
    content = bytearray(WHOLE)
    for place, value in edits:
        content[place] = value
    path = tmp_path / "x.safetensors"
    path.write_bytes(bytes(content[:cut]))
    try:
        header = read_header((path,))
        tensors = open_tensors(header)
    except DamagedFileError as error:
        assert "\n" not in str(error)
        return
    mx.eval(tensors)


NUMBERS = st.integers(-1, 20) | st.sampled_from([2**31, 2**32, 2**63, 2**64, 10**30])
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "I64", "U8", "BOOL", "F64", "", "f32"]),
        "shape": st.lists(NUMBERS, max_size=4),
        "data_offsets": st.lists(NUMBERS, min_size=2, max_size=2) | st.just([0, 0]),
    }
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.dictionaries(st.text(max_size=3), ENTRIES, max_size=3), room=st.integers(0, 40))
def test_whatever_a_header_says_it_is_read_or_refused(tmp_path, header, room):
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw(header, bytes(room)))
    try:
        tensors = open_tensors(read_header((path,)))
    except DamagedFileError as error:
        assert "\n" not in str(error)
        return
    mx.eval(tensors)


# --- links ---


@pytest.fixture
def elsewhere(tmp_path):
    """A weight file beside the checkpoint's folder, which is empty."""
    (tmp_path / "folder").mkdir()
    mx.save_safetensors(str(tmp_path / "secret.safetensors"), TENSORS)
    return (tmp_path / "secret.safetensors").rename(tmp_path / "secret")


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json", "model.npz"])
@pytest.mark.parametrize("absolute", [True, False])
def test_weights_that_are_a_link_out_of_the_folder_are_refused(elsewhere, name, absolute):
    folder = elsewhere.parent / "folder"
    (folder / name).symlink_to(elsewhere if absolute else "../secret")
    message = f"{name} is a link out of its folder, to {elsewhere}: put the file itself there"
    with pytest.raises(DamagedFileError, match=message):
        find_weights(folder)


def test_a_shard_that_is_a_link_out_of_the_folder_is_refused(elsewhere, put):
    folder = put(index={"a": SHARDS[0]})
    (folder / SHARDS[0]).symlink_to("folder/../../" + folder.name + "/folder/../secret")
    assert find_weights(folder) == (folder / SHARDS[0],)  # round about, and inside after all
    (folder / SHARDS[0]).unlink()
    (folder / SHARDS[0]).symlink_to("/dev/zero")
    with pytest.raises(DamagedFileError, match="is a link out of its folder, to /dev/zero"):
        find_weights(folder)


def test_a_link_to_nothing_inside_is_a_file_that_lacks(elsewhere):
    folder = elsewhere.parent / "folder"
    (folder / "model.safetensors").symlink_to("gone")
    with pytest.raises(NotACheckpointError, match=r"lacks the weight file model\.safetensors"):
        find_weights(folder)


def test_the_links_of_the_hubs_cache_are_followed(elsewhere, tmp_path):
    storage = tmp_path / "models--me--x"
    snapshot = storage / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (storage / "blobs").mkdir()
    elsewhere.rename(storage / "blobs" / "abc")
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    (tmp_path / "alias").symlink_to(snapshot)
    for folder in (snapshot, tmp_path / "alias"):
        assert read_header(find_weights(folder)).shapes["a"] == (2, 3)
    for target in ("../../refs", "../../blobs/x/y", "../../../other/blobs/abc"):
        (snapshot / "model.safetensors").unlink()
        (snapshot / "model.safetensors").symlink_to(target)
        with pytest.raises(DamagedFileError, match="is a link out of its folder"):
            find_weights(snapshot)


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "vocab.json", "LICENSE", "README.md"]
)
def test_small_files_that_are_links_out_of_the_folder_are_refused(elsewhere, name):
    folder = elsewhere.parent / "folder"
    check_links(folder)
    (folder / "other.txt").symlink_to(elsewhere)  # is not read
    check_links(folder)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(DamagedFileError, match=f"{name} is a link out of its folder, to {elsewhere}"):
        check_links(folder)


@pytest.fixture
def another(tmp_path):
    """A checkpoint beside the folder, and the folder."""
    (tmp_path / "other").mkdir()
    (tmp_path / "folder").mkdir()
    mx.save_safetensors(str(tmp_path / "other" / "weights.safetensors"), TENSORS)
    (tmp_path / "other" / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("absolute", [True, False])
def test_a_users_own_link_to_a_weight_file_is_followed(another, absolute):
    target = another / "other" / "weights.safetensors" if absolute else "../other/weights.safetensors"
    (another / "folder" / "model.safetensors").symlink_to(target)
    (another / "folder" / "config.json").symlink_to(another / "other" / "config.json")
    check_links(another / "folder")
    assert read_header(find_weights(another / "folder")).shapes["a"] == (2, 3)


def test_a_small_file_may_not_be_a_link_to_where_no_checkpoint_is(another):
    (another / "other" / "weights.safetensors").unlink()
    (another / "folder" / "config.json").symlink_to(another / "other" / "config.json")
    with pytest.raises(DamagedFileError, match=r"config\.json is a link out of its folder"):
        check_links(another / "folder")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("mark", [".git", ".cache/huggingface"])
def test_links_of_what_was_downloaded_are_not_followed_out_of_it(another, mark, name):
    (another / "folder" / mark).mkdir(parents=True)
    target = {"model.safetensors": "weights.safetensors"}.get(name, name)
    (another / "folder" / name).symlink_to(another / "other" / target)
    with pytest.raises(DamagedFileError, match="is a link out of its folder"):
        inside(another / "folder", name)


def test_a_link_of_somebody_else_is_not_followed(another, monkeypatch):
    path = another / "folder" / "model.safetensors"
    path.symlink_to(another / "other" / "weights.safetensors")
    owner = path.lstat().st_uid
    os.lchown(path, owner + 1, -1) if owner == 0 else monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        with pytest.raises(DamagedFileError, match="is a link out of its folder"):
            inside(another / "folder", path.name)
    else:  # who owns the folder may link from it
        assert inside(another / "folder", path.name) == path


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.json"])
def test_links_into_the_hubs_cache_are_followed(another, name):
    """As `hf download --local-dir` made them once."""
    blobs = another / "hub" / "models--me--x" / "blobs"
    blobs.mkdir(parents=True)
    (another / "other" / "weights.safetensors").rename(blobs / ("ab" * 32))
    path = another / "folder" / name
    path.symlink_to(blobs / ("ab" * 32))
    assert inside(another / "folder", name) == path


@pytest.mark.parametrize("name", ["", ".", "..", "../secret", "/etc/passwd", "a\\b", "a\0b"])
def test_what_is_no_name_of_a_file_is_refused(elsewhere, name):
    with pytest.raises(DamagedFileError, match="is not the name of a file in this folder"):
        inside(elsewhere.parent / "folder", name)


@pytest.mark.parametrize("note", [[1], {"format": 5}, "pt"])
def test_metadata_of_another_type_is_refused(header_of, note):
    with pytest.raises(DamagedFileError, match="metadata that is not an object of texts"):
        header_of(raw({"__metadata__": note, "a": entry()}, b"1234"))
