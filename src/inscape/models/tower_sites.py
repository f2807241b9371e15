"""One set of canonical names for a model of several stacks, or of one whose stream changes its width."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from inscape.models.calling import is_dual
from inscape.models.dryrun import Call, Record, linear_like
from inscape.models.names import in_order
from inscape.models.sites import Kind, Site
from inscape.models.stacks import activation_after_sum, attends, find_stacks
from inscape.models.structure import Structure, add_logits, analyze, block_ends, is_norm
from inscape.models.towers import Tower, Towers, named_towers
from inscape.models.values import Layout, same

_MAPS_LACK = "a convolutional block has no attention and no MLP branch; name its parts by their paths"
_OF_TRANSFORMERS = ("q", "k", "v", "attn_pattern", "z", "attn_out", "resid_mid", "mlp_act", "mlp_out")
_WINDOWS = "attention runs within windows, so that its rows belong to windows and not to stimuli; name its modules by their paths"
_BETWEEN = {"resid_mid": "between self-attention and cross-attention", "resid_mid_cross": "between cross-attention and the MLP"}


def find_towers(root: nn.Module, log: Record | None, config: Any, kind: Kind) -> Towers:
    """The stacks of a model with their names, and the canonical sites of each."""
    stacks, why = find_stacks(root, log)
    found = Towers(why=why)
    parts: dict[str, Structure] = {}
    for tower in named_towers(root, stacks, config, kind):
        part = _sites_of(root, tower, log, config)
        if part is not None and (not parts or _serious(root, tower, part)):
            first = log.first(f"{tower.stack.lists[0]}.0") if log is not None else None
            if first is not None and first.taken_raw is not None and len(first.taken_raw) == 3:
                tower.length = first.taken_raw[1]
            found.towers.append(tower)
            parts[tower.prefix] = part
    if len(found.towers) == 1 and not is_dual(root):
        only = found.towers[0]
        found.towers, parts = [replace(only, name="", prefix="", path="")], {"": parts[only.prefix]}
    for tower in found.towers:
        _merge(found.structure, tower, parts[tower.prefix])
    main = next((tower for tower in found.towers if tower.prefix == ""), None)
    if main is not None and not main.stack.staged:
        found.structure.blocks, found.structure.count = main.stack.lists[0], parts[""].count
    if log is not None:
        _finish(root, log, config, found, kind)
    return found


def _serious(root: nn.Module, tower: Tower, part: Structure) -> bool:
    """Whether a further list of blocks is a stack of its own: it attends, or its blocks are seen to add branches to a stream."""
    return tower.stack.maps or attends(root, tower.stack.lists[0]) or any(name.endswith("mlp_out") for name in part.sites)


def _config_of(root: nn.Module, path: str, config: Any) -> Any:
    """The configuration nearest to a stack: a tower of a larger model has its own."""
    parts = path.split(".")
    for i in range(len(parts), 0, -1):
        own = getattr(root.get_submodule(".".join(parts[:i])), "config", None)
        if own is not None:
            return own
    return config


def _sites_of(root: nn.Module, tower: Tower, log: Record | None, config: Any) -> Structure | None:
    """The canonical sites of one stack, by the names that they would have in a model of one stack."""
    stack = tower.stack
    if log is None or not stack.ran:
        return block_ends(root, stack.lists[0], tower.kind)
    found = Structure()
    for stage, blocks in enumerate(stack.lists):
        own = _config_of(root, blocks, config)
        part = _maps(root, blocks, log) if stack.maps else analyze(root, blocks, log, own, tower.kind)
        if part is None:
            return None
        part.sites.pop("logits", None)
        part.missing.pop("logits", None)
        if not stack.maps:
            _windows(root, part, blocks, log)
            _say_between(part)
        if not stack.staged:
            return part
        first, last = stage == 0, stage == len(stack.lists) - 1
        for name in sorted(part.sites, key=in_order):
            if name.startswith("blocks.") or (name == "embed" and first) or (name == "final_norm" and last):
                label = f"stages.{stage}.{name}" if name.startswith("blocks.") else name
                found.sites[label] = replace(part.sites[name], name=label)
        for name, reason in part.missing.items():
            if name.startswith("blocks."):
                found.missing[f"stages.{'*' if stack.maps else stage}.{name}"] = reason
            elif last:
                found.missing[name] = reason
        found.untold.update({f"stages.{stage}.{name}": reason for name, reason in part.untold.items()})
    return found


def _say_between(part: Structure) -> None:
    """In a block that also attends to an encoder, says between which branches its streams are."""
    for name, site in part.sites.items():
        block, _, what = name.rpartition(".")
        if what in _BETWEEN and f"{block}.cross_attn_out" in part.sites:
            part.sites[name] = replace(site, note="; ".join(filter(None, (_BETWEEN[what], site.note))))


def _maps(root: nn.Module, blocks: str, log: Record) -> Structure | None:
    """The input and output of each block of a convolutional list, and why there is nothing else."""
    first = log.first(f"{blocks}.0")
    if first is None:
        return None
    inside = [call for call in log.calls if call.path.startswith(f"{blocks}.0.") and first.began < call.began < first.ended]
    note = "after the activation that follows the sum" if activation_after_sum(first, inside) else ""
    found = block_ends(root, blocks, "patches")
    layout = Layout(channels_first=True)
    found.sites = {
        name: replace(site, layout=layout, note=note if name.endswith("resid_post") else "the map that enters the first block")
        if name == "embed" or name.endswith("resid_post")
        else replace(site, layout=layout)
        for name, site in found.sites.items()
    }
    found.missing = {f"blocks.*.{name}": _MAPS_LACK for name in _OF_TRANSFORMERS}
    found.missing["final_norm"] = "no norm follows the last block"
    return found


def _windows(root: nn.Module, part: Structure, blocks: str, log: Record) -> None:
    """Attention within windows has no queries, keys and values of whole stimuli: take them out, with the reason."""
    block = log.first(f"{blocks}.0")
    batch = block.taken_raw[0] if block is not None and block.taken_raw else None
    for name in [
        name for name in {**part.sites, **part.missing, **part.untold} if name.rsplit(".", 1)[-1] in ("q", "k", "v", "z", "attn_pattern")
    ]:
        inside = f"{blocks}.{name.split('.')[1]}."
        windowed = any(
            call.path.startswith(inside)
            and "att" in call.path[len(inside) :]
            and linear_like(root.get_submodule(call.path))
            and call.given_raw
            and batch is not None
            and call.given_raw[0] > batch  # fewer rows are what a projection makes of relative positions
            for call in log.calls
            if len(call.given_raw or ()) == 3
        )
        if windowed:
            part.sites.pop(name, None)
            part.untold.pop(name, None)
            part.missing[name] = _WINDOWS


def _merge(whole: Structure, tower: Tower, part: Structure) -> None:
    """Puts the names of one stack, under its prefix, into those of the model."""
    order = list(part.sites) if tower.stack.staged else sorted(part.sites, key=in_order)
    for name in order:
        site = part.sites[name]
        home = site.tower or tower.name
        whole.sites[tower.prefix + name] = replace(site, name=tower.prefix + name, tower=home)
    whole.missing.update({tower.prefix + name: reason for name, reason in part.missing.items()})
    whole.untold.update({tower.prefix + name: reason for name, reason in part.untold.items()})


def _finish(root: nn.Module, log: Record, config: Any, found: Towers, kind: Kind) -> None:
    """What follows the stacks: a norm of pooled vectors, projected vectors, the scores."""
    for tower in found.towers:
        if f"{tower.prefix}final_norm" in found.structure.missing:
            _norm_of_pooled(root, log, found.structure, tower)
    if is_dual(root):
        for tower in found.towers:
            _embedding(log, found.structure, tower)
        found.structure.missing["logits"] = (
            "a dual encoder scores every text against every image or sound; one stimulus alone has no scores"
        )
        return
    decoder = next((tower for tower in found.towers if tower.name == "decoder"), None)
    head = Structure(blocks=found.structure.blocks)
    speaker = decoder or next((tower for tower in found.towers if not tower.prefix), None)
    add_logits(root, log, kind if speaker is None else speaker.kind, head)
    for name, site in head.sites.items():
        found.structure.sites[name] = replace(site, tower=decoder.name) if decoder is not None else site
    if found.structure.sites:
        found.structure.missing.update(head.missing)  # a plain module lacks nothing


def _norm_of_pooled(root: nn.Module, log: Record, structure: Structure, tower: Tower) -> None:
    """A last norm that sees one vector per stimulus: a class token, the mean over places."""
    blocks = tower.stack.lists[-1]
    last = log.first(f"{blocks}.{len(list(root.get_submodule(blocks).children())) - 1}")
    if last is None or last.given is None or last.given.ndim < 3:
        return
    pooled: dict[str, Tensor] = {"the mean over places": last.given.flatten(2).mean(-1)} if tower.stack.maps else {}
    if not tower.stack.maps:
        pooled = {"the first position alone": last.given[:, 0], "the mean over positions": last.given.mean(1)}
    for call in log.calls:
        if call.path and call.began > last.ended and call.taken is not None and is_norm(root.get_submodule(call.path)):
            for words, value in pooled.items():
                taken = call.taken.flatten(1) if call.taken.ndim == 4 else call.taken
                if taken.shape == value.shape and same(taken, value):
                    name = f"{tower.prefix}final_norm"
                    structure.missing.pop(name)
                    site = Site(name, call.path, kind="vector", tower=tower.name, note=f"the norm of {words}")
                    structure.sites[name] = site
                    return


def _embedding(log: Record, structure: Structure, tower: Tower) -> None:
    """`text.embedding`, `vision.embedding`: the vectors that a dual encoder compares, before they are scaled to length one."""
    name = f"{tower.prefix}embedding"
    role = {"vision": "image"}.get(tower.name, tower.name)
    result = log.results.get(role)
    value = result if isinstance(result, Tensor) else getattr(result, "pooler_output", None)
    makers: list[Call] = []
    if isinstance(value, Tensor) and torch.is_floating_point(value):
        made = [call for call in log.calls if call.path and call.given is not None and call.given.shape == value.shape]
        makers = [call for call in made if call.given is not None and same(call.given, value)]
        makers = makers or [call for call in made if call.given is not None and same(normalize(call.given, dim=-1), value)]
    if makers:
        last = max(makers, key=lambda call: call.ended)
        structure.sites[name] = Site(
            name, last.path, kind="vector", tower=tower.name, note="as compared, before it is scaled to length one"
        )
    else:
        structure.missing[name] = f"no module returns the vector that get_{role}_features gives"
