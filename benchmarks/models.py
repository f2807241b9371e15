"""Models with random weights for the benchmarks: their speed does not depend on what they learned."""

from __future__ import annotations

import numpy as np
import torch


def gpt2(*, layers: int = 12, width: int = 768, heads: int = 12, vocabulary: int = 50257, positions: int = 1024) -> torch.nn.Module:
    """A GPT-2 language model; the defaults are GPT-2 small."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=layers, n_embd=width, n_head=heads, vocab_size=vocabulary, n_positions=positions, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config).eval()


def token_ids(rows: int, length: int, vocabulary: int, seed: int = 0) -> np.ndarray:
    """Random token ids [rows, length]."""
    return np.random.default_rng(seed).integers(0, vocabulary, size=(rows, length))


def sites(count: int, n: int, d: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, np.ndarray]:
    """`count` matrices [n, d] with power-law spectra that change slowly from one to the next, as layers do."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, d + 1, dtype=dtype) ** -0.5
    now = torch.randn(n, d, generator=generator, dtype=dtype)
    found: dict[str, np.ndarray] = {}
    for index in range(count):
        fresh = torch.randn(n, d, generator=generator, dtype=dtype)
        now = 0.9 * now + 0.4 * fresh
        found[f"blocks.{index}.resid_post"] = (now * scale + 0.1).numpy()
    return found
