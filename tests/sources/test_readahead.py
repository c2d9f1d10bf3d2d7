"""Reading ahead: the order, the bound, the failures, the end of the process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from mlx_aimv2.errors import BrokenImageError, ForkedProcessError, InputError
from mlx_aimv2.processing.source_image import SourceImage
from mlx_aimv2.sources.readahead import DEFAULT_THREADS, WAITING_THREADS, Failed, read_ahead, threads_for


def plain(item: int) -> np.ndarray:
    return np.full((2, 3, 3), item, dtype=np.float32)


def values(items: Any, decode: Any = plain, **options: int) -> list[tuple[int, float]]:
    return [(result.index, float(result.pixels[0, 0, 0])) for result in read_ahead(items, decode, **options)]


@pytest.mark.parametrize("threads", [1, 2, 16])
@pytest.mark.parametrize("ahead", [1, 5, 64])
def test_results_come_in_the_order_of_the_items_however_long_each_takes(threads: int, ahead: int) -> None:
    decoded = [threading.Event() for _ in range(40)]

    def slow(item: int) -> np.ndarray:
        if threads > 1 and item % 2 == 0:  # every even item waits for the next one
            assert decoded[item + 1].wait(10)
        decoded[item].set()
        return plain(item)

    assert values(range(40), slow, threads=threads, ahead=ahead) == [(k, k) for k in range(40)]


@pytest.mark.parametrize("count", [1, 2, 8, 15, 16, 17, 40])
def test_every_item_is_decoded_once(count: int) -> None:
    decoded: list[int] = []

    def counted(item: int) -> np.ndarray:
        decoded.append(item)
        return plain(item)

    assert len(values(range(count), counted, threads=8, ahead=16)) == count
    assert sorted(decoded) == list(range(count))


def test_several_items_are_decoded_at_once() -> None:
    meeting = threading.Barrier(3, timeout=10)  # passes only when three threads stand before it

    def meet(item: int) -> np.ndarray:
        meeting.wait()
        return plain(item)

    assert len(values(range(6), meet, threads=3)) == 6


@pytest.mark.parametrize("ahead", [1, 64])
def test_images_that_wait_are_read_in_more_threads(ahead: int) -> None:
    meeting = threading.Barrier(WAITING_THREADS, timeout=10)

    def answer() -> bytes:
        meeting.wait()
        return b"data"

    images = [SourceImage(f"image {k}", answer, waits=True) for k in range(2 * WAITING_THREADS)]
    results = list(read_ahead(images, lambda image: plain(len(image.open())), ahead=ahead))
    assert [result.index for result in results] == list(range(len(images)))


def test_one_image_that_waits_is_enough_and_others_get_a_thread_for_each_core() -> None:
    local, remote = SourceImage("a.tar/1.jpg", bytes), SourceImage("https://host/1.jpg", bytes, waits=True)
    assert threads_for([local, "a.jpg", remote]) == max(WAITING_THREADS, DEFAULT_THREADS)
    assert threads_for([local, "a.jpg", np.zeros((2, 2, 3))]) == DEFAULT_THREADS
    assert threads_for(item for item in [remote]) == DEFAULT_THREADS  # unknown before it is asked


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_items(count: int) -> None:
    assert values(list(range(count))) == [(k, k) for k in range(count)]


def test_pixels_keep_shape_dtype_and_bits() -> None:
    images = [np.random.default_rng(k).random((k + 1, 2 * k + 3, 3), dtype=np.float32) for k in range(5)]
    results = read_ahead(images, lambda item: item)
    for image, result in zip(images, results, strict=True):
        assert result.pixels is not None and result.pixels.dtype == np.float32
        np.testing.assert_array_equal(result.pixels, image)


def test_a_read_only_result_will_do() -> None:
    def frozen(item: int) -> np.ndarray:
        image = plain(item)
        image.flags.writeable = False
        return image

    assert values(range(3), frozen) == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("count", [1, 6])
def test_errors_of_this_package_become_the_result_of_their_item(count: int) -> None:
    broken = count - 1

    def decode(item: int) -> np.ndarray:
        if item == broken:
            raise BrokenImageError(f"item {item} is damaged")
        return plain(item)

    results = list(read_ahead(range(count), decode))
    assert [result.index for result in results] == list(range(count))
    assert [result.index for result in results if isinstance(result, Failed)] == [broken]
    assert isinstance(results[broken].error, BrokenImageError)
    assert str(results[broken].error) == f"item {broken} is damaged"


@pytest.mark.parametrize("count", [1, 6])
def test_other_exceptions_are_raised_to_the_caller(count: int) -> None:
    def decode(item: int) -> np.ndarray:
        if item == count - 1:
            raise ZeroDivisionError("a bug")
        return plain(item)

    seen = []
    with pytest.raises(ZeroDivisionError, match="a bug"):
        seen.extend(result.index for result in read_ahead(range(count), decode))


def test_what_came_before_an_exception_is_yielded_first() -> None:
    def decode(item: int) -> np.ndarray:
        if item == 3:
            raise ZeroDivisionError
        return plain(item)

    results, seen = read_ahead(range(6), decode), []
    with pytest.raises(ZeroDivisionError):
        for result in results:
            seen.append(result.index)
    assert seen == [0, 1, 2]


def test_an_item_that_cannot_be_fetched_is_an_exception_too() -> None:
    class Items(list[int]):
        def __getitem__(self, index: Any) -> Any:
            if index == 1:
                raise InputError("no such row")
            return super().__getitem__(index)

    assert [str(result.error) for result in read_ahead(Items([5, 6, 7]), plain)] == [
        "None",
        "no such row",
        "None",
    ]


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (2, 4), (4, 16)])
def test_no_more_than_a_bounded_number_is_decoded_ahead(threads: int, ahead: int) -> None:
    started, changed = [], threading.Condition()

    def counted(item: int) -> np.ndarray:
        with changed:
            started.append(item)
            changed.notify_all()
        return plain(item)

    results = read_ahead(range(1000), counted, threads=threads, ahead=ahead)
    for taken in (1, 2, 3):
        next(results)
        with changed:
            assert changed.wait_for(lambda count=taken + ahead: len(started) == count, timeout=10)
    results.close()
    assert sorted(started) == list(range(3 + ahead))


@pytest.mark.parametrize("end", ["close", "forget"])
def test_threads_end_when_the_rest_is_not_wanted(end: str) -> None:
    results = read_ahead(range(10_000), plain, threads=4, ahead=8)
    next(results)
    if end == "close":
        results.close()
    del results
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize("end", ["sys.exit()", ""])
def test_a_process_ends_cleanly_when_the_rest_is_not_wanted(end: str) -> None:
    code = f"""
        import sys
        import numpy as np
        from mlx_aimv2.sources.readahead import read_ahead

        def decode(item):
            return np.zeros((4, 4, 3), np.float32)

        results = read_ahead(range(10_000), decode, threads=4, ahead=8)
        next(results)
        print("taken", flush=True)
        {end}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "taken\n", "")


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_a_generator_is_read_in_order(count: int) -> None:
    assert values((k for k in range(count)), ahead=4) == [(k, k) for k in range(count)]


