"""JSON objects in files: what is read, whatever its byte order mark, and what is refused."""

from __future__ import annotations

import codecs
import json
import shutil

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_aimv2 import load
from mlx_aimv2.errors import ConfigError, TokenizerError
from mlx_aimv2.storage.json_files import MAX_JSON, read_json, write_json
from mlx_aimv2.storage.text_files import read_text

BOMS = {
    "utf-8": b"",
    "utf-8 with a mark": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("encoding", BOMS)
def test_a_byte_order_mark_is_taken_away(tmp_path, encoding):
    text = json.dumps({"ä": ["😀", 1]}, ensure_ascii=False)
    path = tmp_path / "config.json"
    path.write_bytes(BOMS[encoding] + text.encode(encoding.removesuffix(" with a mark")))
    assert read_text(path) == text
    assert read_json(path) == {"ä": ["😀", 1]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON"),
        (b"{'a': 1}", "is not valid JSON"),
        (b"\xff\xfe\x00", "not UTF-16, as its first bytes say"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"3", "must hold a JSON object, not int"),
        (b" " * (MAX_JSON + 1), "bytes is too large for a configuration"),
        (b'{"a": ' + b"9" * 100_000 + b"}", r"is not valid JSON: a number of 100000 digits"),
        (
            b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}",
            "holds objects and lists more than 64 deep: it is no config",
        ),
    ],
    ids=["empty", "quotes", "utf-16", "nesting", "number", "large", "digits", "depth"],
)
def test_damaged_json_is_refused(tmp_path, content, message):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_json(tmp_path / "config.json")


def test_json_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json cannot be read: No such file or directory"):
        read_json(tmp_path / "config.json")


def test_the_error_is_of_the_type_asked_for(tmp_path):
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"vocab\.json is not valid JSON"):
        read_json(tmp_path / "vocab.json", TokenizerError)
    with pytest.raises(ConfigError, match="is not a regular file"):
        read_json(tmp_path)


@given(
    st.dictionaries(st.text(), st.integers(-(2**63), 2**63) | st.text() | st.none() | st.lists(st.booleans()))
)
def test_what_is_written_is_read_again(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("json") / "x.json"
    write_json(path, data)
    assert read_json(path) == data


@given(st.binary(max_size=300))
def test_whatever_bytes_a_file_holds_it_is_an_object_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("json") / "x.json"
    path.write_bytes(data)
    try:
        assert isinstance(read_json(path), dict)
    except ConfigError as error:
        assert str(error).startswith(str(path))


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_every_json_of_a_checkpoint_and_an_adapter_may_have_a_mark(tiny_pair, with_adapter, tmp_path, mark):
    folder = shutil.copytree(tiny_pair, tmp_path / "pair")
    with_adapter(folder, tmp_path / "adapter")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    names = mx.load(str(folder / "model-00001-of-00001.safetensors"))
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "processor_config.json").write_text("{}")
    before, processor = load(folder, adapter_path=tmp_path / "adapter")
    files = [*folder.glob("*.json"), folder / "merges.txt", *(tmp_path / "adapter").glob("*.json")]
    assert len(files) >= 7
    for path in files:
        path.write_text(path.read_text(encoding="utf-8"), encoding=mark)
    after, again = load(folder, adapter_path=tmp_path / "adapter")
    assert after.origin == before.origin
    assert again.image_processor.config == processor.image_processor.config
    ids = [one(text="a cat")["input_ids"].tolist() for one in (processor, again)]
    assert ids[0] == ids[1]
