"""Canonical names found from what a dry run saw: which tensors add up to the residual stream, and who made them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from inscape.models.alike import representatives
from inscape.models.attention_sites import canonical_patterns
from inscape.models.branches import Block, is_norm
from inscape.models.dryrun import Call, Record, linear_like
from inscape.models.inside import Inside, inside_of
from inscape.models.sites import Kind, Site
from inscape.models.values import Layout, get, locate, same


@dataclass
class Structure:
    """What is known of a model's canonical sites.

    Attributes:
        sites: canonical name -> where it is.
        missing: canonical name -> why the model has no such site.
        untold: likewise, for names that one does not expect of such a model; said when asked, not listed.
        blocks: path of the list of blocks, if there is one.
        count: number of blocks, each run of a shared one counted.
    """

    sites: dict[str, Site] = field(default_factory=lambda: {})
    missing: dict[str, str] = field(default_factory=lambda: {})
    untold: dict[str, str] = field(default_factory=lambda: {})
    blocks: str | None = None
    count: int = 0


@dataclass(frozen=True)
class _Run:
    """One run of one member of the list: block number `index` of the stack.

    Attributes:
        call: as it was recorded.
        nth: which run of its module it is, where there are several.
        twin: number of a block that is built like it, from which the names inside are taken where it was not looked into itself.
    """

    call: Call
    nth: int | None
    twin: int


def block_ends(root: nn.Module, blocks: str, kind: Kind) -> Structure:
    """What is known without a dry run: the input and output of each block."""
    members = [f"{blocks}.{name}" for name, _ in root.get_submodule(blocks).named_children()]
    return _ends_of([(path, None) for path in members], blocks, kind, Layout())


def _ends_of(runs: list[tuple[str, int | None]], blocks: str, kind: Kind, layout: Layout) -> Structure:
    found = Structure(blocks=blocks, count=len(runs))
    for i, (path, nth) in enumerate(runs):
        if i == 0:
            note = "the stream that enters the first block, positions included"
            found.sites["embed"] = Site("embed", path, "in", kind=kind, layout=layout, call=nth, note=note)
        for name, port in (("resid_pre", "in"), ("resid_post", "out")):
            full = f"blocks.{i}.{name}"
            found.sites[full] = Site(full, path, "in" if port == "in" else "out", kind=kind, layout=layout, call=nth)
    return found


def analyze(root: nn.Module, blocks: str, log: Record, config: Any, kind: Kind) -> Structure | None:
    """The canonical sites of a model whose residual stack is the list `blocks`; `None` when that list carries no residual stream."""
    runs = _runs(root, blocks, log)
    if runs is None:
        return None
    layout = _time_first(root, runs[0].call.path, log)
    found = _ends_of([(run.call.path, run.nth) for run in runs], blocks, kind, layout)
    if not _is_stream(runs):
        return None
    shared = runs[0].nth is not None
    counted = _numbering(log)
    known: dict[int, tuple[Block, Inside]] = {}
    for i, run in enumerate(runs):
        twin = i if _was_kept(log, run.call) else run.twin
        if twin not in known:
            block = Block(root, log, runs[twin].call)
            known[twin] = block, inside_of(block, config, layout.time_first)
        block, inside = known[twin]
        if i != twin and not _alike(log, run.call, runs[twin].call, [part.path for part, _ in inside.sites.values()]):
            reason = f"block {i} runs other modules than block {twin}, which is built like it"
            found.missing.update({f"blocks.{i}.{name}": reason for name in inside.sites})
            continue
        if not inside.sums:
            post = found.sites[f"blocks.{i}.resid_post"]
            found.sites[post.name] = replace(post, note="what the block returns; it is not seen to be a sum with what it reads")
        for name, (part, site) in inside.sites.items():
            path = run.call.path + part.path[len(block.call.path) :]
            grid = run.call.path if site.grid is not None else None
            merged = Layout(time_first=layout.time_first, columns=site.layout.columns, grouped=site.layout.grouped)
            full, nth = f"blocks.{i}.{name}", counted.get(id(part.call))
            found.sites[full] = replace(site, name=full, path=path, kind=kind, layout=merged, grid=grid, call=nth)
        found.missing.update({f"blocks.{i}.{name}": reason for name, reason in inside.missing.items()})
        found.untold.update({f"blocks.{i}.{name}": reason for name, reason in inside.untold.items()})
        if i and not shared and not _continues(runs[i - 1].call, run.call):
            site = found.sites[f"blocks.{i}.resid_pre"]
            found.sites[site.name] = replace(site, note=f"something stands between block {i - 1} and this one: not its resid_post")
    until = known[0][1].attended_until
    patterns, unpatterned = canonical_patterns(log, [run.call for run in runs], kind=kind, layout=layout, until=until)
    found.sites.update(patterns)
    found.missing = {**{name: reason for name, reason in found.missing.items() if name not in patterns}, **unpatterned}
    _after(root, log, runs[-1].call, layout, kind, found)
    return found


def _runs(root: nn.Module, blocks: str, log: Record) -> list[_Run] | None:
    """The blocks of a stack: each member of the list once, or the runs of members that are shared, in the order in which they ran."""
    members = [f"{blocks}.{name}" for name, _ in root.get_submodule(blocks).named_children()]
    calls = [call for call in log.calls if call.path in members]
    if {call.path for call in calls} != set(members) or not members:
        return None
    if len(calls) == len(members):
        place = {path: i for i, path in enumerate(members)}
        calls.sort(key=lambda call: place[call.path])
        return [_Run(call, None, twin) for call, twin in zip(calls, representatives(root, blocks), strict=True)]
    if not all(_continues(a, b) for a, b in pairwise(calls)):
        return None  # the stack runs several times, each time over something else
    seen: dict[str, int] = {}
    runs: list[_Run] = []
    for i, call in enumerate(calls):
        seen[call.path] = seen.get(call.path, -1) + 1
        runs.append(_Run(call, seen[call.path], i))
    return runs


def _continues(a: Call, b: Call) -> bool:
    """Whether one block reads what the other returned."""
    return a.given is not None and b.taken is not None and same(a.given, b.taken)


def _is_stream(runs: list[_Run]) -> bool:
    """Whether every block returns a tensor `[b, t, d]` as it took one, all of one width."""
    first = runs[0].call.taken
    if first is None or first.ndim != 3:
        return False
    if len(runs) > 1 and not any(_continues(a.call, b.call) for a, b in pairwise(runs)):
        return False  # layers of one kind that others stand between, not whole blocks
    shapes = [x.shape for run in runs for x in (run.call.taken, run.call.given) if x is not None]
    return len(shapes) == 2 * len(runs) and all(shape == first.shape for shape in shapes)


def _numbering(log: Record) -> dict[int, int]:
    """For each run of a module that runs several times, which of them it is."""
    seen: dict[str, int] = {}
    numbers: dict[int, int] = {}
    for call in log.calls:
        if log.count[call.path] > 1:
            numbers[id(call)] = seen[call.path] = seen.get(call.path, -1) + 1
    return numbers


def _was_kept(log: Record, block: Call) -> bool:
    """Whether the tensors inside a block were kept."""
    inside = (c for c in log.calls if c.path.startswith(block.path + ".") and block.began < c.began < block.ended)
    return all((c.taken is None) == (c.taken_raw is None) and (c.given is None) == (c.given_raw is None) for c in inside)


def _alike(log: Record, a: Call, b: Call, paths: list[str]) -> bool:
    """Whether two blocks ran these parts of the second one in the same order, on the same shapes."""
    wanted = {path[len(b.path) :] for path in paths}

    def steps(block: Call) -> list[tuple[str, tuple[int, ...] | None, tuple[int, ...] | None]]:
        inside = [c for c in log.calls if c.path.startswith(block.path + ".") and block.began < c.began < block.ended]
        return [(name, c.taken_raw, c.given_raw) for c in inside if (name := c.path[len(block.path) :]) in wanted]

    return steps(a) == steps(b)


def _time_first(root: nn.Module, path: str, log: Record) -> Layout:
    block, seen = root.get_submodule(path), log.first(path)
    first = next((part for part in block.modules() if isinstance(part, (nn.MultiheadAttention, nn.RNNBase))), None)
    turned = seen is not None and log.puts_time_first(seen.taken_raw)
    return Layout(time_first=turned or (first is not None and not first.batch_first))


def _after(root: nn.Module, log: Record, last: Call, layout: Layout, kind: Kind, found: Structure) -> None:
    """The final norm and the logits."""
    outside = [call for call in log.calls if not call.path.startswith(f"{found.blocks}.") and call.path != ""]
    norm = next((c for c in outside if c.began > last.ended and is_norm(root.get_submodule(c.path)) and _continues(last, c)), None)
    if norm is not None:
        nth = _numbering(log).get(id(norm))
        found.sites["final_norm"] = Site("final_norm", norm.path, kind=kind, layout=layout, call=nth)
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
                    nth = _numbering(log).get(id(call))
                    found.sites["logits"] = Site("logits", call.path, kind=rows, needs_logits=True, call=nth)
                    return
        if named and torch.is_floating_point(scores):
            found.sites["logits"] = Site("logits", "", pick=("logits",), kind=rows, needs_logits=True)
            return
    found.missing["logits"] = "the model was loaded without a head"
