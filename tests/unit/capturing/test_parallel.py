"""Several processes write one store: parts that are whole together, each resumable, and none twice."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch

import inscape as ix
from inscape.errors import StimuliError, StoreCorruptError, StoreIncompleteError, StoreMismatchError
from inscape.store import parts as parts_module
from inscape.store.disk import lock_folder
from inscape.store.staging import read_part, shards_of
from inscape.store.writer import StoreWriter

from .conftest import words

OPTIONS = {"sites": ["0", "2"], "shard_stimuli": 4, "batch_size": 3}


def _module(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))


def _arrays(n=23, seed=1):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


def _contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class InterruptionError(Exception):
    pass


def _stop_at(monkeypatch, shard):
    write = StoreWriter.write_shard

    def failing(self, index, *rest):
        if index == shard:
            raise InterruptionError
        write(self, index, *rest)

    monkeypatch.setattr(StoreWriter, "write_shard", failing)
    return lambda: monkeypatch.setattr(StoreWriter, "write_shard", write)


@pytest.fixture
def whole(tmp_path):
    """The store that a single process writes: 23 stimuli in 6 shards."""
    ix.capture(_module(), _arrays(), to=tmp_path / "whole", **OPTIONS)
    return _contents(tmp_path / "whole")


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)], ids=str)
def test_parts_in_any_order_give_the_bytes_of_one_process(tmp_path, whole, order):
    stores = [ix.capture(_module(), _arrays(), to=tmp_path / "s", part=f"{k}/3", **OPTIONS) for k in order]
    assert [store.complete for store in stores] == [False, False, True]
    assert _contents(tmp_path / "s") == whole
    with torch.no_grad():
        torch.testing.assert_close(stores[-1]["0"].torch(), _module()[0](_arrays()), rtol=0, atol=1e-6)
    assert stores[-1].verify() == []


def test_one_part_alone_is_the_store(tmp_path, whole):
    assert ix.capture(_module(), _arrays(), to=tmp_path / "s", part="1/1", **OPTIONS).complete
    assert _contents(tmp_path / "s") == whole


def test_a_part_of_a_finished_store_returns_it(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(StoreWriter, "write_shard", lambda *a, **k: pytest.fail("nothing is left to write"))
    assert ix.capture(_module(), _arrays(), to=tmp_path / "whole", part="2/3", **OPTIONS).complete
    assert _contents(tmp_path / "whole") == whole


def test_every_shard_belongs_to_one_part():
    for shards in range(1, 20):
        for n in range(1, shards + 1):
            own = [shards_of((k, n), shards) for k in range(1, n + 1)]
            assert [i for part in own for i in part] == list(range(shards))
            assert max(map(len, own)) - min(map(len, own)) <= 1


def test_an_interrupted_part_goes_on_at_its_first_missing_shard(tmp_path, whole, monkeypatch):
    arguments = {"to": tmp_path / "s", **OPTIONS}
    ix.capture(_module(), _arrays(), part="1/2", **arguments)
    restore = _stop_at(monkeypatch, 5)
    with pytest.raises(InterruptionError):
        ix.capture(_module(), _arrays(), part="2/2", **arguments)
    restore()
    written, write = [], StoreWriter.write_shard
    monkeypatch.setattr(StoreWriter, "write_shard", lambda self, index, *rest: (written.append(index), write(self, index, *rest)))
    assert ix.capture(_module(), _arrays(), part="2/2", **arguments).complete
    assert written == [5]
    assert _contents(tmp_path / "s") == whole


def test_a_shard_that_was_half_written_is_written_again(tmp_path, whole, monkeypatch):
    restore = _stop_at(monkeypatch, 2)
    with pytest.raises(InterruptionError):
        ix.capture(_module(), _arrays(), to=tmp_path / "s", part="1/2", **OPTIONS)
    restore()
    staged = tmp_path / "s" / "parts"
    (staged / "2" / "shards").mkdir(parents=True)
    (staged / "2" / "shards" / "0.safetensors").write_bytes(b"half of it")  # killed before its record was there
    (staged / ".tmp-2.json").write_bytes(b"{")
    values = next((staged / "1" / "shards").iterdir())
    values.write_bytes(values.read_bytes()[:-3])  # truncated by a crash of the machine
    for k in (1, 2):
        ix.capture(_module(), _arrays(), to=tmp_path / "s", part=f"{k}/2", **OPTIONS)
    assert _contents(tmp_path / "s") == whole


@pytest.mark.parametrize("calls", [1, 4, 9, 13])
def test_a_run_killed_while_it_puts_the_store_together_is_finished_by_any_part(tmp_path, whole, monkeypatch, calls):
    arguments = {"to": tmp_path / "s", **OPTIONS}
    ix.capture(_module(), _arrays(), part="1/2", **arguments)
    together, real, done = parts_module.PartWriter._put_together, os.replace, []

    def killed(source, target):
        done.append(target)
        if len(done) > calls:
            raise InterruptionError
        real(source, target)

    def from_now_on(self, *rest):
        monkeypatch.setattr(os, "replace", killed)
        together(self, *rest)

    monkeypatch.setattr(parts_module.PartWriter, "_put_together", from_now_on)
    with pytest.raises(InterruptionError):
        ix.capture(_module(), _arrays(), part="2/2", **arguments)
    monkeypatch.setattr(os, "replace", real)
    monkeypatch.setattr(parts_module.PartWriter, "_put_together", together)
    assert not ix.open(tmp_path / "s").complete
    monkeypatch.setattr(StoreWriter, "write_shard", lambda *a, **k: pytest.fail("every shard is there"))
    assert ix.capture(_module(), _arrays(), part="1/2", **arguments).complete
    assert _contents(tmp_path / "s") == whole


def test_what_a_kill_after_the_last_step_leaves_is_removed(tmp_path, whole):
    (tmp_path / "whole" / "parts" / "1").mkdir(parents=True)
    (tmp_path / "whole" / "parts" / "1.json").write_text("{}")
    assert ix.open(tmp_path / "whole")["0"].shape == (23, 6)
    ix.capture(_module(), _arrays(), to=tmp_path / "whole", **OPTIONS)
    assert _contents(tmp_path / "whole") == whole and not (tmp_path / "whole" / "parts").exists()


def test_the_same_part_twice_at_once_is_refused(tmp_path):
    ix.capture(_module(), _arrays(), to=tmp_path / "s", part="1/2", **OPTIONS)
    lock = lock_folder(tmp_path / "s" / "parts" / "part-1.lock")
    assert lock is not None
    with pytest.raises(StoreIncompleteError, match=r"another process is writing part 1/2 of .*/s; wait for it"):
        ix.capture(_module(), _arrays(), to=tmp_path / "s", part="1/2", **OPTIONS)
    os.close(lock)
    ix.capture(_module(), _arrays(), to=tmp_path / "s", part="1/2", **OPTIONS)


def test_parts_that_contradict_each_other_are_refused(tmp_path, monkeypatch):
    ix.capture(_module(), _arrays(), to=tmp_path / "s", part="1/2", **OPTIONS)
    before = _contents(tmp_path / "s")
    with pytest.raises(StoreMismatchError, match=r"is written in 2 parts of 6 shards altogether; part 1/3 of 6 shards contradicts that"):
        ix.capture(_module(), _arrays(), to=tmp_path / "s", part="1/3", **OPTIONS)
    with pytest.raises(StoreMismatchError, match=r"holds a store of another plan: .*weights_sha256 was"):
        ix.capture(_module(5), _arrays(), to=tmp_path / "s", part="2/2", **OPTIONS)
    with pytest.raises(StoreMismatchError, match=r"batches.shard_stimuli was 4, now is 5"):
        ix.capture(_module(), _arrays(), to=tmp_path / "s", part="2/2", **{**OPTIONS, "shard_stimuli": 5})
    with pytest.raises(
        StoreMismatchError, match=r"is written in parts: part 2/2 \(0 of 3 shards done\) is missing. Run the capture with part='2/2'"
    ):
        ix.capture(_module(), _arrays(), to=tmp_path / "s", **OPTIONS)
    assert _contents(tmp_path / "s") == before
    restore = _stop_at(monkeypatch, 1)
    with pytest.raises(InterruptionError):
        ix.capture(_module(), _arrays(), to=tmp_path / "t", **OPTIONS)
    restore()
    with pytest.raises(StoreMismatchError, match=r"was begun as a whole, so part 1/2 would write what that run writes"):
        ix.capture(_module(), _arrays(), to=tmp_path / "t", part="1/2", **OPTIONS)


def test_a_part_waits_no_longer_than_it_must_for_a_folder_that_another_run_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(parts_module, "PATIENCE", 0.05)
    (tmp_path / "s").mkdir()
    lock = lock_folder(tmp_path / "s")
    assert lock is not None
    with pytest.raises(StoreIncompleteError, match="another process is writing"):
        ix.capture(_module(), _arrays(), to=tmp_path / "s", part="1/2", **OPTIONS)
    os.close(lock)


@pytest.mark.parametrize("part", ["0/4", "5/4", "1", "1/0", "a/b", "1:4", "-1/4"])
def test_what_is_no_part(part, tmp_path):
    with pytest.raises(StimuliError, match=r"part='.*' is no part; write it as 'k/n', the k-th of n parts, from '1/4' to '4/4'"):
        ix.capture(_module(), _arrays(), to=tmp_path / "s", part=part, **OPTIONS)
    assert read_part("2/3") == (2, 3)


def test_parts_need_a_folder_and_a_shard_each(tmp_path):
    with pytest.raises(StimuliError, match=r"part='1/2' is written into a folder that the parts share; give to='a/folder'"):
        ix.capture(_module(), _arrays(), part="1/2", **OPTIONS)
    with pytest.raises(StimuliError, match=r"the store has 6 shards, so 7 parts cannot all have one; take fewer parts, or smaller shards"):
        ix.capture(_module(), _arrays(), to=tmp_path / "s", part="1/7", **OPTIONS)
    with pytest.raises(StimuliError, match=r"the store has 1 shard, so 2 parts"):
        ix.capture(_module(), _arrays(), "0", to=tmp_path / "s", part="1/2")


def test_opening_says_which_parts_are_missing(tmp_path, monkeypatch):
    arguments = {"to": tmp_path / "s", **OPTIONS}
    ix.capture(_module(), _arrays(), part="2/3", **arguments)
    restore = _stop_at(monkeypatch, 5)
    with pytest.raises(InterruptionError):
        ix.capture(_module(), _arrays(), part="3/3", **arguments)
    restore()
    store = ix.open(tmp_path / "s")
    assert not store.complete
    words_of = (
        r"is incomplete: 3 shards are finished. It is written in parts: parts 1/3 \(0 of 2 shards done\), 3/3 \(1 of 2 shards done\) are "
        r"missing. Run the capture with part='1/3' and the others; whichever ends last completes the store"
    )
    with pytest.raises(StoreIncompleteError, match=words_of):
        store["0"].numpy()
    begun = ix.open(tmp_path / "s", partial=True, verify=True)["0"]
    with torch.no_grad():
        torch.testing.assert_close(begun.torch(), _module()[0](_arrays()[8:20]), rtol=0, atol=1e-6)
    assert [int(name) for name in begun.ids] == list(range(8, 20))
    record = next((tmp_path / "s" / "parts").glob("[0-9].json"))
    record.write_text("{")
    with pytest.raises(StoreCorruptError, match=r"\.json is no readable record"):
        ix.open(tmp_path / "s")


def test_row_sets_whose_length_only_the_run_tells(tmp_path, make, plain_tokenizer):
    model = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    texts = {"text": [words(2 + i % 8, i) for i in range(31)], "label": ["ab"[i % 2] for i in range(31)]}
    for tokens in ("all", "mean", [0, -1]):
        options = {"sites": ["blocks.*.resid_post", "blocks.0.resid_mid|massive"], "tokens": tokens, "shard_stimuli": 4}
        if tokens == [0, -1]:
            options["sites"] = "blocks.1.z"
        whole, cut = tmp_path / f"whole-{tokens}", tmp_path / f"cut-{tokens}"
        ix.capture(model, texts, to=whole, **options)
        for k in (3, 1, 2):
            ix.capture(model, texts, to=cut, part=f"{k}/3", **options)
        assert _contents(cut) == _contents(whole)


def test_each_part_of_an_automatic_dtype_decides_alike(tmp_path):
    x = _arrays(40)
    for folder, many in (("whole", (None,)), ("cut", ("2/2", "1/2"))):
        for part in many:
            store = ix.capture(_module(), x, "0", to=tmp_path / folder, part=part, dtype="auto", shard_stimuli=20)
    assert store["0"].dtype == torch.float16
    assert _contents(tmp_path / "cut") == _contents(tmp_path / "whole")


class Hungry(torch.nn.Module):
    """Runs out of memory for batches beyond `most`."""

    def __init__(self, most):
        super().__init__()
        self.linear, self.most, self.sizes = _module(), most, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.linear(x)


def test_a_halving_belongs_to_the_part_that_needed_it(tmp_path):
    x, options = _arrays(40), {"sites": "linear.0", "shard_stimuli": 10, "batch_size": 8}
    ix.capture(Hungry(4), x, to=tmp_path / "s", part="1/2", **options)
    store = ix.capture(Hungry(100), x, to=tmp_path / "s", part="2/2", **options)
    assert store.manifest.notes["halvings"] == [{"shard": 0, "batch_tokens": 4, "batch_size": 4, "until": 2}]
    with torch.no_grad():
        torch.testing.assert_close(store["linear.0"].torch(), _module()[0](x), rtol=0, atol=1e-6)


def test_a_part_keeps_its_halvings_when_it_resumes(tmp_path, monkeypatch):
    x, options = _arrays(60), {"sites": "linear.0", "shard_stimuli": 10, "batch_size": 8, "to": tmp_path / "s"}
    restore = _stop_at(monkeypatch, 4)
    with pytest.raises(InterruptionError):
        ix.capture(Hungry(4), x, part="2/2", **options)
    restore()
    again = Hungry(4)
    ix.capture(again, x, part="2/2", **options)
    assert max(again.sizes) <= 4, "the recorded limit holds from the first batch on"
    store = ix.capture(Hungry(4), x, part="1/2", **options)
    limits = {"batch_tokens": 4, "batch_size": 4}
    assert store.manifest.notes["halvings"] == [{"shard": 0, **limits, "until": 3}, {"shard": 3, **limits, "until": 6}]
    with torch.no_grad():
        torch.testing.assert_close(store["linear.0"].torch(), _module()[0](x), rtol=0, atol=1e-6)


def test_the_first_part_measures_the_drift_for_all(tmp_path, make, plain_tokenizer):
    model = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    texts = [words(1 + i % 30, i) for i in range(80)]
    options = {"sites": "blocks.2.resid_post", "shard_stimuli": 20, "to": tmp_path / "s"}
    ix.capture(model, texts, part="2/2", **options)
    assert not (tmp_path / "s" / "parts" / "part-2.json").exists()
    notes = ix.capture(model, texts, part="1/2", **options).manifest.notes
    assert set(notes) == {"fidelity"} and notes["fidelity"]["drift"]["measured"]


def test_parts_move_to_another_place_before_they_are_whole(tmp_path, whole):
    ix.capture(_module(), _arrays(), to=tmp_path / "here", part="1/2", **OPTIONS)
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert ix.capture(_module(), _arrays(), to=tmp_path / "there", part="2/2", **OPTIONS).complete
    assert _contents(tmp_path / "there") == whole


def test_a_manifest_of_parts_is_plain_json(tmp_path):
    ix.capture(_module(), _arrays(), to=tmp_path / "s", part="1/2", **OPTIONS)
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["notes"] == {"parts": {"count": 2, "shards": 6}} and manifest["shards"] == [] and not manifest["complete"]
    assert json.loads((tmp_path / "s" / "parts" / "2.json").read_text())["rows"] == {"stimulus": 4}


def test_parts_of_generated_tokens_are_those_of_one_process(tmp_path, make, plain_tokenizer):
    model = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    options = {"sites": "blocks.1.resid_post", "tokens": "all", "generate": 3, "shard_stimuli": 4}
    texts = [words(2 + i % 4, i) for i in range(11)]
    ix.capture(model, texts, to=tmp_path / "whole", **options)
    for k in (2, 1):
        store = ix.capture(model, texts, to=tmp_path / "cut", part=f"{k}/2", **options)
    assert store.complete and _contents(tmp_path / "cut") == _contents(tmp_path / "whole")


def test_streams_and_remote_folders_have_no_parts(tmp_path):
    with pytest.raises(StimuliError, match=r"part='1/2' cuts stimuli that are known; a stream is read by one process"):
        ix.capture(_module(), ({"array": row} for row in _arrays().numpy()), "0", to=tmp_path / "s", part="1/2")
    with pytest.raises(StoreMismatchError, match=r"part=1/2 needs a local folder, which processes can lock; memory://parts is an address"):
        ix.capture(_module(), _arrays(), to="memory://parts", part="1/2", **OPTIONS)
