"""The run itself: resume, plans, memory errors, half precision, room, leaks, streaming."""

from __future__ import annotations

import gc
import json
import re
import weakref

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.capturing import ShardRows, stream
from inscape.capturing import budget as budget_module
from inscape.capturing.guard import PrecisionGuard, ulp
from inscape.errors import DegenerateInputError, InscapeWarning, MemoryBudgetError, SiteNotFoundError, StimuliError, StoreMismatchError
from inscape.store.writer import StoreWriter

from .conftest import words


def _module(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))


def _arrays(n=20, seed=1):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


def _hooks(module):
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def _contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class InterruptionError(Exception):
    pass


def test_values_are_those_of_the_module():
    module, x = _module(), _arrays()
    store = ix.capture(module, x, ["0", "2"], batch_size=3)
    with torch.no_grad():
        torch.testing.assert_close(store["0"].torch(), module[0](x), rtol=0, atol=1e-6)
        torch.testing.assert_close(store["2"].torch(), module(x), rtol=0, atol=1e-6)
    assert store["0"].dtype == torch.float32 and store["0"].kind == "stimulus"


def test_folder_and_memory_hold_the_same(tmp_path, make, plain_tokenizer):
    model = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    texts = [words(1 + i % 9, i) for i in range(23)]
    inside = ix.capture(model, texts, tokens="all", shard_stimuli=5)
    outside = ix.capture(model, texts, tokens="all", shard_stimuli=5, to=tmp_path / "s")
    for site in inside.sites:
        a, b = inside[site], outside[site]
        assert torch.equal(a.torch(), b.torch())
        assert a.tokens.tolist() == b.tokens.tolist()
        assert a.ids.tolist() == b.ids.tolist()
    assert outside.verify() == []


def test_a_finished_folder_is_returned_and_another_plan_is_refused(tmp_path, monkeypatch):
    module, x = _module(), _arrays()
    store = ix.capture(module, x, "0", to=tmp_path / "s")
    before = _contents(tmp_path / "s")
    monkeypatch.setattr(StoreWriter, "write_shard", lambda *a, **k: pytest.fail("nothing is left to write"))
    again = ix.capture(module, x, "0", to=tmp_path / "s")
    assert again.complete and torch.equal(again["0"].torch(), store["0"].torch())
    assert _contents(tmp_path / "s") == before
    for changed in ({"stimuli": _arrays(seed=2)}, {"sites": "2"}, {"dtype": "float64"}, {"batch_size": 2}, {"model": _module(5)}):
        arguments = {"model": module, "stimuli": x, "sites": "0", **changed}
        with pytest.raises(StoreMismatchError, match="holds a store of another plan"):
            ix.capture(to=tmp_path / "s", **arguments)
    with pytest.raises(StoreMismatchError, match=r"model.weights_sha256 was"):
        ix.capture(_module(5), x, "0", to=tmp_path / "s")
    assert _contents(tmp_path / "s") == before


def test_an_interrupted_run_goes_on_at_the_first_missing_shard(tmp_path, monkeypatch):
    module, x = _module(), _arrays(23)
    options = {"sites": ["0", "2"], "shard_stimuli": 4, "batch_size": 3}
    ix.capture(module, x, to=tmp_path / "whole", **options)
    write, written = StoreWriter.write_shard, []

    def failing(self, index, *rest):
        if index == 3:
            raise InterruptionError
        write(self, index, *rest)

    monkeypatch.setattr(StoreWriter, "write_shard", failing)
    with pytest.raises(InterruptionError):
        ix.capture(module, x, to=tmp_path / "part", **options)
    assert _hooks(module) == 0
    assert not ix.open(tmp_path / "part").complete
    monkeypatch.setattr(StoreWriter, "write_shard", lambda self, index, *rest: (written.append(index), write(self, index, *rest)))
    ix.capture(module, x, to=tmp_path / "part", **options)
    assert written == [3, 4, 5]
    assert _contents(tmp_path / "part") == _contents(tmp_path / "whole")


class Hungry(torch.nn.Module):
    """Runs out of memory for batches whose size is not in `fits`."""

    def __init__(self, fits, error):
        super().__init__()
        self.linear, self.fits, self.error, self.sizes = _module(), fits, error, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) not in self.fits:
            raise self.error
        return self.linear(x)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
def test_too_little_memory_halves_the_batch_and_the_plan_says_so(tmp_path, error):
    x = _arrays(40)
    store = ix.capture(Hungry(range(6), error), x, "linear.0", to=tmp_path / "s", shard_stimuli=20, batch_size=16)
    halvings = [{"shard": 0, "batch_tokens": 8, "batch_size": 8}, {"shard": 0, "batch_tokens": 4, "batch_size": 4}]
    assert store.manifest.notes["halvings"] == halvings
    with torch.no_grad():
        torch.testing.assert_close(store["linear.0"].torch(), _module()[0](x), rtol=0, atol=1e-6)


