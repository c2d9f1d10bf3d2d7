"""Files of embeddings: what comes back, what is refused, and what is left after a failure."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from mlx_aimv2.errors import ExistsError, InputError, MissingExtraError, OutputError
from mlx_aimv2.vectors.files import WRITERS, Rows, check_note, check_target, json_line, write
from mlx_aimv2.vectors.reading import read_vectors

MADE_BY = {"name": "tiny", "checkpoint": "0123abcd", "pooling": "mean", "normalized": True, "revision": None}
NAMES = ["a.jpg", "sub/ü 写真 📷.heic", 'a "quoted", name\t.png', "back\\slash.jpg", " ", "\u2028.jpg"]
UNDECODABLE = os.fsdecode(b"caf\xe9.jpg")
VALUES = np.array(
    [[0.1, -1 / 3, 1e-45], [3.4028235e38, -0.0, 1.17549435e-38], [1, 2, 3], [16777217, 0.3, 7e-7]], np.float32
)


def rows(count: int = len(NAMES)) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 5)).astype(np.float32)


def read_npz(path: Path) -> tuple[list[str], np.ndarray, dict]:
    with np.load(path) as data:
        return data["paths"].tolist(), data["embeddings"], json.loads(str(data["fingerprint"]))


def read_npy(path: Path) -> tuple[list[str], np.ndarray, dict]:
    lines = path.with_suffix(".paths.txt").read_bytes().split(b"\n")
    assert lines.pop() == b""
    note = json.loads(path.with_suffix(".fingerprint.json").read_text())
    return [os.fsdecode(line) for line in lines], np.load(path), note


def read_safetensors(path: Path) -> tuple[list[str], np.ndarray, dict]:
    with safe_open(path, "numpy") as file:
        note = file.metadata()
        return json.loads(note["paths"]), file.get_tensor("embeddings"), json.loads(note["fingerprint"])


def read_jsonl(path: Path) -> tuple[list[str], np.ndarray, dict]:
    items = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    vectors = np.array([item["embedding"] for item in items], np.float32)
    return [item["path"] for item in items], vectors, MADE_BY  # lines are for pipes and hold no fingerprint


def read_parquet(path: Path) -> tuple[list[str], np.ndarray, dict]:
    table = pq.read_table(path)
    vectors = np.array(table["embedding"].to_pylist(), np.float32)
    return table["path"].to_pylist(), vectors, json.loads(table.schema.metadata[b"fingerprint"])


READERS = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".safetensors": read_safetensors,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
}
every_format = pytest.mark.parametrize("ending", WRITERS)


# --- round trips


def test_every_format_is_read_here():
    assert READERS.keys() == WRITERS.keys()


@every_format
def test_names_vectors_and_fingerprint_come_back(tmp_path, ending):
    write(tmp_path / f"v{ending}", NAMES, rows(), MADE_BY)
    names, vectors, note = READERS[ending](tmp_path / f"v{ending}")
    assert names == NAMES and note == MADE_BY
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, rows())


@every_format
def test_float32_values_come_back_to_the_bit(tmp_path, ending):
    write(tmp_path / f"v{ending}", NAMES[:4], VALUES, MADE_BY)
    _, vectors, _ = READERS[ending](tmp_path / f"v{ending}")
    np.testing.assert_array_equal(vectors.view(np.uint32), VALUES.view(np.uint32))


@every_format
def test_a_single_row_comes_back(tmp_path, ending):
    write(tmp_path / f"v{ending}", ["one"], rows(1), MADE_BY)
    names, vectors, _ = READERS[ending](tmp_path / f"v{ending}")
    assert names == ["one"] and vectors.shape == (1, 5)


@pytest.mark.parametrize("ending", [e for e in WRITERS if e not in (".parquet",)])
def test_token_grids_come_back(tmp_path, ending):
    grids = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    write(tmp_path / f"v{ending}", ["a", "b"], grids, MADE_BY)
    np.testing.assert_array_equal(READERS[ending](tmp_path / f"v{ending}")[1], grids)


@pytest.mark.parametrize("ending", [e for e in WRITERS if e != ".npy"])
def test_a_line_break_in_a_name_comes_back(tmp_path, ending):
    write(tmp_path / f"v{ending}", ["a\nb.jpg", "c\r.jpg"], rows(2), MADE_BY)
    assert READERS[ending](tmp_path / f"v{ending}")[0] == ["a\nb.jpg", "c\r.jpg"]


@pytest.mark.parametrize("ending", [e for e in WRITERS if e != ".parquet"])
def test_a_name_that_is_not_utf8_keeps_its_bytes(tmp_path, ending):
    write(tmp_path / f"v{ending}", [UNDECODABLE, "a.jpg"], rows(2), MADE_BY)
    names, _, _ = READERS[ending](tmp_path / f"v{ending}")
    assert [os.fsencode(name) for name in names] == [b"caf\xe9.jpg", b"a.jpg"]


@every_format
def test_a_file_is_replaced(tmp_path, ending):
    write(tmp_path / f"v{ending}", NAMES, rows(), MADE_BY)
    write(tmp_path / f"v{ending}", ["new"], rows(1), MADE_BY)
    assert READERS[ending](tmp_path / f"v{ending}")[0] == ["new"]


def test_npy_writes_its_companions_beside_it(tmp_path):
    write(tmp_path / "set.1.npy", ["a"], rows(1), MADE_BY)
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["set.1.fingerprint.json", "set.1.npy", "set.1.paths.txt"]


# --- lines


def test_a_line_has_the_shortest_decimals():
    line = json_line("a.jpg", np.array([0.1, -0.5, 1e-7], np.float32))
    assert line == '{"path": "a.jpg", "embedding": [0.1, -0.5, 1e-07]}'


def test_a_line_is_one_line_and_readable():
    assert json_line("ü\n", np.zeros(1, np.float32)) == '{"path": "ü\\n", "embedding": [0.0]}'


def test_a_line_is_valid_text_whatever_the_name():
    line = json_line(UNDECODABLE, np.zeros(1, np.float32))
    assert line.encode("utf-8") and json.loads(line)["path"] == UNDECODABLE


def test_a_line_may_be_about_a_text():
    assert json.loads(json_line("a dog", np.zeros(2, np.float32), "text")) == {
        "text": "a dog",
        "embedding": [0, 0],
    }


# --- refusals


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("v.csv", r"no format ends in \.csv"),
        ("v", "the name has no extension"),
        (".npz", "the name has no extension"),
    ],
)
@pytest.mark.parametrize("refuse", [check_target, lambda path: write(path, NAMES, rows(), MADE_BY)])
def test_an_ending_without_a_format_is_refused(tmp_path, name, problem, refuse):
    with pytest.raises(InputError, match=f"{problem}; use .npz, .npy, .*end the name in /"):
        refuse(tmp_path / name)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "v.npz").mkdir()
    with pytest.raises(OutputError, match=r"v\.npz is a folder: end its name in / for shards"):
        check_target(tmp_path / "v.npz")


@every_format
def test_a_folder_that_is_not_there_is_named(tmp_path, ending):
    path = tmp_path / "nowhere" / f"v{ending}"
    with pytest.raises(OutputError, match=rf"v\{ending} cannot be written: No such file or directory"):
        check_target(path)
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        write(path, NAMES, rows(), MADE_BY)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match=r"v\.npz cannot be written: Permission denied"):
        check_target(tmp_path / "v.npz")


@every_format
def test_a_good_target_is_accepted_and_left_alone(tmp_path, ending):
    (tmp_path / f"old{ending}").write_text("mine")
    check_target(tmp_path / f"old{ending}")
    check_target(tmp_path / f"new{ending}")
    assert [path.name for path in tmp_path.iterdir()] == [f"old{ending}"]
    assert (tmp_path / f"old{ending}").read_text() == "mine"


@pytest.mark.parametrize("refuse", [check_target, lambda path: write(path, NAMES, rows(), MADE_BY)])
def test_parquet_says_what_to_install(tmp_path, monkeypatch, refuse):
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=r"Writing \.parquet needs the package pyarrow: pip install"):
        refuse(tmp_path / "v.parquet")


@pytest.mark.parametrize(
    ("ending", "name", "message"),
    [
        (".npy", "a\nb", r"'a\\nb' has a line break in its name, which \.npy with \.paths\.txt cannot hold"),
        (".npy", "a\rb", r"'a\\rb' has a line break in its name"),
        (".parquet", UNDECODABLE, r"'caf\\udce9\.jpg' is not UTF-8, which \.parquet cannot hold: use \.npz"),
    ],
)
def test_a_name_that_a_format_cannot_hold_is_refused(tmp_path, ending, name, message):
    for refuse in (check_target, lambda path, names: write(path, names, rows(2), MADE_BY)):
        with pytest.raises(InputError, match=message):
            refuse(tmp_path / f"v{ending}", ["fine", name])
    assert list(tmp_path.iterdir()) == []


def test_parquet_holds_no_grids(tmp_path):
    with pytest.raises(InputError, match=r"one vector per row: use \.npz for token grids"):
        write(tmp_path / "v.parquet", ["a"], np.zeros((1, 2, 2, 3), np.float32), MADE_BY)


# --- failures half-way


@every_format
@pytest.mark.parametrize("lasting", [False, True], ids=["failed", "killed"])
@pytest.mark.parametrize("old", [False, True])
def test_a_file_is_the_old_or_the_new_one_whatever_fails(tmp_path, faults, ending, lasting, old):
    def begin(path):
        path.mkdir()
        if old:
            write(path / f"v{ending}", ["old"], rows(1), MADE_BY)

    def check(path, step):
        if not old and not (path / f"v{ending}").exists() and not (path / f".v{ending}.swap").exists():
            return
        found = read_vectors(path / f"v{ending}")
        assert found.paths in ((("old",),) if old else ()) + (tuple(NAMES),)
        assert len(found.embeddings) == len(found.paths) and found.fingerprint == MADE_BY
        write(path / f"v{ending}", ["later"], rows(1), MADE_BY)
        assert read_vectors(path / f"v{ending}").paths == ("later",)
        assert not [left.name for left in path.iterdir() if left.name.startswith(".")]

    def write_new(path):
        write(path / f"v{ending}", NAMES, rows(), MADE_BY)

    assert faults.everywhere(tmp_path, write_new, check, begin, lasting) >= 5


@pytest.mark.parametrize("ending", [".npy", ".jsonl"])
def test_a_file_appears_after_its_companions(tmp_path, faults, ending):
    with faults.watch() as steps:
        write(tmp_path / f"v{ending}", NAMES, rows(), MADE_BY)
    moved = [(step, path.name) for step, path in steps if step in ("replace", "sync")]
    assert moved[-3:] == [("sync", tmp_path.name), ("replace", f"v{ending}"), ("sync", tmp_path.name)]
    assert ("replace", "v.fingerprint.json") in moved[:-3]


@every_format
def test_a_write_that_fails_half_way_leaves_what_was_there(tmp_path, ending):
    path = tmp_path / f"v{ending}"
    write(path, ["old"], rows(1), MADE_BY)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def blocks():
        yield rows(3)
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="cannot be written: No space left"):
        write(path, NAMES, Rows((len(NAMES), 5), blocks), MADE_BY)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@every_format
def test_a_link_stays_and_the_files_lie_where_it_leads(tmp_path, ending):
    (tmp_path / "disk").mkdir()
    (tmp_path / f"v{ending}").symlink_to(f"disk/real{ending}")
    write(tmp_path / f"v{ending}", NAMES, rows(), MADE_BY)
    assert (tmp_path / f"v{ending}").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"disk", f"v{ending}"}
    assert read_vectors(tmp_path / f"v{ending}").paths == tuple(NAMES)


@every_format
def test_rows_need_not_be_in_memory_at_once(tmp_path, ending):
    parts = [rows()[:1], rows()[1:4], rows()[4:]]
    write(tmp_path / f"v{ending}", NAMES, Rows((len(NAMES), 5), lambda: iter(parts)), MADE_BY)
    np.testing.assert_array_equal(READERS[ending](tmp_path / f"v{ending}")[1], rows())


# --- what exists


@every_format
def test_what_exists_is_refused_before_any_work(tmp_path, ending):
    write(tmp_path / f"v{ending}", ["old"], rows(1), MADE_BY)
    with pytest.raises(
        ExistsError, match=rf"v\{ending} exists already: name another, or replace it with force=True"
    ):
        check_target(tmp_path / f"v{ending}", force=False)
    check_target(tmp_path / f"v{ending}", force=True)


def test_a_companion_that_exists_is_refused(tmp_path):
    (tmp_path / "v.paths.txt").write_text("mine")
    with pytest.raises(ExistsError, match=r"v\.paths\.txt exists already"):
        check_target(tmp_path / "v.npy", force=False)


@pytest.mark.parametrize("text", [json.dumps({**MADE_BY, "pooling": "max"}), "mine", None])
def test_the_fingerprint_of_another_file_is_not_replaced(tmp_path, text):
    if text is not None:
        (tmp_path / "v.fingerprint.json").write_text(text)
    else:
        (tmp_path / "v.fingerprint.json").symlink_to("nowhere")
    with pytest.raises(ExistsError, match=r"v\.fingerprint\.json exists already, of another file of vectors"):
        check_note(tmp_path / "v.npy", MADE_BY, force=False)
    check_note(tmp_path / "v.npy", MADE_BY, force=True)
    check_note(tmp_path / "v.npz", MADE_BY, force=False)


def test_two_files_of_one_model_may_share_their_fingerprint(tmp_path):
    write(tmp_path / "v.npy", NAMES, rows(), MADE_BY)
    check_target(tmp_path / "v.jsonl", force=False)
    check_note(tmp_path / "v.jsonl", MADE_BY, force=False)


def test_every_vector_needs_its_name(tmp_path):
    with pytest.raises(InputError, match="2 names for 3 vectors"):
        write(tmp_path / "v.npz", ["a", "b"], np.zeros((3, 4), dtype=np.float32), MADE_BY)


def test_an_ending_may_be_in_capitals(tmp_path):
    check_target(tmp_path / "v.NPZ")
    write(tmp_path / "v.NPZ", NAMES, rows(), MADE_BY)
    with np.load(tmp_path / "v.NPZ") as data:
        assert data["paths"].tolist() == NAMES


def test_lines_have_their_fingerprint_beside_them(tmp_path):
    write(tmp_path / "v.jsonl", NAMES, rows(), MADE_BY)
    assert json.loads((tmp_path / "v.fingerprint.json").read_text()) == MADE_BY
