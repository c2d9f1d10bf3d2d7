"""Checkpoints that somebody has tampered with: they load, or end in one of this package's errors, soon and small."""

import contextlib
import json
import math
import re
import shutil
import struct
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlx_aimv2 import load
from mlx_aimv2.checkpoints.foreign_configs import original_config
from mlx_aimv2.conversion.options import ConvertOptions
from mlx_aimv2.conversion.plan import plan_conversion
from mlx_aimv2.describe import describe_checkpoint
from mlx_aimv2.errors import Aimv2Error, ConfigError, DamagedFileError
from mlx_aimv2.loading import inspect
from mlx_aimv2.publishing.upload_files import prepare_upload
from mlx_aimv2.quantization.scheme import Scheme

KINDS = ("fixed", "native", "lit")
JSON_FILES = ("preprocessor_config.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json")
MEMORY = 100 * 2**20  # bytes that no small checkpoint needs, whatever its files claim
CPU_S = 20  # likewise; a plain one takes a hundredth of a second
TAMPER = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

HUGE = st.sampled_from(
    [10**9, 10**12, 2**31, 2**63, 2**64, 10**30, -(10**9), 1e300, math.inf, -math.inf, math.nan]
)
VALUES = st.one_of(
    HUGE, st.none(), st.booleans(), st.integers(-2, 300), st.floats(), st.text(max_size=3),
    st.recursive(
        st.integers(0, 3) | st.text(max_size=2) | HUGE,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=4,
    ),
)  # fmt: skip


@pytest.fixture
def copies(checkpoint, tmp_path):
    """A folder of each kind that examples may write to; what they write is written anew each time."""

    def copy(kind, layout="transformers"):
        folder = tmp_path / f"{kind}-{layout}"
        if not folder.exists():
            shutil.copytree(checkpoint(kind, layout), folder)
        return folder

    return copy


@contextlib.contextmanager
def little_memory():
    """Fail if the peak of the memory in use grows by `MEMORY`."""
    if not Path("/proc/self/clear_refs").exists():  # tracing takes three times as long
        tracemalloc.start()
        try:
            yield
            assert tracemalloc.get_traced_memory()[1] < MEMORY
        finally:
            tracemalloc.stop()
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is in use now
    before = resident_peak()
    yield
    assert resident_peak() - before < MEMORY


def resident_peak():
    """Bytes."""
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def loads_or_is_refused(folder):
    mx.reset_peak_memory()
    begin, before = time.process_time(), mx.get_active_memory()
    with little_memory():
        try:
            load(folder, on_event=lambda event: None)
        except Aimv2Error as error:
            assert "\n" not in str(error) and len(str(error)) < 20_000
    assert mx.get_peak_memory() - before < MEMORY
    assert time.process_time() - begin < CPU_S


def parts(data):
    """An object of JSON and all objects in it."""
    return [data, *(inner for value in data.values() if isinstance(value, dict) for inner in parts(value))]


def tamper(draw, data):
    """Replace, remove or add some values."""
    for _ in range(draw(st.integers(1, 3))):
        part = draw(st.sampled_from(parts(data)))
        deed = draw(st.sampled_from(["replace", "replace", "remove", "add"])) if part else "add"
        if deed == "add":
            part[draw(st.text(max_size=3))] = draw(VALUES)
        elif deed == "remove":
            part.pop(draw(st.sampled_from(sorted(part))))
        else:
            part[draw(st.sampled_from(sorted(part)))] = draw(VALUES)


# --- configurations ---


@pytest.mark.parametrize("kind", KINDS)
@TAMPER
@given(data=st.data(), old=st.booleans())
def test_whatever_a_configuration_says(copies, variants, kind, data, old):
    folder = copies(kind)
    config = original_config(variants[kind]) if old else variants[kind].to_dict()
    tamper(data.draw, config)
    (folder / "config.json").write_text(json.dumps(config))
    loads_or_is_refused(folder)