def test_a_halving_is_recorded_before_its_shard_and_kept_on_resume(tmp_path, monkeypatch):
    x = _arrays(40)
    options = {"sites": "linear.0", "shard_stimuli": 10, "batch_size": 8}
    seen, write = [], StoreWriter.write_shard

    def failing(self, index, *rest):
        seen.append((index, json.loads((tmp_path / "part" / "manifest.json").read_text())["notes"].get("halvings")))
        if index == 2:
            raise InterruptionError
        write(self, index, *rest)

    monkeypatch.setattr(StoreWriter, "write_shard", failing)
    with pytest.raises(InterruptionError):
        ix.capture(Hungry(range(5), MemoryError()), x, to=tmp_path / "part", **options)
    assert seen[0] == (0, [{"shard": 0, "batch_tokens": 4, "batch_size": 4}])
    monkeypatch.setattr(StoreWriter, "write_shard", write)
    hungry = Hungry(range(5), MemoryError())
    ix.capture(hungry, x, to=tmp_path / "part", **options)
    assert max(hungry.sizes) <= 4, "the recorded limit holds from the first batch on"
    ix.capture(Hungry(range(5), MemoryError()), x, to=tmp_path / "whole", **options)
    assert _contents(tmp_path / "part") == _contents(tmp_path / "whole")


def test_a_single_stimulus_that_does_not_fit_is_named():
    stimuli = {"array": list(_arrays(3).numpy()), "id": ["a", "b", "c"]}
    with pytest.raises(MemoryBudgetError, match=r"stimulus 'a' alone \(length 1\) does not fit into memory: no room. Shorten it"):
        ix.capture(Hungry([2], MemoryError("no room")), stimuli, "linear.0")


def test_other_errors_of_the_model_pass_through_and_leave_no_hook():
    module = Hungry([2], ValueError("inner"))
    with pytest.raises(ValueError, match="inner"):
        ix.capture(module, _arrays(), "linear.0")
    assert _hooks(module) == 0


def test_training_mode_and_random_state_come_back():
    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Dropout(0.5)).train()
    x = _arrays(50)
    state = torch.random.get_rng_state()
    store = ix.capture(module, x, "1")
    with torch.no_grad():
        torch.testing.assert_close(store["1"].torch(), module[0](x), rtol=0, atol=1e-6)
    assert module.training and module[1].training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_rows_do_not_share_memory_with_the_model_and_may_be_trained_on():
    class InPlace(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 6)

        def forward(self, x):
            return self.linear(x).mul_(0)

    module = InPlace()
    values = ix.capture(module, _arrays(), "linear")["linear"].torch()
    with torch.no_grad():
        torch.testing.assert_close(values, module.linear(_arrays()), rtol=0, atol=1e-6)
    values.requires_grad_().sum().backward()


def test_nothing_keeps_the_model_alive():
    module = _module()
    ix.capture(module, _arrays(), "0")
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None


def test_resident_memory_stays_flat():
    psutil = pytest.importorskip("psutil")
    model, x = ix.load(_module()), _arrays(64)
    for _ in range(20):
        ix.capture(model, x, "0", batch_size=8)
    gc.collect()
    before = psutil.Process().memory_info().rss
    for _ in range(40):
        ix.capture(model, x, "0", batch_size=8)
    gc.collect()
    assert psutil.Process().memory_info().rss - before < 6e6


def test_the_trunk_alone_runs_when_no_logits_are_asked_for(make, plain_tokenizer):
    module = make("gpt2")
    model = ix.load(module, tokenizer=plain_tokenizer)
    model.atlas()  # the dry run that finds the sites calls everything
    calls = []
    handles = [part.register_forward_hook(lambda m, a, o, name=name: calls.append(name)) for name, part in module.named_modules()]
    try:
        store = ix.capture(model, [words(3)], "blocks.0.resid_post")
        assert "lm_head" not in calls
        assert "transformer.h.2" not in calls, "the pass ends after the last site"
        assert store.manifest.plan["trunk_only"]
        calls.clear()
        store = ix.capture(model, [words(3)], ["blocks.0.resid_post", "logits"])
        assert "lm_head" in calls
    finally:
        for handle in handles:
            handle.remove()
    with torch.no_grad():
        expected = module(**plain_tokenizer([words(3)], return_tensors="pt")).logits[0, -1]
    assert torch.equal(store["logits"].torch()[0], expected)


@pytest.mark.parametrize("dtype", ["float16", torch.float64])
def test_rows_are_stored_in_the_dtype_that_was_asked_for(dtype):
    plain = ix.capture(_module(), _arrays(40), "0")["0"].torch()
    stored = ix.capture(_module(), _arrays(40), "0", dtype=dtype)["0"].torch()
    assert torch.equal(stored, plain.to(stored.dtype))


