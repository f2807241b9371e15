"""One projection that makes queries, keys and values at once: where each of them lies in its output."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from inscape.models.dryrun import Call
from inscape.models.values import Layout, same

# Families whose positions are rotated, so that the layout cannot be checked by computing attention from it.
CONTIGUOUS = {"phi3", "gpt2", "openai-gpt", "gpt_bigcode", "codegen", "chatglm", "mpt", "gptj"}
INTERLEAVED = {"gpt_neox", "bloom", "persimmon"}


def contiguous(width: int, heads: int, key_heads: int) -> tuple[Layout, Layout, Layout] | None:
    """All queries, then all keys, then all values."""
    total = heads + 2 * key_heads
    if width % total:
        return None
    size = width // total
    q, k = heads * size, key_heads * size
    return Layout(columns=(0, q)), Layout(columns=(q, q + k)), Layout(columns=(q + k, q + 2 * k))


def interleaved(width: int, heads: int, key_heads: int) -> tuple[Layout, Layout, Layout] | None:
    """Head by head: its queries, keys and values side by side."""
    if key_heads != heads or width % (3 * heads):
        return None
    return Layout(interleaved=(heads, 3, 0)), Layout(interleaved=(heads, 3, 1)), Layout(interleaved=(heads, 3, 2))


def split_fused(
    calls: list[Call], z: Tensor, heads: int | None, key_heads: int | None, family: str | None
) -> tuple[str, tuple[Layout, Layout, Layout]] | None:
    """The fused projection and the layout of its three parts, or `None`.

    A layout is accepted when attention computed from it gives the observed `z`; where rotary positions forbid that check, a known
    family decides.
    """
    if heads is None or z.shape[-1] % heads:
        return None
    many = key_heads or heads
    width = z.shape[-1] // heads * (heads + 2 * many)
    for call in calls:
        if call.given is None or call.given.shape[-1] != width or call.given.ndim != 3:
            continue
        for make in (contiguous, interleaved):
            layouts = make(width, heads, many)
            if layouts is not None and _explains(call.given, layouts, z, heads, many):
                return call.path, layouts
        make = contiguous if family in CONTIGUOUS else interleaved if family in INTERLEAVED else None
        layouts = make(width, heads, many) if make is not None else None
        if layouts is not None:
            return call.path, layouts
    return None


def _explains(fused: Tensor, layouts: tuple[Layout, Layout, Layout], z: Tensor, heads: int, key_heads: int) -> bool:
    q, k, v = (layout.read(fused) for layout in layouts)
    q = q.unflatten(-1, (heads, -1)).transpose(1, 2)
    k, v = (part.unflatten(-1, (key_heads, -1)).transpose(1, 2).repeat_interleave(heads // key_heads, 1) for part in (k, v))
    for causal in (True, False):
        computed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        if same(computed.transpose(1, 2).flatten(-2), z):
            return True
    return False
