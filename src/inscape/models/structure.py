"""Canonical names found from what a dry run saw: which tensors add up to the residual stream, and who made them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from inscape.models.dryrun import Call, Record, linear_like
from inscape.models.fused import split_fused
from inscape.models.names import CANONICAL_BLOCK
from inscape.models.sites import Kind, Site
from inscape.models.values import Layout, get, locate, same

# Last part of a projection's path, in the implementations that give it a name of its own.
PROJECTIONS = {
    "q": ("q_proj", "query", "q", "wq", "to_q", "q_lin", "query_proj", "w_q", "fc_q", "linear_q"),
    "k": ("k_proj", "key", "k", "wk", "to_k", "k_lin", "key_proj", "w_k", "fc_k", "linear_k"),
    "v": ("v_proj", "value", "v", "wv", "to_v", "v_lin", "value_proj", "w_v", "fc_v", "linear_v"),
}
HEADS = ("num_attention_heads", "num_heads", "n_head", "n_heads", "heads", "nhead", "encoder_attention_heads")
KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "multi_query_group_num")


@dataclass
class Structure:
    """What is known of a model's canonical sites.

    Attributes:
        sites: canonical name -> where it is.
        missing: canonical name -> why the model has no such site.
        blocks: path of the list of blocks, if there is one.
    """

    sites: dict[str, Site] = field(default_factory=lambda: {})
    missing: dict[str, str] = field(default_factory=lambda: {})
    blocks: str | None = None


@dataclass
class _Branches:
    """The two things that a block adds to its stream, and the stream between them."""

    attn: Call
    mlp: Call
    mid: Site
    start_mlp: int  # moment after which the second branch is computed


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalizes: by its class name, as every implementation calls it so."""
    return "norm" in type(module).__name__.lower()