@pytest.mark.parametrize("name", JSON_FILES)
@TAMPER
@given(data=st.data())
def test_whatever_a_small_file_says(copies, checkpoint, name, data):
    folder = copies("lit")
    content = json.loads((checkpoint("lit", "transformers") / name).read_text())
    tamper(data.draw, content)
    (folder / name).write_text(json.dumps(content))
    loads_or_is_refused(folder)


@pytest.mark.parametrize("name", ["config.json", "merges.txt", *JSON_FILES])
@TAMPER
@given(
    edits=st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 10**4),
)
def test_whatever_the_bytes_of_a_small_file_are(copies, checkpoint, name, edits, cut):
    folder = copies("lit")
    content = bytearray((checkpoint("lit", "transformers") / name).read_bytes())
    for place, value in edits:
        content[place % len(content)] = value
    (folder / name).write_bytes(bytes(content[: cut or None]))
    loads_or_is_refused(folder)


@pytest.mark.parametrize(
    ("kind", "part", "field", "value"),
    [
        ("fixed", None, "num_hidden_layers", 10**9),
        ("fixed", None, "hidden_size", 10**9),
        ("fixed", None, "image_size", 10**9),
        ("native", None, "patch_size", 10**9),
        ("lit", "text_config", "vocab_size", 10**12),
        ("lit", "text_config", "max_position_embeddings", 10**12),
        ("lit", "vision_config", "num_hidden_layers", 10**9),
        ("lit", None, "projection_dim", 10**12),
    ],
)
def test_absurd_sizes_are_refused_before_a_model_is_built(
    copies, variants, monkeypatch, kind, part, field, value
):
    folder, config = copies(kind), variants[kind].to_dict()
    (config[part] if part else config)[field] = value
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("mlx_aimv2.loading.make_model", lambda config: pytest.fail("a model was built"))
    with pytest.raises(
        ConfigError, match=rf"^config: {field} is {value}, and the tensors say \d+: take the config"
    ):
        load(folder)


def test_a_small_file_that_is_a_link_out_of_the_folder_is_refused(copies, tmp_path):
    for name in ("config.json", "preprocessor_config.json", "vocab.json"):
        folder = copies("lit")
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
        with pytest.raises(
            DamagedFileError, match=rf"{name} is a link out of its folder, to .*: put the file itself"
        ):
            inspect(folder)
        shutil.rmtree(folder)


# --- headers ---

NUMBERS = st.integers(-1, 200) | st.sampled_from([2**31, 2**32, 2**63, 2**64, 10**30, 10**400])
SHAPES = st.lists(NUMBERS, max_size=10) | VALUES
DTYPES = st.sampled_from(["F32", "F16", "BF16", "I64", "U8", "BOOL", "F64", "F8_E4M3", "", "f32"]) | VALUES


def header_of(content):
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def shuffle(draw, header):
    """Change, drop, double or rename some entries of a header, in ways that keep it JSON."""
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(header) or ["x"]))
        entry = header.get(name)
        deed = draw(
            st.sampled_from(["shape", "dtype", "offsets", "swap", "drop", "rename", "double", "anything"])
        )
        if deed == "drop":
            header.pop(name, None)
        elif deed == "rename":
            header[draw(st.text(max_size=5) | st.just(name.replace(".0.", ".7.")))] = header.pop(name, None)
        elif deed == "double":
            header[f"{name}.{draw(st.text(max_size=2))}"] = entry
        elif deed == "anything":
            header[name] = draw(VALUES)
        elif isinstance(entry, dict) and "shape" in entry:
            other = header[draw(st.sampled_from(sorted(header)))]
            change = {
                "shape": lambda: {"shape": draw(SHAPES)},
                "dtype": lambda: {"dtype": draw(DTYPES)},
                "offsets": lambda: {"data_offsets": draw(st.lists(NUMBERS, min_size=2, max_size=2) | VALUES)},
                "swap": lambda other=other: other if isinstance(other, dict) else {},
            }[deed]
            header[name] = {**entry, **change()}


