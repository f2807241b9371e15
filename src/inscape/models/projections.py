"""Queries, keys, values and the heads' output: which columns of which projection they are, proved by what attention multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inscape.models.attended import Attended
from inscape.models.branches import Block, Branch, Part, is_norm
from inscape.models.dryrun import linear_like
from inscape.models.sites import PLAIN
from inscape.models.values import Layout, same

# Last part of a projection's path, in the implementations that give it a name of its own.
PROJECTIONS = {
    "q": ("q_proj", "query", "q", "wq", "to_q", "q_lin", "query_proj", "w_q", "fc_q", "linear_q"),
    "k": ("k_proj", "key", "k", "wk", "to_k", "k_lin", "key_proj", "w_k", "fc_k", "linear_k"),
    "v": ("v_proj", "value", "v", "wv", "to_v", "v_lin", "value_proj", "w_v", "fc_v", "linear_v"),
}
HEADS = ("num_attention_heads", "num_heads", "n_head", "n_heads", "heads", "nhead", "encoder_attention_heads")
KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "multi_query_group_num")
# Fused projections whose attention cannot be watched (a flash kernel), in families whose layout is known.
CONTIGUOUS = ("phi3", "gpt2", "gpt_bigcode", "mpt", "modernbert")
HEAD_BY_HEAD = ("gpt_neox", "bloom")
_UNKNOWN = "the projection of queries, keys and values could not be told apart"
_COMPOSED = "they are no columns of a projection's output: attention puts them together from several tensors, or adds to them"


@dataclass(frozen=True)
class Found:
    """Where one of them is taken.

    Attributes:
        part: the run of a module; its output (q, k, v) or input (z) is meant.
        layout: which of its columns.
        heads: number of heads that they are made of.
        note: what must be known to read the numbers.
    """

    part: Part
    layout: Layout = PLAIN
    heads: int | None = None
    note: str = ""


def first_number(names: tuple[str, ...], *owners: Any) -> int | None:
    """The first positive whole number that one of the owners has under one of these names."""
    for owner in owners:
        for name in names:
            value = getattr(owner, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def output_projection(block: Block, branch: Branch) -> Part | None:
    """The affine map whose output is the branch, perhaps after a norm."""
    scope = block.scope(branch)
    linear = [part for part in scope if linear_like(block.module(part)) and part.ended <= branch.part.ended]
    given = branch.part.given
    for part in sorted(linear, key=lambda part: part.ended, reverse=True):
        if part.given is None or given is None:
            continue
        if same(part.given, given):
            return part
        if any(p.taken is not None and same(p.taken, part.given) and p.given is not None and same(p.given, given) for p in scope):
            return part
    return None


def heads_of(block: Block, branch: Branch, config: Any, time_first: bool) -> tuple[dict[str, Found], dict[str, str]]:
    """`q, k, v, z` of an attention branch, and for those that it lacks the reason."""
    events = [e for e in block.log.attended if branch.after <= e.at <= branch.part.ended and e.inside.startswith(block.call.path)]
    event = next((e for e in events if e.v is not None), None)
    scope = block.scope(branch)
    output = output_projection(block, branch)
    if event is None and (events or any(isinstance(block.module(part), nn.MultiheadAttention) for part in scope)):
        if output is None or not any(p.ended < output.began and linear_like(block.module(p)) for p in scope):
            return {}, dict.fromkeys("qkvz", "attention runs fused, without modules for its projections")
    owners = [block.root.get_submodule(path) for path in _around(output.path if output is not None else branch.part.path)]
    inner = [block.module(part) for part in scope if any(word in part.path.rsplit(".", 1)[-1] for word in ("self", "att"))]
    heads = first_number(HEADS, *inner, *owners, config)
    key_heads = first_number(KEY_HEADS, *inner, *owners, config) or heads
    search = _Search(block, event, scope, time_first)
    if search.heads is not None:
        heads = search.heads
    found: dict[str, Found] = {}
    missing: dict[str, str] = {}
    if output is None or output.taken is None:
        missing["z"] = "the heads' output goes through no affine module on its way into the stream"
    else:
        found["z"] = Found(output, heads=heads, note=search.describe_z(output, heads))
    before = [
        part
        for part in scope
        if part.given is not None and linear_like(block.module(part)) and (output is None or part.ended < output.began)
    ]
    for name in "qkv":
        one = search.find(name, before)
        if one is None:
            one = _by_name(name, before, search.width(name), heads if name == "q" else key_heads)
        if one is not None:
            found[name] = one
    if event is None and not any(name in found for name in "qkv") and output is not None and output.taken is not None:
        found.update(_by_family(before, output.taken, heads, key_heads, getattr(config, "model_type", None)))
    missing.update({name: _UNKNOWN if event is None else _COMPOSED for name in "qkv" if name not in found})
    return found, missing


def _around(path: str) -> list[str]:
    """The paths of all modules around one, the nearest first, the model itself ("") last."""
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(len(parts) - 1, -1, -1)]


def _by_name(name: str, before: Sequence[Part], width: int | None, heads: int | None) -> Found | None:
    """A projection that is called so, and is as wide as what attention multiplied."""
    for part in before:
        if part.path.rsplit(".", 1)[-1].lower() in PROJECTIONS[name] and part.given is not None:
            if width is None or part.given.shape[-1] == width:
                many = heads if heads and part.given.shape[-1] % heads == 0 else None
                return Found(part, heads=many, note="as projected: before any rotary or per-head norm" if name != "v" else "")
    return None


def _by_family(before: Sequence[Part], z: Tensor, heads: int | None, key_heads: int | None, family: str | None) -> dict[str, Found]:
    """The parts of a fused projection where only the family's name tells how it is laid out."""
    if heads is None or z.shape[-1] % heads or family not in (*CONTIGUOUS, *HEAD_BY_HEAD):
        return {}
    many, size = key_heads or heads, z.shape[-1] // heads
    q, k = heads * size, many * size
    for part in before:
        if part.given is None or part.given.shape[-1] != q + 2 * k:
            continue
        if family in CONTIGUOUS:
            layouts = Layout(columns=(0, q)), Layout(columns=(q, q + k)), Layout(columns=(q + k, q + 2 * k))
        else:
            layouts = tuple(Layout(grouped=(heads, i * size, (i + 1) * size)) for i in range(3))
        note = "part of one fused projection, before any rotary"
        counts = (heads, many, many)
        return {name: Found(part, layout, count, note) for name, layout, count in zip("qkv", layouts, counts, strict=True)}
    return {}


