"""One result, bit for bit, for any number of workers and any order of completion."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from inscape.engine import map_reduce
from inscape.errors import DegenerateInputError, TooFewStimuliError


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 31])
def test_sums_are_bit_equal_across_workers_and_delays(count: int) -> None:
    values = [torch.randn(7, generator=torch.Generator().manual_seed(i)) * 10.0 ** (i % 9) for i in range(count)]
    clock = random.Random(count)

    def late(value: torch.Tensor) -> torch.Tensor:
        time.sleep(clock.uniform(0, 0.002))
        return value.clone()

    reference = map_reduce(torch.clone, values, torch.add)
    torch.testing.assert_close(reference.double(), torch.stack(values).double().sum(0), rtol=1e-5, atol=1e-3)
    for workers in (1, 2, 3, 8):
        assert torch.equal(map_reduce(late, values, torch.add, workers=workers), reference)


def test_the_tree_is_the_binary_one() -> None:
    merged = map_reduce(str, range(7), lambda a, b: f"({a}{b})", workers=3)
    assert merged == "(((01)(23))((45)6))"
    assert map_reduce(str, [4], lambda a, b: a + b) == "4"


def test_order_is_kept_for_merges_that_do_not_commute() -> None:
    words = [chr(97 + i) for i in range(26)]
    assert map_reduce(str.upper, words, lambda a, b: a + b, workers=4) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_names_its_shard(workers: int) -> None:
    def fn(shard: str) -> int:
        if shard in ("c", "e"):
            raise DegenerateInputError(f"{shard} is constant")
        return 1

    with pytest.raises(DegenerateInputError, match="c is constant") as caught:
        map_reduce(fn, "abcdef", int.__add__, workers=workers)
    assert caught.value.__notes__ == ["in shard 2: 'c'"]


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_to_go_over(workers: int) -> None:
    with pytest.raises(TooFewStimuliError, match=r"there are no shards to go over \(0 rows\); give at least one"):
        map_reduce(str, [], str.__add__, workers=workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_few_parts_are_alive_at_a_time(workers: int) -> None:
    alive, most, lock = 0, 0, threading.Lock()

    class Part:
        def __init__(self) -> None:
            nonlocal alive, most
            with lock:
                alive += 1
                most = max(most, alive)

        def merge(self, other: Part) -> Part:
            nonlocal alive
            with lock:
                alive -= 1
            return self

    drawn: list[int] = []

    def shards() -> Iterator[int]:
        for i in range(200):
            drawn.append(i)
            yield i

    map_reduce(lambda _: Part(), shards(), Part.merge, workers=workers)
    assert len(drawn) == 200
    assert most <= math.log2(200) + 2 * workers + 2
