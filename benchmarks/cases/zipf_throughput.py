"""Texts of very different length: batches of similar length over batches of fixed size in file order."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import torch

import inscape as ix
from benchmarks.case import Figure, Setup, Subject, case, ratio
from benchmarks.models import gpt2

RESIDUALS = "blocks.*.resid_post"
FIXED = 32  # texts in a batch of the other side


def zipf_texts(count: int, longest: int, vocabulary: int) -> list[list[int]]:
    """Random token ids; a text of k tokens is 1/k as frequent as one of a single token."""
    generator = np.random.default_rng(0)
    rank = np.arange(1, longest + 1)
    lengths = generator.choice(rank, count, p=1 / rank / (1 / rank).sum())
    return [generator.integers(1, vocabulary, length).tolist() for length in lengths]


def in_file_order(model: torch.nn.Module, texts: list[list[int]]) -> list[torch.Tensor]:
    """What one would write by hand: batches as the texts come, padded to the longest, hooks that keep the last token's rows."""
    kept: list[torch.Tensor] = []
    rows = last = torch.empty(0, dtype=torch.long)

    def keep(_module: torch.nn.Module, _args: object, out: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        kept.append((out[0] if isinstance(out, tuple) else out)[rows, last].clone())

    hooks = [block.register_forward_hook(keep) for block in model.transformer.h]
    try:
        with torch.inference_mode():
            for start in range(0, len(texts), FIXED):
                batch = texts[start : start + FIXED]
                width = max(map(len, batch))
                ids = torch.tensor([text + [0] * (width - len(text)) for text in batch])
                last = torch.tensor([len(text) - 1 for text in batch])
                rows = torch.arange(len(batch))
                model.transformer(ids, attention_mask=(torch.arange(width) <= last[:, None]).long(), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def computed_tokens(model: torch.nn.Module, run: Callable[[], Any]) -> tuple[Any, int]:
    """What `run` returns, and the tokens that the model reads meanwhile, padding included."""
    seen: list[int] = []
    handle = model.transformer.wte.register_forward_pre_hook(lambda _module, args: seen.append(args[0].numel()))
    try:
        made = run()
    finally:
        handle.remove()
    return made, sum(seen)


@case("zipf_throughput")
def zipf_throughput(tiny: bool) -> Generator[Setup]:
    """Residual streams of the last token of 10,000 texts whose lengths follow Zipf's law, one to 128 tokens."""
    count, layers, width = (200, 2, 16) if tiny else (10_000, 2, 64)
    model = gpt2(layers=layers, width=width, heads=4, vocabulary=1000, positions=256)
    texts = zipf_texts(count, 128, 1000)
    wrapped = ix.load(model)
    real = sum(map(len, texts))

    def bucketed() -> ix.Store:
        return ix.capture(wrapped, texts, sites=RESIDUALS, tokens="last", progress=False)

    (store, computed), (kept, fixed) = computed_tokens(model, bucketed), computed_tokens(model, lambda: in_file_order(model, texts))
    ours = torch.stack([store[f"blocks.{i}.resid_post"].torch() for i in range(layers)])
    theirs = torch.stack([torch.cat(kept[i::layers]) for i in range(layers)])
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)  # both sides give the same rows
    subjects = {"bucketed": Subject(bucketed), "file_order": Subject(lambda: in_file_order(model, texts))}
    figures = {
        "throughput": Figure(
            f"texts a second of a capture over hooks by hand on batches of {FIXED} in file order, lengths by Zipf's law",
            ratio("file_order", "bucketed", "wall"),
            1.5,
            "higher",
        ),
        "throughput_cpu": Figure("the same in CPU seconds", ratio("file_order", "bucketed"), 1.5, "higher"),
    }
    single = {"waste": ("tokens that the capture computed beyond those of the texts, as a part of all", 1 - real / computed, 0.05, "")}
    notes = {
        "model": {"layers": layers, "width": width},
        "texts": count,
        "tokens": real,
        "computed": computed,
        "computed_in_file_order": fixed,
    }
    yield Setup(subjects, figures, single, notes=notes)