class _Search:
    """Looks for what attention multiplied among the outputs of projections, column by column."""

    def __init__(self, block: Block, event: Attended | None, scope: Sequence[Part], time_first: bool) -> None:
        b, t = block.x.shape[:2]
        self.b, self.t = (t, b) if time_first else (b, t)
        self.time_first = time_first
        self.norms = [part for part in scope if is_norm(block.module(part))]
        self.targets: dict[str, Tensor] = {}
        self.z: Tensor | None = None
        self.heads: int | None = None
        if event is None:
            return
        for name, value in (("q", event.q), ("k", event.k), ("v", event.v)):
            target = self._by_head(value)
            if target is not None:
                self.targets[name] = target if name == "q" else _once(target)
        self.z = self._by_head(event.z)
        if "q" in self.targets:
            self.heads = self.targets["q"].shape[2]

    def _by_head(self, x: Tensor | None) -> Tensor | None:
        """`[b, t, heads, size]` of an operand of attention."""
        if x is None:
            return None
        if x.ndim == 3 and x.shape[0] % self.b == 0 and x.shape[1] == self.t:
            x = x.unflatten(0, (self.b, -1))
        return x.transpose(1, 2) if x.ndim == 4 and x.shape[0] == self.b and x.shape[2] == self.t else None

    def width(self, name: str) -> int | None:
        """Number of columns that must be found, where attention was seen."""
        target = self.targets.get(name)
        return None if target is None else target.shape[2] * target.shape[3]

    def describe_z(self, output: Part, heads: int | None) -> str:
        """What must be known to read `z`."""
        taken = output.taken
        assert taken is not None
        note = f"heads, side by side: {heads} × {taken.shape[-1] // heads}" if heads and taken.shape[-1] % heads == 0 else ""
        if self.z is None or same(self.z.flatten(2), taken.transpose(0, 1) if self.time_first else taken):
            return note
        return f"{note}; after a gate or norm that follows the sum of values".removeprefix("; ")

    def find(self, name: str, before: Sequence[Part]) -> Found | None:
        """The columns of one projection that are the queries, keys or values, with a note on what happens to them before they are used."""
        target = self.targets.get(name)
        if target is None:
            return None
        if name == "v":
            return self._columns(target, before, "", slice(None))
        everywhere, first = slice(None), slice(0, 1)
        found = self._columns(target, before, "as attention reads them", everywhere)
        if found is None:  # rotary positions leave the first token as it is
            found = self._columns(target, before, "before rotary positions", first)
        if found is None:
            found = self._scaled(target, before)
        return self._before_norm(target, before) if found is None else found

    def _scaled(self, target: Tensor, before: Sequence[Part]) -> Found | None:
        """Queries that are multiplied by a constant before they meet the keys."""
        size = target.shape[-1]
        for where, rotary in ((slice(None), ""), (slice(0, 1), "before rotary positions and ")):
            for power in (-0.5, -0.25, 0.5):
                note = f"{rotary}before the factor {size**power:.4g}"
                found = self._columns(target / size**power, before, note.strip(), where)
                if found is not None:
                    return found
        return None

    def _before_norm(self, target: Tensor, before: Sequence[Part]) -> Found | None:
        """What a norm inside attention reads, when attention multiplies what it returns."""
        for norm in self.norms:
            for taken, given in zip(self._arranged(norm.call.taken, target), self._arranged(norm.call.given, target), strict=False):
                if not same(given[:, :1], target[:, :1]):
                    continue
                rotary = "" if same(given, target) else " and before rotary positions"
                found = self._columns(taken, before, f"before their norm{rotary}", slice(None))
                if found is not None:
                    return found
        return None

    def _arranged(self, x: Tensor | None, like: Tensor) -> list[Tensor]:
        """The ways in which a tensor can be `[b, t, heads, size]`."""
        if x is None:
            return []
        shape = tuple(like.shape)
        ways: list[Tensor] = []
        if x.ndim == 3 and tuple(x.shape) == (*shape[:2], shape[2] * shape[3]):
            ways.append(x.unflatten(-1, shape[2:]))
        if x.ndim == 4 and tuple(x.shape) == shape:
            ways.append(x)
        if x.ndim == 4 and tuple(x.transpose(1, 2).shape) == shape:
            ways.append(x.transpose(1, 2))
        return ways

    def _columns(self, target: Tensor, before: Sequence[Part], note: str, where: slice) -> Found | None:
        for part in before:
            wide = part.given
            if wide is None or wide.ndim not in (3, 4):
                continue
            wide = wide.flatten(1, -2) if wide.ndim == 4 else wide.transpose(0, 1) if self.time_first else wide
            if tuple(wide.shape[:2]) != (self.b, self.t) or wide.device != target.device:
                continue
            layout = _layout_of(wide[:, where], target[:, where])
            if layout is not None:
                notes = [] if layout == Layout() else ["part of one fused projection"]
                return Found(part, layout, target.shape[2], ", ".join([*notes, *([note] if note else [])]))
        return None