def first_number(names: tuple[str, ...], *owners: Any) -> int | None:
    """The first positive whole number that one of the owners has under one of these names."""
    for owner in owners:
        for name in names:
            value = getattr(owner, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def block_ends(root: nn.Module, blocks: str, kind: Kind) -> Structure:
    """What is known without a dry run: the input and output of each block."""
    found = Structure(blocks=blocks)
    count = len(list(root.get_submodule(blocks).children()))
    found.sites["embed"] = Site("embed", f"{blocks}.0", "in", kind=kind, note="the stream that enters the first block, positions included")
    for i in range(count):
        found.sites[f"blocks.{i}.resid_pre"] = Site(f"blocks.{i}.resid_pre", f"{blocks}.{i}", "in", kind=kind)
        found.sites[f"blocks.{i}.resid_post"] = Site(f"blocks.{i}.resid_post", f"{blocks}.{i}", "out", kind=kind)
    return found


def analyze(root: nn.Module, blocks: str, log: Record, config: Any, kind: Kind) -> Structure | None:
    """The canonical sites of a model whose residual stack is the list `blocks`; `None` when that list carries no residual stream."""
    first = log.first(f"{blocks}.0")
    count = len(list(root.get_submodule(blocks).children()))
    if first is None or first.taken is None or first.given is None:
        return None
    if first.taken.shape != first.given.shape or first.taken.ndim != 3 or any(log.count.get(f"{blocks}.{i}") != 1 for i in range(count)):
        return None
    x, y = first.taken, first.given
    inside = [call for call in log.calls if call.path.startswith(f"{blocks}.0.")]
    layout = _time_first(root, blocks)
    found = block_ends(root, blocks, kind)
    found.sites = {name: replace(site, layout=layout) for name, site in found.sites.items()}
    branches = _sequential(root, x, y, inside, log)
    local: dict[str, Site] = {}
    why: dict[str, str] = {}
    if branches is not None:
        local["resid_mid"] = branches.mid
        local["attn_out"] = Site("", branches.attn.path)
        local["mlp_out"] = Site("", branches.mlp.path)
        scope_attn = [call for call in inside if call.began < branches.attn.ended]
        scope_mlp = [call for call in inside if branches.start_mlp < call.began < branches.mlp.ended]
        _attention(root, branches.attn, scope_attn, config, local, why)
        _mlp(root, branches.mlp, scope_mlp, local, why)
    elif (pair := _parallel(x, y, inside, log)) is not None:
        why["resid_mid"] = "attention and MLP both read the block's input, so there is no stream between them"
        attn, mlp = pair
        local["attn_out"], local["mlp_out"] = Site("", attn.path), Site("", mlp.path)
        turn = min(attn.ended, mlp.ended)
        early, late = [call for call in inside if call.ended <= turn], [call for call in inside if call.began > turn]
        _attention(root, attn, early if attn.ended == turn else late, config, local, why)
        _mlp(root, mlp, early if mlp.ended == turn else late, local, why)
    else:
        reason = "the block is not a sum of its input, an attention branch and an MLP branch"
        why.update({name: reason for name in CANONICAL_BLOCK if name not in ("resid_pre", "resid_post")})
    for i in range(count):
        for name in CANONICAL_BLOCK:
            if name in local:
                site = local[name]
                path = f"{blocks}.{i}" + site.path[len(f"{blocks}.0") :]
                merged = Layout(layout.time_first, False, site.layout.columns, site.layout.interleaved)
                found.sites[f"blocks.{i}.{name}"] = replace(site, name=f"blocks.{i}.{name}", path=path, kind=kind, layout=merged)
            elif name in why:
                found.missing[f"blocks.{i}.{name}"] = why[name]
    _ends(root, log, blocks, count, layout, kind, found)
    return found


def _time_first(root: nn.Module, blocks: str) -> Layout:
    block = root.get_submodule(f"{blocks}.0")
    first = next((part for part in block.modules() if isinstance(part, (nn.MultiheadAttention, nn.RNNBase))), None)
    return Layout(time_first=first is not None and not first.batch_first)


def _choose(candidates: list[Call], root: nn.Module, log: Record) -> Call:
    """Of the modules that return the same tensor: one that runs once, not a dropout, and the last (outermost)."""

    def rank(call: Call) -> tuple[bool, bool, int]:
        dropout = "dropout" in type(root.get_submodule(call.path)).__name__.lower()
        return log.count[call.path] == 1, not dropout, call.ended

    return max(candidates, key=rank)


def _producers(target: Tensor, base: Tensor, inside: list[Call], after: int, before: int) -> list[Call]:
    """Modules whose output, added to `base`, gives `target`."""
    return [
        call
        for call in inside
        if call.given is not None
        and after <= call.began
        and call.ended < before
        and call.given.shape == base.shape
        and same(base + call.given, target)
    ]


def _sequential(root: nn.Module, x: Tensor, y: Tensor, inside: list[Call], log: Record) -> _Branches | None:
    """Attention first, MLP on the sum: pre-norm, post-norm, and norms on both sides of a branch."""
    for reader in inside:
        m = reader.taken
        if m is None or m.shape != x.shape or same(m, x):
            continue
        attn = _producers(m, x, inside, 0, reader.began)
        if not attn:
            continue
        mlp = _producers(y, m, inside, reader.began, 10**9)
        if mlp:
            mid = Site("", reader.path, "in", in_place=True)
            return _Branches(_choose(attn, root, log), _choose(mlp, root, log), mid, reader.began - 1)
        n = reader.given
        if n is None or not is_norm(root.get_submodule(reader.path)):
            continue
        for last in inside:
            if last.given is None or last.taken is None or last.began < reader.ended or not same(last.given, y):
                continue
            mlp = _producers(last.taken, n, inside, reader.ended, last.began)
            if mlp:
                mid = Site("", reader.path, "out", note="after the norm that follows attention (post-norm block)")
                return _Branches(_choose(attn, root, log), _choose(mlp, root, log), mid, reader.ended)
    return None


def _parallel(x: Tensor, y: Tensor, inside: list[Call], log: Record) -> tuple[Call, Call] | None:
    """Two branches that both read the block's input."""
    outs = [call for call in inside if call.given is not None and call.given.shape == x.shape]
    pairs: list[tuple[Call, Call]] = []
    for a in outs:
        for b in outs:
            if a.ended < b.began and a.given is not None and b.given is not None and same(x + a.given + b.given, y):
                pairs.append((a, b))
    if not pairs:
        return None
    a, b = max(pairs, key=lambda pair: (pair[0].ended, pair[1].ended))
    return (b, a) if "att" in b.path.lower() and "att" not in a.path.lower() else (a, b)


def _attention(root: nn.Module, attn: Call, scope: list[Call], config: Any, local: dict[str, Site], why: dict[str, str]) -> None:
    """Queries, keys, values and the heads' output (before the output projection)."""
    linear = [call for call in scope if linear_like(root.get_submodule(call.path)) and call.ended <= attn.ended]
    output = _projection(linear, attn, scope)
    if output is None or output.taken is None:
        why.update(dict.fromkeys("qkvz", "attention runs fused, without modules for its projections"))
        return
    named = [call.path for call in scope if any(word in call.path.rsplit(".", 1)[-1] for word in ("self", "att"))]
    owners = [root.get_submodule(path) for path in [*named, *_above(output.path)]]
    heads = first_number(HEADS, *owners, config)
    key_heads = first_number(KEY_HEADS, *owners, config) or heads
    width = output.taken.shape[-1]
    each = f" × {width // heads}" if heads else ""
    local["z"] = Site("", output.path, "in", heads=heads, note=f"heads, side by side: {heads}{each}" if heads else "")
    before = [call for call in linear if call.ended < output.began and call.given is not None]
    by_name = {
        name: next((c for c in before if c.path.rsplit(".", 1)[-1].lower() in spelled), None) for name, spelled in PROJECTIONS.items()
    }
    if all(by_name.values()):
        for name, call in by_name.items():
            if call is not None:
                many = heads if name == "q" else key_heads
                local[name] = Site("", call.path, heads=many, note="as projected: before any rotary or per-head norm")
        return
    fused = split_fused(before, output.taken, heads, key_heads, getattr(config, "model_type", None))
    if fused is None:
        why.update(dict.fromkeys("qkv", "the projection of queries, keys and values could not be told apart"))
        return
    path, layouts = fused
    for name, layout in zip("qkv", layouts, strict=True):
        many = heads if name == "q" else key_heads
        local[name] = Site("", path, layout=layout, heads=many, note="part of one fused projection, before any rotary")


def _above(path: str) -> list[str]:
    """The paths of all modules around one, the nearest first, the model itself ("") last."""
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(len(parts) - 1, -1, -1)]


