"""Tests lie where their module lies: `tests/PACKAGE/test_MODULE.py` for `mlx_aimv2/PACKAGE/MODULE.py`."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
OF_EVERYTHING = {"docs", "gpu", "network", "parity"}  # folders of tests of the whole package
WITHOUT_MODULE = {
    "cli/test_hostile_folder.py",  # a folder of broken and strange files
    "cli/test_ranks.py",  # embed in several processes
    "cli/test_sources.py",  # sources of every kind in one run
    "checkpoints/test_tampered_checkpoints.py",  # every reader of a checkpoint
    "cli/test_captioned.py",  # captions, in every verb that takes them
    "cli/test_foreign_data.py",  # data of other programs, in every verb that takes data
    "cli/test_hostile_input.py",  # pipes, full disks and odd names, in every verb
    "cli/test_options.py",  # the options of every verb
    "cli/test_options_in_messages.py",  # every message of the package
    "conversion/test_convert_memory.py",  # the memory of a process
    "conversion/test_killed.py",  # processes that are killed
    "demo/test_checkpoint.py",  # the weights in demo/checkpoint
    "finetuning/test_buffers.py",  # runs on buffers, of every task
    "finetuning/test_killed.py",  # processes that are killed
    "processing/test_decode_refusals.py",  # what decode refuses
    "test_benchmarks.py",
    "test_benchmarks_metal.py",
    "test_declared.py",
    "test_distribution.py",
    "test_examples.py",
    "test_golden.py",
    "test_layout.py",
    "test_public_names.py",
    "test_typing.py",
    "training/test_loop_resume.py",  # the loop, when a run is resumed
    "vectors/test_killed.py",  # processes that are killed
}


def module_of(test: Path) -> Path:
    """The module that a test file is named after."""
    package = ROOT / ("examples" if test.parts[0] == "drawn_world" else "mlx_aimv2")
    return package / test.parent / f"{test.stem.removeprefix('test_')}.py"


def test_every_test_file_is_named_after_its_module():
    files = {path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    lone = {file.as_posix() for file in files
            if file.parts[0] not in OF_EVERYTHING and not module_of(file).is_file()}  # fmt: skip
    assert lone == WITHOUT_MODULE