def _once(target: Tensor) -> Tensor:
    """Key heads without the copies that serve several query heads."""
    heads = target.shape[2]
    for count in range(1, heads):
        if heads % count == 0:
            kept = target[:, :, :: heads // count]
            if torch.equal(kept.repeat_interleave(heads // count, 2), target):
                return kept
    return target


def _layout_of(wide: Tensor, target: Tensor) -> Layout | None:
    """The columns of `wide` `[b, t, w]` that are `target` `[b, t, heads, size]`, head after head; `None` when they are not all there."""
    heads, size = target.shape[2:]
    width = wide.shape[-1]
    if width < heads * size:
        return None
    rows, wanted = wide.flatten(0, 1).float(), target.flatten(0, 1).float()
    tolerance = 1e-5 * max(1e-6, float(wanted.abs().max()))
    starts: list[int] = []
    for head in range(heads):
        near = ((rows - wanted[:, head, :1]).abs().amax(0) <= tolerance).nonzero().flatten().tolist()
        start = next((j for j in near if j + size <= width and same(rows[:, j : j + size], wanted[:, head])), None)
        if start is None:
            return None
        starts.append(start)
    group = next((i for i in range(1, heads) if starts[i] != starts[0] + i * size), heads)
    if heads % group:
        return None
    count = heads // group
    stride = width // count
    if starts != [starts[0] + (i // group) * stride + (i % group) * size for i in range(heads)]:
        return None
    stop = starts[0] + group * size
    if count == 1:
        return Layout() if stop - starts[0] == width else Layout(columns=(starts[0], stop))
    return Layout(grouped=(count, starts[0], stop)) if width % count == 0 and stop <= stride else None