def _projection(linear: list[Call], branch: Call, scope: list[Call]) -> Call | None:
    """The affine map whose output is the branch, perhaps after a norm."""
    for call in sorted(linear, key=lambda call: call.ended, reverse=True):
        if call.given is None or branch.given is None:
            continue
        if same(call.given, branch.given):
            return call
        if any(c.taken is not None and same(c.taken, call.given) and c.given is not None and same(c.given, branch.given) for c in scope):
            return call
    return None


def _mlp(root: nn.Module, mlp: Call, scope: list[Call], local: dict[str, Site], why: dict[str, str]) -> None:
    linear = [call for call in scope if linear_like(root.get_submodule(call.path)) and call.ended <= mlp.ended]
    down = _projection(linear, mlp, scope)
    if down is None:
        why["mlp_act"] = "the MLP has no single down projection (a mixture of experts, or a fused one)"
    else:
        local["mlp_act"] = Site("", down.path, "in", note="what the down projection reads (after the gate, where there is one)")


def _ends(root: nn.Module, log: Record, blocks: str, count: int, layout: Layout, kind: Kind, found: Structure) -> None:
    """The final norm and the logits."""
    last = log.first(f"{blocks}.{count - 1}")
    outside = [call for call in log.calls if not call.path.startswith(f"{blocks}.") and call.path != ""]
    if last is not None and last.given is not None:
        norm = next(
            (
                call
                for call in outside
                if call.began > last.ended
                and is_norm(root.get_submodule(call.path))
                and call.taken is not None
                and same(call.taken, last.given)
            ),
            None,
        )
        if norm is not None:
            found.sites["final_norm"] = Site("final_norm", norm.path, kind=kind, layout=layout)
        else:
            found.missing["final_norm"] = "no norm follows the last block (its own output is normalized already, or nothing is)"
    add_logits(root, log, kind, found)


def add_logits(root: nn.Module, log: Record, kind: Kind, found: Structure) -> None:
    """The scores that the model returns: the output of its last affine map, or its field `logits`."""
    result = log.result
    named = hasattr(result, "logits") and isinstance(result.logits, Tensor)
    pick = ("logits",) if named else locate(result)
    scores = get(result, pick) if pick is not None else None
    if isinstance(scores, Tensor):
        rows: Kind = "vector" if scores.ndim == 2 else kind
        for call in reversed(log.calls):
            inside = found.blocks is not None and call.path.startswith(f"{found.blocks}.")
            if call.path and not inside and call.given is not None and linear_like(root.get_submodule(call.path)):
                if same(call.given, scores):
                    found.sites["logits"] = Site("logits", call.path, kind=rows, needs_logits=True)
                    return
        if named and torch.is_floating_point(scores):
            found.sites["logits"] = Site("logits", "", pick=("logits",), kind=rows, needs_logits=True)
            return
    found.missing["logits"] = "the model was loaded without a head"
