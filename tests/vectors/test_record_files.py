"""Files of records: every format, whole or not at all, and what is refused."""

from __future__ import annotations

import contextlib
import csv
import json
import resource
from dataclasses import dataclass

import pytest

from mlx_aimv2.errors import ExistsError, InputError, OutputError
from mlx_aimv2.vectors import record_files
from mlx_aimv2.vectors.record_files import ENCODERS, RecordFile, check_record_file

COLUMNS = {"path": str, "label": str, "score": float}


@dataclass(frozen=True)
class Record:
    path: str
    labels: tuple[tuple[str, float], ...]

    def to_dict(self):
        return {"path": self.path, "labels": [list(pair) for pair in self.labels]}

    def rows(self):
        return [(self.path, *pair) for pair in self.labels]


RECORDS = [
    Record("a.png", (("a dog, small", 0.75), ("cat", 0.25))),
    Record('b "1"\n.png', (("cat", 1.0),)),
    Record("c.png", ()),
]
ROWS = [["a.png", "a dog, small", 0.75], ["a.png", "cat", 0.25], ['b "1"\n.png', "cat", 1.0]]


def write_records(path, records, columns, force=False):
    file = RecordFile(path, columns, force)
    for record in records:
        file.add(record)
    file.close()


def read(path):
    """The rows, or the entries, of a file."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        assert table.column_names == list(COLUMNS)
        return [list(row.values()) for row in table.to_pylist()]
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
    assert header == list(COLUMNS)
    return [[name, label, float(score)] for name, label, score in rows]


def expected(suffix, records=RECORDS, rows=ROWS):
    return [record.to_dict() for record in records] if suffix.startswith(".json") else rows


@pytest.mark.parametrize("suffix", ENCODERS)
def test_every_format_holds_what_it_was_given(tmp_path, suffix):
    write_records(tmp_path / f"a{suffix}", RECORDS, COLUMNS)
    assert read(tmp_path / f"a{suffix}") == expected(suffix)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_parquet_is_written_in_groups(tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    monkeypatch.setattr(record_files, "ROWS", 2)
    write_records(tmp_path / "a.parquet", RECORDS * 3, COLUMNS)
    assert read(tmp_path / "a.parquet") == ROWS * 3
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups > 1


@pytest.mark.parametrize("suffix", ENCODERS)
def test_a_file_appears_when_it_is_closed(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    file = RecordFile(path, COLUMNS)
    file.add(RECORDS[0])
    assert not path.exists()
    file.close()
    assert read(path) == expected(suffix, RECORDS[:1], ROWS[:2]) and file.count == 1


def test_lines_reach_the_disk_as_they_come(tmp_path):
    file = RecordFile(tmp_path / "a.jsonl", COLUMNS)
    file.add(RECORDS[0])
    (partial,) = tmp_path.iterdir()
    assert json.loads(partial.read_text()) == RECORDS[0].to_dict()
    file.close()


@pytest.mark.parametrize("suffix", ENCODERS)
def test_without_a_record_there_is_no_file(tmp_path, suffix):
    file = RecordFile(tmp_path / f"a{suffix}", COLUMNS)
    file.close()
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def room_for(size):
    """A disk on which files get no larger than that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl"])
def test_a_full_disk_leaves_what_was_written_before(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    with room_for(1000):
        file = RecordFile(path, COLUMNS)
        with pytest.raises(OutputError, match=r"cannot be written: .*[Ff]ile"):
            for _ in range(1000):
                file.add(RECORDS[0])
        assert 5 < file.count < 100
        file.close()
    assert read(path) == expected(suffix, RECORDS[:1], ROWS[:2]) * file.count


def test_a_full_disk_leaves_no_parquet_file_that_looks_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(record_files, "ROWS", 10)
    with room_for(3000):
        file = RecordFile(tmp_path / "a.parquet", COLUMNS)
        with pytest.raises(OutputError, match=r"cannot be written: "):
            for _ in range(1000):
                file.add(RECORDS[0])
        with pytest.raises(OutputError, match=r"cannot be written: "):
            file.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_kept(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("mine")
    for refused in (lambda: check_record_file(path), lambda: write_records(path, RECORDS, COLUMNS)):
        with pytest.raises(ExistsError, match=r"a\.csv exists already: .*force=True"):
            refused()
    assert path.read_text() == "mine"
    check_record_file(path, force=True)
    assert path.read_text() == "mine"
    write_records(path, RECORDS, COLUMNS, force=True)
    assert read(path) == ROWS


@pytest.mark.parametrize("suffix", ENCODERS)
def test_an_interrupted_run_takes_no_earlier_results_place(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text("longer")
    file = RecordFile(path, COLUMNS, force=True)
    file.add(RECORDS[0])
    file.close(interrupted=True)
    assert (path.read_text(), file.path) == ("longer", tmp_path / f"a.part{suffix}")
    assert read(file.path) == expected(suffix, RECORDS[:1], ROWS[:2])
    assert sorted(tmp_path.iterdir()) == sorted([path, file.path])
    other = RecordFile(tmp_path / f"b{suffix}", COLUMNS)
    other.add(RECORDS[0])
    other.close(interrupted=True)
    assert other.path == tmp_path / f"b{suffix}" and other.path.exists()


@pytest.mark.parametrize(
    ("name", "names", "error", "message"),
    [
        (
            "a.xlsx",
            (),
            InputError,
            r"a\.xlsx: no format ends in \.xlsx; use \.csv, \.tsv, \.json, \.jsonl, \.parquet",
        ),
        ("a", (), InputError, "the name has no extension"),
        ("no/a.csv", (), OutputError, r"a\.csv cannot be written: No such file or directory"),
        ("folder.csv", (), OutputError, r"folder\.csv is a folder: name a file"),
        ("a.parquet", ("\udc80",), InputError, "is not UTF-8, which .parquet cannot hold"),
    ],
)
def test_what_cannot_be_written_is_found_early(tmp_path, name, names, error, message):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(error, match=message):
        check_record_file(tmp_path / name, names)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]


def test_a_name_that_is_no_utf8_keeps_its_bytes(tmp_path):
    write_records(tmp_path / "a.csv", [Record("\udc80.png", (("x", 1.0),))], COLUMNS)
    assert (tmp_path / "a.csv").read_bytes().splitlines()[1] == b"\x80.png,x,1.0"
    write_records(tmp_path / "a.jsonl", [Record("\udc80.png", (("x", 1.0),))], COLUMNS)
    assert json.loads((tmp_path / "a.jsonl").read_text())["path"] == "\udc80.png"
