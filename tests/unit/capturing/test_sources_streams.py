"""Streams: read piece by piece, the same rows as taken whole, resumed where they stopped, never held in memory."""

from __future__ import annotations

import functools
import gc
import itertools
import re
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import inscape as ix
from inscape.capturing import Stimuli, endless, stream
from inscape.errors import InscapeWarning, MemoryBudgetError, StimuliError, StoreMismatchError
from inscape.store import StoreWriter

N = 23
SITES = ["0", "2"]


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    """The stimuli."""
    return torch.randn(N, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    """Three layers."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))


class Lines:
    """Can be read again and again, and has no length."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x, self.read = x, 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        for row in self.x:
            self.read += 1
            yield row


class Items(Dataset[torch.Tensor]):
    """A torch data set that notes what it was asked for."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x, self.asked = x, list[int]()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> torch.Tensor:
        self.asked.append(i)
        return self.x[i]


def hub(x: torch.Tensor) -> Any:
    """A stream of Hugging Face."""
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_dict({"array": x.numpy()}).to_iterable_dataset(num_shards=3)


def shuffled(x: torch.Tensor, seed: int | None = 0) -> Any:
    """A stream in an order of its own."""
    return hub(x).shuffle(seed=seed, buffer_size=5)


SOURCES: dict[str, Callable[[torch.Tensor], Any]] = {
    "generator": lambda x: (row for row in x),
    "function": lambda x: lambda: (row for row in x),
    "partial": lambda x: functools.partial(iter, list(x)),
    "iterable": Lines,
    "data set": Items,
    "loader": lambda x: DataLoader(TensorDataset(x), batch_size=5),
    "hub": hub,
    "hub shuffled": shuffled,
}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def broken_off(monkeypatch: pytest.MonkeyPatch, after: int) -> pytest.MonkeyPatch:
    """Lets a capture die after some shards."""
    write = StoreWriter.write_shard

    def dying(self: StoreWriter, index: int, *args: Any, **kwargs: Any) -> None:
        if index == after:
            raise KeyboardInterrupt
        write(self, index, *args, **kwargs)

    monkeypatch.setattr(StoreWriter, "write_shard", dying)
    return monkeypatch


@pytest.mark.parametrize("name", SOURCES)
def test_a_stream_gives_the_rows_of_the_whole(name, x, module):
    store = ix.capture(module, SOURCES[name](x), sites=SITES, shard_stimuli=6, batch_size=4)
    order = list(range(N))
    if name.startswith("hub"):
        given = np.array([row["array"] for row in SOURCES[name](x)], np.float32)
        order = [int(np.flatnonzero((x.numpy() == row).all(1))[0]) for row in given]
    with torch.no_grad():
        torch.testing.assert_close(store["2"].torch(), module(x[order]), rtol=0, atol=1e-6)
        torch.testing.assert_close(store["0"].torch(), module[0](x[order]), rtol=0, atol=1e-6)  # pyright: ignore[reportIndexIssue]
    assert store["2"].ids.tolist() == [str(i) for i in range(N)]
    assert [shard.notes["stimuli"] for shard in store.manifest.shards] == [[0, 6], [6, 12], [12, 18], [18, 23]]


@pytest.mark.parametrize(("name", "after"), [*((name, 2) for name in SOURCES), ("iterable", 0), ("iterable", 3), ("hub", 3)])
def test_a_broken_capture_goes_on_to_the_same_bytes(name, after, x, module, tmp_path, monkeypatch):
    options: dict[str, Any] = {"sites": SITES, "shard_stimuli": 6, "progress": False}
    ix.capture(module, SOURCES[name](x), to=tmp_path / "whole", **options)
    with broken_off(monkeypatch, after).context() as patch, pytest.raises(KeyboardInterrupt):
        broken_off(patch, after)
        ix.capture(module, SOURCES[name](x), to=tmp_path / "broken", **options)
    monkeypatch.undo()
    partial = ix.open(tmp_path / "broken", partial=True)
    assert partial.stimuli.num_rows == 6 * after
    source = SOURCES[name](x)
    store = ix.capture(module, source, to=tmp_path / "broken", **options)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    assert store.complete and store.verify() == []
    if name == "data set" and after:
        assert not set(source.asked) & set(range(6, 6 * after))  # those in between were not even read
    before = contents(tmp_path / "broken")
    assert ix.capture(module, SOURCES[name](x), to=tmp_path / "broken", **options).complete
    assert contents(tmp_path / "broken") == before


def test_a_killed_run_that_had_written_everything_is_finished(x, module, tmp_path, monkeypatch):
    ix.capture(module, Lines(x), sites="2", shard_stimuli=23, to=tmp_path / "whole")
    monkeypatch.setattr(StoreWriter, "finish", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ix.capture(module, Lines(x), sites="2", shard_stimuli=23, to=tmp_path / "a")
    monkeypatch.undo()
    ix.capture(module, Lines(x), sites="2", shard_stimuli=23, to=tmp_path / "a")
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")


def test_a_source_that_cannot_be_read_again_is_refused_on_resume(x, module, tmp_path, monkeypatch):
    options: dict[str, Any] = {"sites": "2", "shard_stimuli": 6, "to": tmp_path / "a"}
    begun = (row for row in x)
    with pytest.raises(KeyboardInterrupt):
        broken_off(monkeypatch, 2)
        ix.capture(module, begun, **options)
    monkeypatch.undo()
    words = "holds 12 stimuli of an earlier run, and this source cannot show that it is the same: a generator cannot be sent back"
    with pytest.raises(StoreMismatchError, match=words):
        ix.capture(module, begun, **options)
    with pytest.raises(StoreMismatchError, match=r"a \w*iterator cannot be sent back .* Give a function that returns a fresh iterator"):
        ix.capture(module, iter(list(x)), **options)
    assert ix.capture(module, lambda: iter(list(x)), label=None, **{**options, "to": tmp_path / "b"}).complete


def test_another_source_is_not_taken_for_the_same(x, module, tmp_path, monkeypatch):
    options: dict[str, Any] = {"sites": "2", "shard_stimuli": 6}
    with pytest.raises(KeyboardInterrupt):
        broken_off(monkeypatch, 2)
        ix.capture(module, Lines(x), to=tmp_path / "a", **options)
    monkeypatch.undo()
    before = contents(tmp_path / "a")
    with pytest.raises(StoreMismatchError, match=r"holds a store of another plan: stream.first.sha256 was"):
        ix.capture(module, Lines(x.flip(0)), to=tmp_path / "a", **options)
    with pytest.raises(StoreMismatchError, match=r"stream.limit was None, now is 12"):
        ix.capture(module, Lines(x), to=tmp_path / "a", limit=12, **options)
    with pytest.raises(StoreMismatchError, match=r"stream.source was 'Lines', now is 'function'"):
        ix.capture(module, lambda: iter(x), to=tmp_path / "a", **options)
    with pytest.raises(StoreMismatchError, match=r"batches.shard_stimuli was 6, now is 5"):
        ix.capture(module, Lines(x), to=tmp_path / "a", **{**options, "shard_stimuli": 5})
    with pytest.raises(StoreMismatchError, match="holds a store of another plan"):
        ix.capture(module, list(x), to=tmp_path / "a", **options)
    assert contents(tmp_path / "a") == before
    ix.capture(module, Lines(x), to=tmp_path / "a", sites="2")  # the size of a piece is the one it was begun with
    assert ix.open(tmp_path / "a").complete


def test_endless_sources_stop_at_the_limit(x, module, tmp_path):
    endless_rows = functools.partial(itertools.cycle, list(x))
    for limit, shards in ((6, [6]), (50, [24, 24, 2]), (48, [24, 24])):
        store = ix.capture(module, endless_rows, sites="2", limit=limit, shard_stimuli=24, to=tmp_path / str(limit))
        assert [stop - start for start, stop in (shard.notes["stimuli"] for shard in store.manifest.shards)] == shards[: len(shards)]
        with torch.no_grad():
            torch.testing.assert_close(store["2"].torch(), module(torch.cat([x] * 3)[:limit]), rtol=0, atol=1e-6)
    assert ix.capture(module, itertools.cycle(list(x)), sites="2", limit=30)["2"].n == 30
    assert ix.capture(module, Items(x), sites="2", limit=30)["2"].n == N


def test_a_stream_that_fills_the_memory_is_stopped(x, module):
    words = "the stream has more stimuli than fit into memory: the rows take .* Or say how many with limit="
    with pytest.raises(MemoryBudgetError, match=words):
        ix.capture(module, itertools.cycle(list(x)), sites="2", shard_stimuli=24, memory="2kB")


def test_no_more_than_a_few_pieces_are_held(module, tmp_path):
    alive, most = [0], [0]

    def gone() -> None:
        alive[0] -= 1

    def rows() -> Iterator[np.ndarray]:
        for i in range(150):
            row = np.full(4, float(i), np.float32).view(_Row)
            weakref.finalize(row, gone)
            alive[0] += 1
            if i == 99:
                gc.collect()
            most[0] = max(most[0], alive[0] if i >= 99 else 0)
            yield row

    store = ix.capture(module, rows, sites="2", shard_stimuli=10, to=tmp_path / "a")
    assert store["2"].n == 150
    assert most[0] <= 50  # pieces of ten: the first, the one that runs, and the one that is written


class _Row(np.ndarray):
    """An array that can be watched."""


def test_pieces_are_sized_by_what_they_hold(x, module, monkeypatch):
    monkeypatch.setattr(endless, "PILOT", 8)
    monkeypatch.setattr(endless, "shard_size", lambda most, each: max(1, int(160 // each)))
    store = ix.capture(module, Lines(x), sites="2")  # 12 bytes of rows, 16 of the stimulus itself
    assert store.manifest.plan["batches"]["shard_stimuli"] == 10
    assert [shard.notes["stimuli"][1] for shard in store.manifest.shards] == [10, 20, 23]
    store = ix.capture(module, (row for row in x), sites="0")  # 32 bytes: fewer than were looked at
    assert [shard.notes["stimuli"][1] for shard in store.manifest.shards] == [5, 10, 15, 20, 23]
    with torch.no_grad():
        torch.testing.assert_close(store["0"].torch(), module[0](x), rtol=0, atol=1e-6)  # pyright: ignore[reportIndexIssue]


def test_rows_of_tables_keep_their_columns_and_ids(x, module):
    def rows() -> Iterator[dict[str, Any]]:
        for i, row in enumerate(x):
            yield {"features": row, "label": i % 3, "name": f"n{i}", **({"late": i} if i > 12 else {})}

    store = ix.capture(module, Stimuli.stream(rows, column="features", ids="name"), sites="2", shard_stimuli=6)
    assert store["2"].ids.tolist() == [f"n{i}" for i in range(N)]
    assert store["2"].column("label").tolist() == [i % 3 for i in range(N)]
    assert store.stimuli["late"].to_pylist() == [None] * 13 + list(range(13, N))
    twice = ({"features": row, "id": i % 20} for i, row in enumerate(x))
    with pytest.raises(
        StimuliError, match=r"the stimulus id '[012]' comes back in a stream; stimuli that are read piece by piece need ids"
    ):
        ix.capture(module, twice, sites="2", shard_stimuli=6)
    with pytest.raises(StimuliError, match="the stimulus id 'a' comes back in a stream"):
        ix.capture(module, ({"features": row, "id": "a"} for row in x), sites="2")


def test_stimuli_of_another_shape_are_refused(module):
    net = torch.nn.Sequential(torch.nn.Flatten(0, -1), torch.nn.Unflatten(0, (-1, 2)))

    def rows() -> Iterator[torch.Tensor]:
        yield from (torch.zeros(2) for _ in range(4))
        yield from (torch.zeros(2, 2) for _ in range(4))

    with pytest.raises((StimuliError, ix.errors.SiteNotFoundError)):
        ix.capture(net, rows, sites="1", shard_stimuli=4)


def test_one_dtype_holds_for_all_pieces(x, module):
    store = ix.capture(module, Lines(x), sites=SITES, dtype="auto", shard_stimuli=6)
    whole = ix.capture(module, x, sites=SITES, dtype="float16", shard_stimuli=6)
    assert store["2"].dtype == torch.float16
    assert torch.equal(store["2"].torch(), whole["2"].torch())


def test_texts_are_counted_over_all_pieces(make, plain_tokenizer):
    model = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    texts = [" ".join(f"w{1 + j % 9}" for j in range(1 + i % 5)) for i in range(11)]
    with pytest.warns(InscapeWarning, match=r"^4 stimuli of the stream were cut at max_length=3: 6 of 31 tokens are not read") as caught:
        store = ix.capture(model, iter(texts), sites="blocks.1.resid_post", tokens="all", max_length=3, shard_stimuli=4)
    assert len(caught) == 1
    assert store.manifest.notes["read"]["truncated_tokens"] == 6
    assert store["blocks.1.resid_post"].n == store.manifest.notes["read"]["tokens"] == 25
    with pytest.warns(InscapeWarning, match="4 of 11 stimuli were cut"):
        whole = ix.capture(model, texts, sites="blocks.1.resid_post", tokens="all", max_length=3, shard_stimuli=4)
    torch.testing.assert_close(store["blocks.1.resid_post"].torch(), whole["blocks.1.resid_post"].torch(), rtol=0, atol=1e-5)
    assert store["blocks.1.resid_post"].tokens.tolist() == whole["blocks.1.resid_post"].tokens.tolist()


def test_chats_and_sounds_may_stream(make):
    from transformers import Wav2Vec2FeatureExtractor

    processor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    model = ix.load(make("wav2vec2-layer"), processor=processor)
    waves = [np.sin(np.arange(200 + 20 * i) / 7).astype(np.float32) for i in range(5)]
    rows = ({"audio": {"array": wave, "sampling_rate": 16000}} for wave in waves)
    store = ix.capture(model, rows, sites="blocks.1.resid_post", shard_stimuli=2)
    whole = ix.capture(model, Stimuli(waves, kind="sound", sampling_rate=16000), sites="blocks.1.resid_post", shard_stimuli=2)
    torch.testing.assert_close(store["blocks.1.resid_post"].torch(), whole["blocks.1.resid_post"].torch(), rtol=0, atol=1e-5)


def test_rows_of_a_stream_may_go_to_a_consumer(x, module):
    got: list[torch.Tensor] = []
    numbers: list[int] = []

    def take(shard: Any) -> None:
        got.append(shard.values["2"])
        numbers.extend(shard.rows[shard.row_sets["2"]]["stimulus"].to_pylist())

    plan = stream(module, itertools.cycle(list(x)), "2", None, take, limit=2 * N, shard_stimuli=10)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(got), module(torch.cat([x, x])), rtol=0, atol=1e-6)
    assert numbers == list(range(2 * N))
    assert plan["stream"]["limit"] == 2 * N and plan["sites"]["2"].d == 3


def test_too_little_memory_halves_the_batches_of_the_pieces_that_follow(x, tmp_path):
    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(4, 3)
            self.asked: list[int] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.asked.append(len(x))
            if len(x) > 3:
                raise MemoryError("the machine is small")
            return self.inner(x)

    torch.manual_seed(0)
    net = Small()
    store = ix.capture(net, Lines(x), sites="inner", shard_stimuli=8, batch_size=8, to=tmp_path / "a")
    with torch.no_grad():
        torch.testing.assert_close(store["inner"].torch(), net.inner(x), rtol=0, atol=1e-6)
    records = store.manifest.notes["halvings"]
    assert [(record["shard"], record["batch_size"]) for record in records] == [(0, 4), (0, 2)]
    assert net.asked.count(8) == net.asked.count(4) == 1  # once each: what did not fit is not tried again


def test_streams_have_no_parts_and_need_items(x, module, tmp_path):
    with pytest.raises(StimuliError, match="part='1/2' cuts stimuli that are known; a stream is read by one process"):
        ix.capture(module, Lines(x), sites="2", to=tmp_path / "a", part="1/2")
    with pytest.raises(StimuliError, match="there are no stimuli"):
        ix.capture(module, iter([]), sites="2")
    with pytest.raises(StimuliError, match=re.escape("a list is not read piece by piece; give an IterableDataset")):
        Stimuli.stream([1, 2])
    with pytest.raises(StimuliError, match="shard_stimuli=0 leaves no shard"):
        ix.capture(module, Lines(x), sites="2", shard_stimuli=0)


def test_streams_write_addresses(x, module, tmp_path):
    ix.capture(module, Lines(x), sites="2", shard_stimuli=6, to=tmp_path / "a")
    store = ix.capture(module, Lines(x), sites="2", shard_stimuli=6, to=f"memory://{tmp_path.name}/a")
    import fsspec

    files, root = fsspec.core.url_to_fs(f"memory://{tmp_path.name}/a")
    assert {name.removeprefix(root).lstrip("/"): files.cat_file(name) for name in files.find(root)} == contents(tmp_path / "a")
    assert store.verify() == []
    files.rm(root, recursive=True)
