"""The folder of a run: what a killed run left in it, and errors that a resumed run can overcome."""

import pytest

from mlx_aimv2.adapters.task import SWAP, TASK
from mlx_aimv2.errors import InputError, OutputError
from mlx_aimv2.finetuning.options import FinetuneOptions
from mlx_aimv2.finetuning.run_folder import claimed
from mlx_aimv2.training.state import STATE


def claim(folder, resume=False):
    """The lock on a folder for a run."""
    return claimed(FinetuneOptions(adapter_path=str(folder), resume=resume))


@pytest.fixture
def folder(tmp_path):
    """A folder with the best epoch of a killed run, which did not reach its place."""
    (tmp_path / "run" / SWAP).mkdir(parents=True)
    (tmp_path / "run" / SWAP / TASK).write_text("{}")
    return tmp_path / "run"


def test_a_new_run_does_not_take_the_best_epoch_of_another(folder):
    with claim(folder):
        assert not (folder / SWAP).exists() and not (folder / TASK).exists()


def test_a_resumed_run_brings_its_best_epoch_to_its_place(folder):
    (folder / STATE).parent.mkdir()
    (folder / STATE).touch()
    with claim(folder, resume=True):
        assert (folder / TASK).read_text() == "{}" and not (folder / SWAP).exists()


def test_a_folder_with_something_in_it_is_not_claimed(folder):
    (folder / "notes.txt").touch()
    with (
        pytest.raises(InputError, match="holds something already: --resume goes on with a run"),
        claim(folder),
    ):
        pytest.fail("it was claimed")
    assert (folder / SWAP / TASK).exists()


def test_a_full_disk_is_an_error_that_names_resume_once_there_is_a_state(folder):
    with pytest.raises(OutputError) as first, claim(folder):
        raise OutputError("no room")
    assert str(first.value) == "no room"
    with pytest.raises(OutputError) as second, claim(folder):
        (folder / STATE).parent.mkdir()
        (folder / STATE).touch()
        raise OutputError("no room")
    assert str(second.value) == "no room; once it can be, --resume goes on with this run"