@pytest.mark.parametrize("kind", KINDS)
@settings(TAMPER, max_examples=80)
@given(data=st.data(), cut=st.integers(0, 100) | st.just(0))
def test_whatever_a_header_says(copies, checkpoint, kind, data, cut):
    layout = data.draw(st.sampled_from(["transformers", "apple", "mlx"]))
    folder = copies(kind, layout)
    header, rest = header_of((checkpoint(kind, layout) / "model.safetensors").read_bytes())
    shuffle(data.draw, header)
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + rest
    (folder / "model.safetensors").write_bytes(content[: len(content) - cut])
    loads_or_is_refused(folder)


@settings(TAMPER, max_examples=120)
@given(edits=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), min_size=1, max_size=3))
@example(edits=[(7, 1)])
def test_whatever_the_bytes_of_a_header_are(copies, checkpoint, edits):
    folder = copies("lit")
    content = bytearray((checkpoint("lit", "transformers") / "model.safetensors").read_bytes())
    for place, value in edits:
        content[place] = value
    (folder / "model.safetensors").write_bytes(bytes(content))
    loads_or_is_refused(folder)


@TAMPER
@given(data=st.data())
def test_whatever_an_index_says(copies, data):
    folder = copies("fixed", "mlx")
    if (folder / "model.safetensors").exists():
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    places = dict.fromkeys(
        mx.load(str(folder / "model-00001-of-00001.safetensors")), "model-00001-of-00001.safetensors"
    )
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    tamper(data.draw, index)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    loads_or_is_refused(folder)


def as_npz(folder):
    tensors = mx.load(str(folder / "model.safetensors"))
    mx.savez(str(folder / "model.npz"), **tensors)
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("kind", ["fixed", "lit"])
def test_an_archive_that_claims_a_larger_model_is_refused_before_it_is_unpacked(
    copies, variants, monkeypatch, kind
):
    folder = copies(kind, "mlx")
    as_npz(folder)
    config = variants[kind].to_dict()
    (config.get("vision_config", config))["num_hidden_layers"] = 10**9
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("mlx_aimv2.checkpoints.files.unpack", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(ConfigError, match="num_hidden_layers is 1000000000"):
        inspect(folder)


def test_looking_at_an_archive_does_not_unpack_it(copies, monkeypatch):
    folder = copies("lit", "mlx")
    as_npz(folder)
    (folder / "README.md").write_text("---\nlibrary_name: mlx\ntags: [mlx-aimv2]\n---\n")
    monkeypatch.setattr("mlx_aimv2.checkpoints.files.unpack", lambda *_: pytest.fail("it was unpacked"))
    checkpoint = inspect(folder)
    assert describe_checkpoint(checkpoint)["problem"] is None
    assert "model.npz" in prepare_upload(folder).sizes
    assert plan_conversion(folder, ConvertOptions(scheme=Scheme(32, 4))).nbytes < checkpoint.header.nbytes
    with pytest.raises(pytest.fail.Exception, match="it was unpacked"):
        checkpoint.open()


def test_an_archive_that_does_not_fit_is_refused_before_it_is_unpacked(copies, variants, monkeypatch):
    folder = copies("fixed", "mlx")
    as_npz(folder)
    config = replace(variants["fixed"], num_hidden_layers=3)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    monkeypatch.setattr("mlx_aimv2.checkpoints.files.unpack", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(Aimv2Error, match="9 missing"):
        load(folder)


def test_sizes_that_are_a_little_off_are_compared_tensor_by_tensor(copies, variants):
    folder = copies("fixed")
    config = replace(variants["fixed"], num_hidden_layers=16)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(Aimv2Error, match="126 missing"):
        load(folder)
