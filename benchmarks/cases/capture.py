"""What capturing costs, over the model's own forward pass."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import torch

import inscape as ix
from benchmarks.case import Figure, Setup, Subject, case, ratio
from benchmarks.models import gpt2, token_ids

RESIDUALS = "blocks.*.resid_post"


def hooked(model: torch.nn.Module, ids: torch.Tensor, keep: slice, logits: bool) -> list[torch.Tensor]:
    """What one would write by hand: a forward hook on each block that keeps its output."""
    kept: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _m, _a, out: kept.append((out[0] if isinstance(out, tuple) else out)[:, keep].clone()))
        for block in model.transformer.h
    ]
    try:
        with torch.inference_mode():
            out = model(ids)
            if logits:
                kept.append(out.logits[:, keep].clone())
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def transformer_lens(setup: Setup) -> None:
    """TransformerLens wraps the very same model (it sets attention to "eager", as it always does)."""
    from tokenizers import Tokenizer, models
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerFast

    ids = setup.material["ids"]
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    with tempfile.TemporaryDirectory() as folder:  # it boots from a folder and wants a tokenizer there
        setup.material["model"].save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_object=words, bos_token="a", eos_token="a", pad_token="a").save_pretrained(folder)
        bridge = TransformerBridge.boot_transformers(folder)

    def run() -> object:
        with torch.inference_mode():
            return bridge.run_with_cache(ids, names_filter=lambda name: name.endswith("hook_resid_post"))

    setup.subjects["transformer_lens"] = Subject(run)
    setup.figures["vs_transformer_lens"] = Figure(
        "CPU of inscape's capture over TransformerLens' run_with_cache, residual stream after every block, GPT-2 small 8×128",
        ratio("inscape", "transformer_lens"),
        limit=None,
        peer="transformer-lens",
    )


def nnsight(setup: Setup) -> None:
    """NNsight traces the very same model."""
    from nnsight import NNsight

    ids = setup.material["ids"]
    traced = NNsight(setup.material["model"])

    def run() -> object:
        kept = []
        with torch.inference_mode(), traced.trace(ids):
            for block in traced.transformer.h:
                kept.append(block.output.save())
        return kept

    setup.subjects["nnsight"] = Subject(run)
    setup.figures["vs_nnsight"] = Figure(
        "CPU of inscape's capture over an NNsight trace, residual stream after every block, GPT-2 small 8×128",
        ratio("inscape", "nnsight"),
        limit=None,
        peer="nnsight",
    )


@case("capture_overhead", peers={"transformer-lens": transformer_lens, "nnsight": nnsight})
def capture_overhead(tiny: bool) -> Generator[Setup]:
    """All residual streams of GPT-2 small (random weights), 8 × 128 tokens, against the full language-model forward pass."""
    model = gpt2(layers=2, width=32, heads=2, vocabulary=100) if tiny else gpt2()
    ids = token_ids(8, 128, 100 if tiny else 50257)
    batch = torch.from_numpy(ids)
    wrapped = ix.load(model)
    folder = Path(tempfile.mkdtemp())
    target = folder / "store"

    def forward() -> object:
        with torch.inference_mode():
            return model(batch)

    def capture(sites: list[str], tokens: str, to: Path | None = None, dtype: str | None = None) -> object:
        return ix.capture(wrapped, ids, sites=sites, tokens=tokens, to=to, dtype=dtype, batch_size=8, progress=False)

    subjects = {
        "forward": Subject(forward),
        "hooks": Subject(lambda: hooked(model, batch, slice(-1, None), logits=True)),
        "inscape": Subject(lambda: capture([RESIDUALS], "all")),
        "inscape_logits": Subject(lambda: capture([RESIDUALS, "logits"], "last")),
        "inscape_stored": Subject(
            lambda: capture([RESIDUALS], "all", target, "float16"), reset=lambda: shutil.rmtree(target, ignore_errors=True)
        ),
    }
    figures = {
        "trunk": Figure(
            "CPU of a capture over the forward pass with logits and cache, when logits are not asked for", ratio("inscape", "forward"), 0.75
        ),
        "logits": Figure(
            "CPU of a capture with logits less that of plain hooks, both over the forward pass",
            lambda t: (t["inscape_logits"].cpu - t["hooks"].cpu) / t["forward"].cpu,
            0.03,
        ),
        "stored": Figure("the same with the fp16 store written to disk", ratio("inscape_stored", "forward"), 1.10),
        "hooks": Figure("plain hooks over the forward pass, for orientation", ratio("hooks", "forward"), None),
    }
    yield Setup(subjects, figures, notes={"tokens": list(ids.shape)}, material={"ids": batch, "model": model})
    shutil.rmtree(folder, ignore_errors=True)


@case("capture_per_forward")
def capture_per_forward(tiny: bool) -> Generator[Setup]:
    """What each forward pass of a running capture costs on top: one 1 × 16 input, 12 layers of width 64."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the work of a pass this small: with more, CPU seconds count threads that spin
    model = gpt2(layers=12, width=64, heads=4, vocabulary=1000)
    wrapped = ix.load(model)
    short, long = (4, 12) if tiny else (100, 700)
    ids = token_ids(long, 16, 1000)
    batches = [torch.from_numpy(row[None]) for row in ids]

    def plain(count: int) -> None:
        with torch.inference_mode():
            for batch in batches[:count]:
                model.transformer(batch, use_cache=False)

    def capture(count: int) -> None:
        ix.capture(wrapped, ids[:count], sites=RESIDUALS, tokens="last", batch_size=1, progress=False)

    subjects = {
        "plain_short": Subject(lambda: plain(short)),
        "plain_long": Subject(lambda: plain(long)),
        "inscape_short": Subject(lambda: capture(short)),
        "inscape_long": Subject(lambda: capture(long)),
    }
    figures = {
        "added": Figure(
            "CPU milliseconds that a capture adds to each forward pass (one thread; a long run less a short one, so set-up cancels)",
            lambda t: (
                1e3 * ((t["inscape_long"].cpu - t["inscape_short"].cpu) - (t["plain_long"].cpu - t["plain_short"].cpu)) / (long - short)
            ),
            0.5,
            unit="ms",
        )
    }
    yield Setup(subjects, figures, notes={"forwards": [short, long], "threads": 1})
    torch.set_num_threads(before)