def test_a_model_in_half_precision_keeps_its_own_dtype():
    module, x = _module().to(torch.bfloat16), _arrays(40)
    values = ix.capture(module, x, "0")["0"].torch()
    assert values.dtype == torch.bfloat16
    with torch.no_grad():
        torch.testing.assert_close(values, module[0](x.to(torch.bfloat16)))


class Shifted(torch.nn.Module):
    def __init__(self, offset):
        super().__init__()
        self.good = torch.nn.Linear(4, 3)
        self.bad = torch.nn.Linear(4, 3)
        with torch.no_grad():
            self.bad.bias[1] = offset

    def forward(self, x):
        return self.good(x) + self.bad(x)


def test_half_precision_is_refused_by_site_and_unit():
    x = _arrays(100)
    refused = r"site 'bad' cannot be stored as float16: unit 1 has mean 2000 .* Capture with dtype='float32'"
    with pytest.raises(DegenerateInputError, match=refused):
        ix.capture(Shifted(2000.0), x, ["good", "bad"], dtype="float16")
    with pytest.raises(DegenerateInputError, match=r"unit 1 reaches 1000\d\d.*, and float16 ends at 65504"):
        ix.capture(Shifted(1e5), x, "bad", dtype="float16")


def test_later_shards_are_watched_too(tmp_path):
    x = _arrays(100)
    x[60:] *= 1e6
    with pytest.raises(DegenerateInputError, match="float16 ends at 65504"):
        ix.capture(_module(), x, "0", dtype="float16", to=tmp_path / "s", shard_stimuli=20)
    assert len(ix.open(tmp_path / "s").manifest.shards) == 3