def test_a_generator_is_read_no_further_than_the_bound() -> None:
    taken: list[int] = []

    def endless() -> Any:
        while True:
            taken.append(len(taken))
            yield len(taken)

    results = read_ahead(endless(), plain, threads=2, ahead=3)
    for count in range(1, 6):
        next(results)
        assert len(taken) == count + 3
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_what_a_generator_raises_comes_last() -> None:
    def failing() -> Any:
        yield from range(3)
        raise KeyError("of the generator")

    seen = []
    with pytest.raises(KeyError, match="of the generator"):
        seen.extend(result.index for result in read_ahead(failing(), plain, ahead=16))
    results, seen = read_ahead(failing(), plain, ahead=16), []
    with pytest.raises(KeyError):
        for result in results:
            seen.append(result.index)
    assert seen == [0, 1, 2]


def test_it_does_not_go_on_in_a_forked_child(monkeypatch: pytest.MonkeyPatch) -> None:
    results = read_ahead(range(9), plain, ahead=2)
    next(results)
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(ForkedProcessError, match="begin anew in the child"):
        next(results)


def test_a_thread_that_outlives_the_main_thread_decodes_by_itself(monkeypatch):
    def ended(*_):
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", ended)
    results = list(read_ahead([3, 1, 2], lambda value: np.full((1, 1, 3), value, np.float32)))
    assert [(item.index, item.pixels[0, 0, 0]) for item in results] == [(0, 3), (1, 1), (2, 2)]
