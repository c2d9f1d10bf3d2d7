"""Text files: encodings, line ends, lists, and what is refused."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_aimv2.errors import InputError
from mlx_aimv2.storage.text_files import decode_text, file_names, read_lines, read_text, split_lines, texts

NOT_LINE_ENDS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=12)
UTF16 = [(codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")]


@given(st.lists(LINES, min_size=1), st.sampled_from(["\n", "\r\n", "\r"]))
def test_lines_end_at_line_feeds_and_carriage_returns_only(lines: list[str], end: str) -> None:
    assert split_lines(end.join(lines)) == lines


def test_form_feeds_and_other_separators_belong_to_their_line() -> None:
    name = f"a{NOT_LINE_ENDS}b.jpg"
    assert split_lines(f"{name}\nc.jpg\r\nd.jpg\re.jpg") == [name, "c.jpg", "d.jpg", "e.jpg"]
    assert file_names(f"{name}\nc.jpg\n".encode()) == [name, "c.jpg"]
    assert texts(f"{name}\nc.jpg\n".encode(), "stdin") == [name, "c.jpg"]


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_a_list_of_names_with_spaces_and_bytes_of_any_kind(mark: bytes, separator: bytes) -> None:
    names = [b"my photos/a b.jpg", b" leading.jpg", b"trailing .jpg ", b"caf\xe9.jpg", "ü.jpg".encode()]
    found = file_names(mark + separator.join(names) + separator)
    assert [os.fsencode(name) for name in found] == names


def test_names_separated_by_nul_may_hold_line_ends() -> None:
    assert file_names(b"a\nb.jpg\0c.jpg\0") == ["a\nb.jpg", "c.jpg"]
    assert texts(b"a\ncat\0a dog", "stdin") == ["a\ncat", "a dog"]


@pytest.mark.parametrize(("mark", "encoding"), UTF16)
def test_a_list_that_powershell_wrote(mark: bytes, encoding: str) -> None:
    listed = mark + "a b.jpg\r\nü.jpg\r\n".encode(encoding)
    assert file_names(listed) == texts(listed, "stdin") == ["a b.jpg", "ü.jpg"]


def test_an_empty_list() -> None:
    assert file_names(b"") == file_names(codecs.BOM_UTF8 + b"\n\n") == texts(b" \n\n", "stdin") == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"one\ncaf\xe9\n", "x, line 2, byte offset 7: not UTF-8: save it as UTF-8"),
        (codecs.BOM_UTF8 + b"\xe9", "x, line 1, byte offset 3: not UTF-8: save it as UTF-8"),
        (
            codecs.BOM_UTF16_LE + b"a\0\n\0b",
            "x, line 2, byte offset 6: not UTF-16, as its first bytes say: save it as UTF-8",
        ),
        (
            codecs.BOM_UTF32_LE + "a\n".encode("utf-32-le") + b"\xff" * 4,
            "x, line 2, byte offset 12: not UTF-32, as its first bytes say: save it as UTF-8",
        ),
        ("a\nb".encode("utf-16-le"), "x, line 1, byte offset 1: a NUL byte, so it is not text: save it as UTF-8"),
        (
            codecs.BOM_UTF16_LE + "ab\n\0".encode("utf-16-le"),
            "x, line 2, byte offset 8: a NUL byte, so it is not text: save it as UTF-8",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "x is a Git LFS pointer: run `git lfs pull` in its folder",
        ),
        (b"\n<!DOCTYPE html><html>", "x is a web page: download the file again"),
        (codecs.BOM_UTF8 + b"<HTML lang=en>", "x is a web page: download the file again"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        decode_text(data, "x")
    assert str(caught.value) == message


def test_texts_of_another_encoding_are_refused() -> None:
    with pytest.raises(InputError, match=r"^stdin, line 2, byte offset 8: not UTF-8"):
        texts(b"a cat\0ca\xe9", "stdin")


@given(st.binary(max_size=40))
def test_any_bytes_are_text_or_refused_in_one_line(data: bytes) -> None:
    file_names(data)
    for read in (decode_text, texts):
        try:
            read(data, "x")
        except InputError as error:
            assert "\n" not in str(error) and str(error).startswith("x")


def test_files(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(codecs.BOM_UTF8 + "sea lion\r\nK\u2028ö\n".encode())
    assert read_lines(tmp_path / "labels.txt") == ["sea lion", "K\u2028ö", ""]
    with pytest.raises(InputError, match=r"no\.txt cannot be read: No such file or directory$"):
        read_text(tmp_path / "no.txt")
    with pytest.raises(InputError, match=r"cannot be read: Is a directory$"):
        read_text(tmp_path)
    with pytest.raises(InputError, match="cannot be read: embedded null byte"):
        read_text("a\0b")