def test_auto_takes_half_precision_where_it_loses_nothing(tmp_path):
    x = _arrays(100)
    module = Shifted(2000.0)
    store = ix.capture(module, x, ["good", "bad"], dtype="auto", to=tmp_path / "s", shard_stimuli=30)
    assert (store["good"].dtype, store["bad"].dtype) == (torch.float16, torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(store["bad"].torch(), module.bad(x), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(store["good"].torch().float(), module.good(x), rtol=1e-3, atol=1e-3)
    assert ix.capture(module, x, ["good", "bad"], dtype="auto", to=tmp_path / "s", shard_stimuli=30).complete


def test_steps_of_half_precision_are_those_of_numpy():
    values = np.array([0.0, 1e-7, 0.1, 1.0, 1.5, 2047.0, 2048.0, -3000.0, 60000.0])
    expected = np.abs(np.spacing(values.astype(np.float16))).astype(np.float64)
    np.testing.assert_array_equal(ulp(values, torch.float16), expected)


def test_the_guard_lets_constant_units_and_wider_dtypes_pass():
    guard = PrecisionGuard()
    rows = torch.randn(50, 3)
    rows[:, 1] = 1234.567
    assert guard.problem("a", rows, torch.float16) is None
    assert guard.problem("a", rows, torch.float64) is None
    assert guard.problem("few", torch.tensor([[1000.0], [1000.1]]), torch.float16) is None
    rows[0, 0] = float("nan")
    assert PrecisionGuard().problem("a", rows, torch.float16) is None, "what is not finite to begin with is not the dtype's fault"


def test_rows_beyond_memory_or_disk_are_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(MemoryBudgetError, match=r"the rows take 480 B and 100 B of memory are free; give to='a/folder'"):
        ix.capture(_module(), _arrays(), "0", memory="100B")
    monkeypatch.setattr(budget_module, "available_memory", lambda: 300)
    with pytest.raises(MemoryBudgetError, match="300 B of memory are free"):
        ix.capture(_module(), _arrays(), "0")
    monkeypatch.setattr(budget_module.shutil, "disk_usage", lambda path: type("U", (), {"free": 50})())
    with pytest.raises(MemoryBudgetError, match=r"the store takes 480 B and 50 B are free at .*; free some space, choose another"):
        ix.capture(_module(), _arrays(), "0", to=tmp_path / "s")
    monkeypatch.setattr(budget_module, "ANNOUNCED", 100)
    monkeypatch.setattr(budget_module, "available_memory", lambda: None)
    ix.capture(_module(), _arrays(), "0")
    assert capsys.readouterr().err == "inscape: this capture will hold 480 B in memory\n"


def test_available_memory_is_what_the_kernel_says():
    psutil = pytest.importorskip("psutil")
    found = budget_module.available_memory()
    assert found is not None and 0 < found <= psutil.virtual_memory().total


def test_progress_shows_counts_when_asked(capsys):
    ix.capture(_module(), _arrays(), "0", progress=True, shard_stimuli=5)
    assert "20/20" in capsys.readouterr().err
    ix.capture(_module(), _arrays(), "0", progress=False)
    assert capsys.readouterr().err == ""


def test_drift_is_measured_where_the_run_is_long_enough(make, plain_tokenizer):
    model = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    note = ix.capture(model, [words(1 + i % 30, i) for i in range(80)], "blocks.2.resid_post").manifest.notes["fidelity"]
    assert note["drift"]["measured"] and note["drift"]["lengths"] == [1, 14]
    assert 0 <= note["drift"]["of_rms"]["blocks.2.resid_post"] < 1e-4
    assert (note["attention"], note["model_dtype"], note["padding"]) == ("sdpa", "float32", "right")
    short = ix.capture(model, [words(3)], "blocks.2.resid_post").manifest.notes["fidelity"]
    assert short["drift"] == {"measured": False, "why": "1 stimuli are too few to spend three forwards on it"}


def test_a_forward_that_sees_its_batch_is_warned_about():
    class Batched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Identity()

        def forward(self, x):
            return self.inner(x - x.mean(0))

    with pytest.warns(InscapeWarning, match=r"batching changes the activations: at 'inner' .* of the rms; pass batch_size=1"):
        ix.capture(Batched(), _arrays(80), "inner")


def test_stream_hands_over_what_capture_would_store():
    module, x = _module(), _arrays(23)
    stored = ix.capture(module, x, ["0", "2"], shard_stimuli=5)
    seen: list[ShardRows] = []
    plan = stream(module, x, ["0", "2"], "last", seen.append, shard_stimuli=5)
    assert [shard.index for shard in seen] == [0, 1, 2, 3, 4]
    for site in ("0", "2"):
        assert torch.equal(torch.cat([shard.values[site] for shard in seen]), stored[site].torch())
    assert np.concatenate([shard.rows["stimulus"]["stimulus"].to_numpy() for shard in seen]).tolist() == list(range(23))
    assert plan["sites"]["0"].d == 6 and plan["batches"]["shard_stimuli"] == 5


def test_a_consumer_that_fails_leaves_no_hook():
    module = _module()

    def consumer(shard):
        raise InterruptionError

    with pytest.raises(InterruptionError):
        stream(module, _arrays(), "0", "last", consumer)
    assert _hooks(module) == 0


def test_rows_inside_an_open_edit_are_the_edited_ones(make, plain_tokenizer):
    model = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    site = "blocks.1.resid_post"
    plain = ix.capture(model, [words(4)], site, "all")[site].torch()
    with ix.edit(model, site, ix.edits.scale(2.0)):
        store = ix.capture(model, [words(4)], site, "all")
    torch.testing.assert_close(store[site].torch(), 2 * plain)
    (edit,) = store.manifest.plan["model"]["edits"][0]
    assert (edit["site"], edit["kind"]) == (site, "scale")
    torch.testing.assert_close(ix.capture(model, [words(4)], site, "all")[site].torch(), plain)


def test_a_folder_made_under_one_edit_is_not_taken_for_another(tmp_path, make, plain_tokenizer):
    model, site = ix.load(make("gpt2"), tokenizer=plain_tokenizer), "blocks.1.resid_post"
    for factor in (2.0, 3.0):
        with ix.edit(model, site, ix.edits.scale(factor)):
            if factor == 2.0:
                ix.capture(model, [words(4)], site, to=tmp_path / "s")
            else:
                with pytest.raises(StoreMismatchError, match=r"model.edits was .*2.0.*, now is .*3.0"):
                    ix.capture(model, [words(4)], site, to=tmp_path / "s")
    with pytest.raises(StoreMismatchError, match="model.edits was"):
        ix.capture(model, [words(4)], site, to=tmp_path / "s")


def test_unknown_and_missing_sites():
    with pytest.raises(SiteNotFoundError, match="no site was asked for"):
        ix.capture(_module(), _arrays(), [])
    with pytest.raises(SiteNotFoundError, match="nearest"):
        ix.capture(_module(), _arrays(), "linear9")


def test_sites_that_do_not_keep_stimuli_apart_are_refused():
    class Mixing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Identity()

        def forward(self, x):
            return self.inner(x.flatten()[None])

    with pytest.raises(SiteNotFoundError, match=re.escape("site 'inner' gives shape [1, 8] for a batch of 2 stimuli")):
        ix.capture(Mixing(), _arrays(), "inner")


def test_limits_reach_the_batches():
    with pytest.raises(StimuliError, match="batch_size=0 leaves no batch"):
        ix.capture(_module(), _arrays(), "0", batch_size=0)
    module = Hungry(range(100), MemoryError())
    ix.capture(module, _arrays(20), "linear.0", batch_size=7)
    assert module.sizes[-3:] == [7, 7, 6]
