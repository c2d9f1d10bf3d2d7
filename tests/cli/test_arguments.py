"""Lists on stdin, in the place of a dash among the arguments."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from mlx_aimv2.cli.arguments import images, with_names, with_texts
from mlx_aimv2.errors import InputError


def piped(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_names_with_spaces_a_mark_and_windows_line_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, b"\xef\xbb\xbfmy photos/a b.jpg\r\nform\x0cfeed.jpg\r\n\r\nu\xe2\x80\xa8v.jpg")
    listed = ["my photos/a b.jpg", "form\x0cfeed.jpg", "u\u2028v.jpg"]
    assert with_names(["first.jpg", "-", "last.jpg"]) == ["first.jpg", *listed, "last.jpg"]


def test_texts_in_the_place_of_the_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, "a cat\r\n\r\nein Hündchen\n".encode())
    assert with_texts(["a", "-", "b"]) == ["a", "a cat", "ein Hündchen", "b"]
    assert with_texts(["a", "b"]) == ["a", "b"]


@pytest.mark.parametrize("data", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_stdin_is_refused(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    piped(monkeypatch, data)
    with pytest.raises(InputError, match=r"^no texts: the list on stdin is empty$"):
        with_texts(["-"])
    piped(monkeypatch, data.replace(b" ", b""))
    with pytest.raises(InputError, match=r"^no images: name files, folders or patterns$"):
        images(["-"])


def test_a_dash_needs_something_piped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(
        InputError, match=r"^- reads a list of texts from stdin, and nothing is piped into it$"
    ):
        with_texts(["-"])
    with pytest.raises(
        InputError, match=r"^- reads a list of images from stdin, and nothing is piped into it$"
    ):
        with_names(["-"])


def test_embed_reads_texts_from_stdin(cli, pair: Path) -> None:  # type: ignore[no-untyped-def]
    done = cli("embed", "--text", "-", "a cow", "--model", pair, stdin="a cat\na dog\n")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["a cat", "a dog", "a cow"]
