"""Reports on disk: which files, replaced together or not at all, and refusals."""

import json
from dataclasses import dataclass, field

import pytest

from mlx_aimv2.errors import ExistsError, OutputError
from mlx_aimv2.evaluation.report import CHARTS, REPORT, check_report, write_report
from mlx_aimv2.storage.swap import swapped


@dataclass
class Evaluated:
    """An evaluation with charts that cost nothing."""

    images: int = 9
    names: tuple[str, ...] = field(default=CHARTS)

    def to_dict(self):
        return {"images": self.images, "top1": 1.0}

    def charts(self):
        return {name: f"{name} {self.images}".encode() for name in self.names}


def test_a_report_has_three_files(tmp_path):
    written = write_report(tmp_path / "deep" / "report", Evaluated())
    assert sorted(path.name for path in written) == ["calibration.png", "confusion.png", "evaluation.json"]
    assert sorted(written) == sorted((tmp_path / "deep" / "report").iterdir())
    assert json.loads((tmp_path / "deep" / "report" / REPORT).read_text()) == Evaluated().to_dict()
    assert (tmp_path / "deep" / "report" / "confusion.png").read_bytes() == b"confusion.png 9"


@pytest.mark.parametrize("names", [CHARTS[:1], ()])
def test_a_report_of_another_kind_removes_the_charts_of_the_one_before(tmp_path, names):
    write_report(tmp_path, Evaluated())
    write_report(tmp_path, Evaluated(names=names))
    assert {path.name for path in tmp_path.iterdir()} == {REPORT, *names}


@pytest.mark.parametrize("name", ["evaluation.json", "confusion.png", "calibration.png"])
def test_an_existing_report_is_refused(tmp_path, name):
    (tmp_path / "mine.txt").touch()
    check_report(tmp_path, force=False)
    (tmp_path / name).touch()
    with pytest.raises(
        ExistsError, match=f"{name} exists already: name another, or replace it with force=True"
    ):
        check_report(tmp_path, force=False)
    check_report(tmp_path, force=True)
    with pytest.raises(ExistsError, match=f"{name} is not a folder: name another"):
        check_report(tmp_path / name, force=True)


@pytest.mark.parametrize("lasting", [False, True], ids=["failed", "killed"])
def test_a_report_is_the_old_or_the_new_one_whatever_fails(tmp_path, faults, lasting):
    old, new = Evaluated(2), Evaluated(9)

    def check(folder, step):
        file = swapped(folder / REPORT, folder / ".report")
        assert not file.exists() or json.loads(file.read_text()) in (old.to_dict(), new.to_dict())
        write_report(folder, new)
        assert sorted(path.name for path in folder.iterdir()) == sorted((REPORT, *CHARTS))

    def work(folder):
        write_report(folder, new)

    assert faults.everywhere(tmp_path, work, check, lambda folder: write_report(folder, old), lasting) >= 15


def test_a_report_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file.*cannot be written: "):
        write_report(tmp_path / "file" / "report", Evaluated())
