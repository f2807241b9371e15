"""Memory: runs that do not fit are cut until they do, and a thousand of them leave nothing behind."""

from __future__ import annotations

import copy
import gc
import json
import random
import time
import weakref

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.capturing.batches import Limits
from inscape.capturing.budget import Halvings, out_of_memory
from inscape.capturing.handover import Handover
from inscape.capturing.transfer import HostCopies, alike
from inscape.capturing.untouched import untouched
from inscape.errors import DegenerateInputError, InscapeWarning, MemoryBudgetError
from inscape.store.writer import StoreWriter

from .conftest import words


def _module(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))


def _arrays(n=40, seed=1):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


def _contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Hungry(torch.nn.Module):
    """Runs out of memory for batches beyond `most`, from call number `after` on."""

    def __init__(self, most, error=None, after=0):
        super().__init__()
        self.linear, self.most, self.error, self.after, self.sizes = _module(), most, error, after, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.most and len(self.sizes) > self.after:
            raise self.error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.linear(x)


def _rows(store):
    return store["linear.0"].torch()


@pytest.fixture
def expected():
    with torch.no_grad():
        return _module()[0](_arrays())


OPTIONS = {"sites": "linear.0", "shard_stimuli": 20, "batch_size": 8}

# As drivers, allocators and libraries word it.
NO_ROOM = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.15 GiB"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"),
    RuntimeError("cuda runtime error (2) : out of memory at /pytorch/aten/src/THC/THCGeneral.cpp:50"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB, other allocations: 1.00 GB, max allowed: 18.13 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", NO_ROOM, ids=lambda error: str(error)[:30] or "MemoryError")
def test_every_wording_halves_the_batch(error, expected):
    store = ix.capture(Hungry(5, error), _arrays(), **OPTIONS)
    assert store.manifest.notes["halvings"] == [{"shard": 0, "batch_tokens": 4, "batch_size": 4}]
    torch.testing.assert_close(_rows(store), expected, rtol=0, atol=1e-6)


def test_what_is_no_lack_of_memory():
    assert all(out_of_memory(error) for error in NO_ROOM)
    assert not out_of_memory(MemoryBudgetError("out of memory: this one says so itself"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"))
    assert not out_of_memory(ValueError("out of memory"))


def test_memory_that_gets_short_later_halves_from_that_shard_on(expected):
    """Probe, atlas and the first shard go through; the second shard meets the lack."""
    calls = Hungry(100)
    ix.capture(calls, _arrays(), **OPTIONS)
    before = len(calls.sizes) - 3  # the second shard makes three batches
    hungry = Hungry(3, after=before)
    store = ix.capture(hungry, _arrays(), **OPTIONS)
    assert store.manifest.notes["halvings"] == [{"shard": 1, "batch_tokens": n, "batch_size": n} for n in (4, 2)]
    assert hungry.sizes[before:] == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    torch.testing.assert_close(_rows(store), expected, rtol=0, atol=1e-6)
    late = ix.capture(Hungry(3, after=before + 2), _arrays(), **OPTIONS)  # the last batch of the shard: the shard begins again
    assert [h["shard"] for h in late.manifest.notes["halvings"]] == [1]
    torch.testing.assert_close(_rows(late), expected, rtol=0, atol=1e-6)


def test_the_rows_are_those_of_a_run_with_small_batches_from_the_start(tmp_path):
    short = ix.capture(Hungry(2), _arrays(), to=tmp_path / "short", **OPTIONS)
    small = ix.capture(Hungry(100), _arrays(), to=tmp_path / "small", **{**OPTIONS, "batch_size": 2})
    assert torch.equal(_rows(short), _rows(small))
    ours, theirs = _contents(tmp_path / "short"), _contents(tmp_path / "small")
    assert {name for name in ours if ours[name] != theirs[name]} == {"manifest.json"}, "only the record of the batches differs"


def test_a_probe_that_does_not_fit_is_run_one_by_one(tmp_path, expected):
    hungry = Hungry(1)
    store = ix.capture(hungry, _arrays(), to=tmp_path / "s", **OPTIONS)
    assert store.manifest.notes["halvings"] == [{"shard": 0, "batch_tokens": 10**9, "batch_size": 1}]
    assert store.manifest.plan["batches"]["batch_size"] == 8, "the plan is the one that was asked for"
    assert set(hungry.sizes) == {1, 2} and hungry.sizes.count(1) >= 42
    torch.testing.assert_close(_rows(store), expected, rtol=0, atol=1e-6)


def test_text_in_a_memory_for_one_stimulus(make, plain_tokenizer):
    class Narrow(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.config, self.main_input_name, self.most = inner, inner.config, "input_ids", 100

        def forward(self, input_ids, attention_mask=None):
            if len(input_ids) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.inner(input_ids=input_ids, attention_mask=attention_mask)

    texts = [words(1 + i % 5, i) for i in range(12)]
    narrow = Narrow(make("gpt2"))
    sites = ["inner.transformer.h.1", "inner.transformer.h.1.attn.c_proj:in"]
    model = ix.load(narrow, tokenizer=plain_tokenizer)
    model.atlas()
    narrow.most = 1
    store = ix.capture(model, texts, sites, tokens="all")
    plain = ix.capture(ix.load(Narrow(make("gpt2")), tokenizer=plain_tokenizer), texts, sites, tokens="all", batch_size=1)
    for site in sites:
        assert torch.equal(store[site].torch(), plain[site].torch())
        assert store[site].tokens.tolist() == plain[site].tokens.tolist()


def test_a_memory_for_not_even_one_is_refused():
    with pytest.raises(MemoryBudgetError, match=r"not even one stimulus fits into memory \(CUDA out of memory.*\); use a smaller"):
        ix.capture(Hungry(0), _arrays(), **OPTIONS)


def test_the_check_of_drift_does_without_two_stimuli_that_do_not_fit(make, plain_tokenizer):
    module = copy.deepcopy(make("gpt2"))
    model = ix.load(module, tokenizer=plain_tokenizer)
    model.atlas()
    block = module.transformer.h[0]

    def narrow(part, args):
        if args[0].shape[0] * args[0].shape[1] > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")

    block.register_forward_pre_hook(narrow)
    store = ix.capture(model, [words(11 + i % 8, i) for i in range(72)], "blocks.0.resid_post")
    drift = store.manifest.notes["fidelity"]["drift"]
    assert drift == {"measured": False, "why": "two stimuli do not fit into memory together"}
    assert store.manifest.notes["halvings"], "the run itself took smaller batches"


class InterruptionError(Exception):
    pass


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("dtype", [None, "auto"])
def test_a_run_that_resumes_after_a_halving_ends_with_the_same_bytes(tmp_path, monkeypatch, most, dtype):
    options = {**OPTIONS, "dtype": dtype, "shard_stimuli": 10}
    ix.capture(Hungry(most), _arrays(), to=tmp_path / "whole", **options)
    write = StoreWriter.write_shard

    def failing(self, index, *rest):
        if index == 2:
            raise InterruptionError
        write(self, index, *rest)

    monkeypatch.setattr(StoreWriter, "write_shard", failing)
    with pytest.raises(InterruptionError):
        ix.capture(Hungry(most), _arrays(), to=tmp_path / "part", **options)
    recorded = json.loads((tmp_path / "part" / "manifest.json").read_text())["notes"]["halvings"]
    assert recorded[-1]["batch_size"] == (1 if most == 1 else 2) and {record["shard"] for record in recorded} == {0}
    monkeypatch.setattr(StoreWriter, "write_shard", write)
    ix.capture(Hungry(most), _arrays(), to=tmp_path / "part", **options)
    assert _contents(tmp_path / "part") == _contents(tmp_path / "whole")


def test_limits_hold_from_their_shard_on():
    halvings, begun = Halvings(), Limits(100, 10)
    halvings.resume([{"shard": 2, "batch_tokens": 50, "batch_size": 10}], range(9), 9)
    halvings.add(5, Limits(25, 10))
    assert [halvings.limits(begun, shard).tokens for shard in (0, 1, 2, 4, 5, 8)] == [100, 100, 50, 50, 25, 25]
    halvings.resume([], range(3, 6), 9, Limits(100, 1))
    assert halvings.records == [{"shard": 3, "batch_tokens": 100, "batch_size": 1, "until": 6}]


# What a thousand captures leave


def _patched(model, x):
    with ix.edit(model, "0", ix.edits.scale(2.0)):
        return ix.capture(model, x, "2", batch_size=8)


def _pattern_model():
    from transformers import GPT2Config, GPT2Model

    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    return ix.load(GPT2Model(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=20, n_positions=8, **ends)))


_IDS = [[3, 4, 5], [6, 7, 8, 9], [10, 11, 12]]
KINDS = {
    "plain": (lambda: ix.load(_module()), lambda model: ix.capture(model, _arrays(16), ["0", "2"], batch_size=8)),
    "edited": (lambda: ix.load(_module()), lambda model: _patched(model, _arrays(16))),
    "reducer": (_pattern_model, lambda model: ix.capture(model, _IDS, "blocks.0.resid_post|token_cosine")),
    "pattern": (_pattern_model, lambda model: ix.capture(model, _IDS, "blocks.0.attn_pattern|entropy")),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_captures_leak_no_memory_and_leave_no_hook(kind):
    psutil = pytest.importorskip("psutil")
    make, run = KINDS[kind]
    model, process = make(), psutil.Process()
    for _ in range(30):
        run(model)
    gc.collect()
    before, objects = process.memory_info().rss, len(gc.get_objects())
    for _ in range(250):  # of each of four kinds
        run(model)
    gc.collect()
    assert process.memory_info().rss - before < 8e6
    assert len(gc.get_objects()) - objects < 200
    for part in model.module.modules():
        tables = [table for name, table in vars(part).items() if "hooks" in name and isinstance(table, dict)]
        assert not any(tables), f"{type(part).__name__} keeps a hook"


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_goes_with_its_last_name_without_the_garbage_collector(kind):
    make, run = KINDS[kind]
    run(make())
    model = make()
    gc.collect()
    gc.disable()
    try:
        store = run(model)
        gone, part = weakref.ref(model), weakref.ref(next(iter(model.module.children())))
        del model
        assert gone() is None, "the model is part of no cycle"
        assert part() is None, "nothing keeps its modules"
        assert store.sites
    finally:
        gc.enable()


def test_a_store_in_a_folder_keeps_no_model_either(tmp_path):
    module = _module()
    store = ix.capture(module, _arrays(), "0", to=tmp_path / "s", shard_stimuli=10)
    gone = weakref.ref(module)
    del module
    assert gone() is None and store["0"].shape == (40, 6)


# What else a capture must not touch


class Random(torch.nn.Module):
    """Draws from every generator there is."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 6)

    def forward(self, x):
        return self.linear(x) + torch.randn(6) + random.random() + float(np.random.rand())


@pytest.mark.parametrize("fail", [False, True])
def test_random_numbers_modes_and_defaults_are_what_they_were(fail):
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), Random(), torch.nn.Dropout(0.5)).train()
    module[0].requires_grad_(False)
    module[1].eval()
    if fail:
        module[1].register_forward_hook(lambda *_: (_ for _ in ()).throw(ValueError("inside")))
    grads = [p.requires_grad for p in module.parameters()]

    def state():
        drawn = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # Python's own is drawn from by the checks of types
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), torch.get_default_dtype()
        return drawn, modes, [part.training for part in module.modules()], torch.get_num_threads()

    before = state()
    if fail:
        with pytest.raises(ValueError, match="inside"):
            ix.capture(module, _arrays(), "1")
    else:
        ix.capture(module, _arrays(), "1")
    after = state()
    assert torch.equal(before[0][0], after[0][0]) and before[0][1:] == after[0][1:] and before[1:] == after[1:]
    assert [p.requires_grad for p in module.parameters()] == grads and all(p.grad is None for p in module.parameters())


def test_another_default_dtype_changes_no_row_and_stays(expected):
    torch.set_default_dtype(torch.float64)
    try:
        rows = ix.capture(_module().float(), _arrays().float(), "0")["0"].torch()
        assert torch.get_default_dtype() == torch.float64 and rows.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_autocast_acts_on_a_capture_stays_on_and_is_told(tmp_path):
    module, x = _module(), _arrays()
    plain = ix.capture(module, x, "0", to=tmp_path / "s")
    with torch.autocast("cpu", torch.bfloat16):
        store = ix.capture(module, x, "0")
        with torch.no_grad():
            torch.testing.assert_close(store["0"].torch(), module[0](x), rtol=0, atol=0)
        assert torch.is_autocast_enabled("cpu")
        with pytest.raises(ix.errors.StoreMismatchError, match="environment.autocast was .*absent.*, now is 'bfloat16'"):
            ix.capture(module, x, "0", to=tmp_path / "s")
    assert store["0"].dtype == torch.bfloat16 and "autocast" not in plain.manifest.plan["environment"]


def test_gradients_can_be_on_and_a_captured_model_still_trains():
    class Caching(torch.nn.Module):
        """Keeps a table from one pass to the next, as rotary positions and masks are kept."""

        def __init__(self):
            super().__init__()
            self.linear, self.table = torch.nn.Linear(4, 4), None
            self.register_buffer("scale", None, persistent=False)

        def forward(self, x):
            if self.table is None or len(self.table) < len(x):
                self.table = torch.linspace(1, 2, len(x))[:, None].clone()
                self.scale = torch.full((1,), 3.0)
            return self.linear(x) * self.table[: len(x)] * self.scale

    module = Caching()
    with torch.enable_grad():
        ix.capture(module, _arrays(), "linear", batch_size=20)
    assert not module.table.is_inference() and not module.scale.is_inference() and len(module.table) == 20
    out = module(_arrays(5))
    out.sum().backward()
    assert module.linear.weight.grad is not None


def test_every_generator_is_put_back_also_after_an_error():
    def draw():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    module = _module()
    state = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    expected = draw()
    torch.random.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])
    with pytest.raises(InterruptionError), untouched(module):
        draw()
        raise InterruptionError
    assert draw() == expected


# Rows that are no numbers, and half precision


class Massive(torch.nn.Module):
    """One unit is enormous in some rows, as massive activations are."""

    def __init__(self, size):
        super().__init__()
        self.linear, self.size = torch.nn.Linear(4, 6), size

    def forward(self, x):
        y = self.linear(x)
        bump = torch.zeros(6, dtype=x.dtype)
        bump[2] = 1
        return torch.nn.functional.relu(y) + y + (x[:, :1] > 1.0) * bump * self.size


class Whole(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.inner = Massive(size)

    def forward(self, x):
        return self.inner(x)


def test_massive_activations_do_not_overflow_half_precision(tmp_path):
    torch.manual_seed(0)
    module, x = Whole(9e4), _arrays(100)
    with pytest.raises(
        DegenerateInputError, match=r"site 'inner' cannot be stored as float16: unit 2 reaches 9000\d.*, and float16 ends at 65504"
    ):
        ix.capture(module, x, "inner", dtype="float16")
    auto = ix.capture(module, x, "inner", dtype="auto", to=tmp_path / "s")
    assert auto["inner"].dtype == torch.float32 and float(auto["inner"].torch().max()) > 65504
    brain = ix.capture(ix.load(copy.deepcopy(module), dtype=torch.bfloat16), x, "inner")
    assert brain["inner"].dtype == torch.bfloat16 and torch.isfinite(brain["inner"].torch()).all()
    with pytest.raises(DegenerateInputError, match=r"cannot be stored as float16: unit 2 reaches 9\d+"):
        ix.capture(ix.load(copy.deepcopy(module), dtype=torch.bfloat16), x, "inner", dtype="float16")


def test_rows_that_overflow_inside_the_model_are_told_and_counted(tmp_path):
    torch.manual_seed(0)
    x = _arrays(100)
    names = [f"s{i}" for i in range(100)]
    bad = (x[:, 0].half() > 1.0).numpy()
    model = ix.load(Whole(9e4), dtype=torch.float16)
    first = names[int(bad.argmax())]
    text = (
        rf"site 'inner' gives NaN or infinity in {bad[:50].sum()} of 50 rows \(the first belongs to stimulus '{first}'\); "
        r"the model computes in float16, so load it with dtype='float32' or 'bfloat16'. They are kept as they are"
    )
    with pytest.warns(InscapeWarning, match=text) as told:
        store = ix.capture(model, {"array": list(x.numpy()), "id": names}, ["inner", "inner.linear"], to=tmp_path / "s", shard_stimuli=50)
    assert len(told) == 1, "each site tells once"
    shards = store.manifest.shards
    assert [shard.notes["nonfinite"] for shard in shards] == [{"inner": int(part.sum())} for part in (bad[:50], bad[50:])]
    assert np.array_equal(~np.isfinite(store["inner"].torch().numpy()).all(1), bad)


# Rows on their way out


def test_tensors_of_one_shape_leave_in_one_copy():
    rows = [torch.randn(3, 4), torch.randn(2, 4), torch.randn(3, 4), torch.randn(3, 4).half(), torch.randn(3, 4)]
    assert alike(rows) == [[0, 2, 4], [1], [3]]
    copies = HostCopies()
    assert all(a is b for a, b in zip(copies.move(rows), rows, strict=True)), "what is on the host stays"
    away = [tensor.to("meta") for tensor in rows]
    assert alike([away[0], rows[0], away[2]]) == [[0, 2], [1]]
    copies.wait()


def test_a_shard_is_written_beside_the_model_and_in_order():
    taken, threads = [], set()

    def take(index, delay):
        import threading

        time.sleep(delay)
        threads.add(threading.current_thread().name)
        taken.append(index)

    with Handover(take) as handover:
        for index, delay in enumerate([0.03, 0.0, 0.02]):
            handover.give(index, delay)
            assert len(taken) >= index, "no more than one waits"
        handover.settle()
        assert taken == [0, 1, 2]
    assert len(threads) == 1 and "inscape-writer" in threads.pop()


def test_an_error_of_the_writer_comes_out_and_one_of_the_model_lets_the_shard_be_written():
    def failing(index):
        raise InterruptionError(index)

    with pytest.raises(InterruptionError, match="0"), Handover(failing) as handover:
        handover.give(0)
        handover.give(1)
    with pytest.raises(InterruptionError, match="7"), Handover(failing) as handover:
        handover.give(7)
    taken = []

    def slowly(index):
        time.sleep(0.02)
        taken.append(index)

    with pytest.raises(ValueError, match="of the model"), Handover(slowly) as handover:
        handover.give(3)
        raise ValueError("of the model")
    assert taken == [3]
