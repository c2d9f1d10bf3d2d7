"""`errors.jsonl`: what failed is named once, as long as it is so."""

from __future__ import annotations

import json
import os
import resource

import pytest

from mlx_aimv2.errors import OutputError
from mlx_aimv2.vectors.failures import Failure, Failures, state_of

INFINITE = (
    b'{"path": "b", "file": "/b", "kind": "", "reason": "", "size": 1e999, "mtime_ns": 1, "ctime_ns": 1}\n'
)


def failure(path, reason="it is cut off", key=None) -> Failure:
    key = str(path) if key is None else key
    return Failure(str(path), "BrokenImageError", reason, key, state_of(key))


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "caf\udce9 写.jpg"
    path.write_bytes(b"broken")
    return path


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_line_names_the_image_and_why_it_failed(tmp_path, image):
    Failures(tmp_path / "errors.jsonl").add(failure(image))
    (line,) = lines(tmp_path / "errors.jsonl")
    status = image.stat()
    assert line == {
        "path": str(image),
        "kind": "BrokenImageError",
        "reason": "it is cut off",
        "file": str(image),
        "size": 6,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
    }


@pytest.mark.parametrize("part", ["", "\0/a.jpg"])
def test_a_failure_is_known_until_the_file_changes(tmp_path, image, part):
    path, key = tmp_path / "errors.jsonl", f"{image}{part}"
    Failures(path).add(failure("shown", key=key))
    assert Failures(path).is_known(key) and not Failures(path).is_known(f"{image}\0/b.jpg")
    os.utime(image, (1, 1))
    assert not Failures(path).is_known(key)


def test_what_has_no_file_or_is_missing_is_tried_again(tmp_path):
    path = tmp_path / "errors.jsonl"
    for name, key in (
        ("https://host/a.jpg", "\0https://host/a.jpg"),
        ("gone.jpg", str(tmp_path / "gone.jpg")),
    ):
        Failures(path).add(failure(name, key=key))
        assert not Failures(path).is_known(key)
    assert [each.is_gone for each in Failures(path)] == [False, True]
    assert [each.key for each in Failures(path)] == ["\0https://host/a.jpg", str(tmp_path / "gone.jpg")]


def test_an_image_has_one_line_also_when_it_fails_again(tmp_path, image):
    path = tmp_path / "errors.jsonl"
    failures = Failures(path)
    for reason in ("one", "one", "two"):
        failures.add(failure(image, reason))
    failures.add(failure("other", key="\0other"))
    assert [line["reason"] for line in lines(path)] == ["two", "it is cut off"]


def test_what_is_no_longer_so_is_removed_and_with_the_last_the_file(tmp_path, image):
    path = tmp_path / "errors.jsonl"
    failures = Failures(path)
    failures.add(failure(image))
    failures.add(failure("other", key="\0other"))
    failures.keep(lambda each: each.path == "other")
    assert [line["path"] for line in lines(path)] == ["other"]
    before = path.stat().st_ino
    Failures(path).keep(lambda each: True)
    assert path.stat().st_ino == before  # nothing to write
    Failures(path).keep(lambda each: False)
    assert not path.exists()
    Failures(path).keep(lambda each: False)


@pytest.mark.parametrize(
    "end", [b'{"path": "b", "ki', b"\xff\n", b"[]\n", b'{"path": "b"}\n', b"\n", INFINITE]
)
def test_a_line_that_cannot_be_read_goes(tmp_path, image, end):
    path = tmp_path / "errors.jsonl"
    Failures(path).add(failure(image))
    with path.open("ab") as file:
        file.write(end)
    failures = Failures(path)
    assert [each.path for each in failures] == [str(image)]
    failures.keep(lambda each: True)
    assert [line["path"] for line in lines(path)] == [str(image)]


def test_the_failures_of_ranks_are_put_together(tmp_path, image):
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    Failures(one).add(failure(image, "one"))
    Failures(other).add(failure(image, "other"))
    Failures(other).add(failure("b", key="\0b"))
    failures = Failures(tmp_path / "errors.jsonl", [one, other])
    failures.keep(lambda each: True)
    assert [line["reason"] for line in lines(tmp_path / "errors.jsonl")] == ["other", "it is cut off"]


def test_a_file_that_cannot_be_written_is_named(tmp_path, image):
    (tmp_path / "errors.jsonl").mkdir()
    failures = Failures(tmp_path / "errors.jsonl")
    with pytest.raises(OutputError, match=r"errors\.jsonl cannot be written: Is a directory"):
        failures.add(failure(image))
    with pytest.raises(OutputError, match=r"errors\.jsonl cannot be written: Is a directory"):
        failures.keep(lambda each: True)


def test_a_line_that_a_full_disk_takes_in_part_is_an_error(tmp_path, image):
    path = tmp_path / "errors.jsonl"
    failures = Failures(path)
    failures.add(failure("a", key="\0a"))
    largest, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
    try:
        with pytest.raises(OutputError, match=r"errors\.jsonl cannot be written: No space left on device"):
            failures.add(failure("b", key="\0b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    failures.keep(lambda each: True)  # when the run ends, and there is room again
    assert [line["path"] for line in lines(path)] == ["a", "b"]
