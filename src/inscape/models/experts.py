"""Mixtures of experts: the router's logits, and what the routed experts add together."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from inscape.models.branches import Block, Branch, Part
from inscape.models.dryrun import linear_like
from inscape.models.values import same

NO_HIDDEN = "a mixture of experts: every expert has a hidden layer of its own, for the tokens routed to it only"


def expert_counts(block: Block, branch: Branch) -> dict[int, list[Part]]:
    """How many experts a branch may have, each with the modules that hold them: stacked weights, or a list of modules of one class."""
    found: dict[int, list[Part]] = {}
    for part in block.scope(branch):
        module = block.module(part)
        stacked = {p.shape[0] for p in module.parameters(recurse=False) if p.ndim == 3}
        lists = [child for child in (module, *module.children()) if isinstance(child, (nn.ModuleList, nn.ModuleDict))]
        listed = {len(child) for child in lists if len({type(member) for member in child.children()}) == 1}
        for count in (stacked or listed) - {1}:
            found.setdefault(count, []).append(part)
    return found


def router_of(block: Block, branch: Branch, counts: dict[int, list[Part]]) -> Part | None:
    """The module that scores the experts: an affine map of what the experts read, with one output for each of them."""
    for part in block.scope(branch):
        taken, given = part.taken, part.given
        if taken is None or given is None or given.shape[-1] not in counts:
            continue
        if taken.shape[-1] == given.shape[-1] and not any(word in part.path.rsplit(".", 1)[-1] for word in ("gate", "router")):
            continue  # as many experts as units: another square map could be meant
        module = block.module(part)
        if next(module.children(), None) is not None:
            continue
        if linear_like(module) or _is_affine(module, taken, given):
            return part
    return None


def _is_affine(module: nn.Module, taken: Tensor, given: Tensor) -> bool:
    """Whether a module without a name for it returns one of its own matrices times its input."""
    own = dict(module.named_parameters(recurse=False))
    matrices = [p for p in own.values() if p.ndim == 2 and tuple(p.shape) == (given.shape[-1], taken.shape[-1])]
    if any(matrix.device != taken.device for matrix in matrices):
        return bool(matrices)  # offloaded: its shape must do
    biases = [None, *(p.detach().float() for p in own.values() if tuple(p.shape) == (given.shape[-1],))]
    return any(
        same(F.linear(taken.float(), matrix.detach().float(), bias).to(given.dtype), given) for matrix in matrices for bias in biases
    )


def routed_of(block: Block, branch: Branch, counts: dict[int, list[Part]], router: Part) -> Part | str:
    """The module whose output is the sum of the routed experts, where it is not the whole branch; otherwise the reason."""
    whole = branch.part.given
    assert router.given is not None
    for part in counts.get(router.given.shape[-1], []):
        given = part.given
        if part.path == router.path or given is None or whole is None or given.shape != whole.shape:
            continue
        if not same(given, whole):
            return part
        if any(p.ndim == 3 for p in block.module(part).parameters(recurse=False)):
            return "the routed experts are all that the MLP adds; read mlp_out"
    return "no module returns the sum of the routed experts by itself"
