"""The canonical sites inside one block: attention or another mixer, the stream between, the MLP or the experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from inscape.models.branches import Between, Block, Branch, Part, is_norm
from inscape.models.experts import NO_HIDDEN, expert_counts, routed_of, router_of
from inscape.models.names import CANONICAL_BLOCK
from inscape.models.projections import heads_of, output_projection
from inscape.models.sites import PLAIN, Site
from inscape.models.values import Layout

Place = Literal["attn", "cross_attn", "mixer", "mlp"]

_NO_SUM = "the block is not a sum of its input, an attention branch and an MLP branch"
_NO_DOWN = "no down projection's output is what the MLP adds (a mixture of experts, a later gate, or a fused kernel)"
_NO_EXPERTS = "this block has no mixture of experts"
_NO_OTHER = "this block attends to no other sequence"
_WHOLE = ("resid_pre", "resid_post", "attn_pattern")  # found from the block as a whole
# Names that one expects of some models only.
_RARE = {
    "mixer_out": "attention is what mixes the positions of this block; read attn_out",
    "cross_attn_out": _NO_OTHER,
    "resid_mid_cross": _NO_OTHER,
    "router": _NO_EXPERTS,
    "experts_out": _NO_EXPERTS,
}


@dataclass
class Inside:
    """What one block offers.

    Attributes:
        sites: last part of a canonical name -> the run that it is read from, and the site (its name and path are filled in later).
        missing: likewise -> why the block has no such site.
        untold: likewise, for names that one does not expect of it.
        attended_until: moment at which its own attention ended, if it attends.
        sums: the block is seen to add to its input.
    """

    sites: dict[str, tuple[Part, Site]] = field(default_factory=lambda: {})
    missing: dict[str, str] = field(default_factory=lambda: {})
    untold: dict[str, str] = field(default_factory=lambda: {})
    attended_until: int | None = None
    sums: bool = True

    def add(
        self, name: str, part: Part, port: Literal["out", "in"] = "out", *, layout: Layout = PLAIN, heads: int | None = None, note: str = ""
    ) -> None:
        """A site at the output or input of a part."""
        flat = part.flat_given if port == "out" else part.flat_taken
        # What a branch reads is the very tensor that the block adds its output to.
        in_place = name.startswith("resid") and port == "in"
        grid = part.path if flat else None
        self.sites[name] = part, Site(name, part.path, port, layout=layout, heads=heads, in_place=in_place, note=note, grid=grid)


def inside_of(block: Block, config: Any, time_first: bool) -> Inside:
    """The sites inside one run of a block, and the reasons for those that it lacks."""
    inside = Inside()
    chain = block.sequential()
    pair = block.parallel() if chain is None else None
    branches, between = chain if chain is not None else (list(pair or ()), [])
    places = _places(block, branches, one_after_another=chain is not None)
    if not places:
        inside.missing.update({name: _NO_SUM for name in CANONICAL_BLOCK if name not in (*_WHOLE, *_RARE)})
        inside.untold.update(dict.fromkeys(_RARE, _NO_SUM))
        inside.sums = bool(branches)
        return inside
    for place, branch in zip(places, branches, strict=True):
        _branch(inside, block, f"{place}_out", branch)
        if place == "attn":
            inside.attended_until = branch.part.ended
            found, missing = heads_of(block, branch, config, time_first)
            for name, one in found.items():
                inside.add(name, one.part, "in" if name == "z" else "out", layout=one.layout, heads=one.heads, note=one.note)
            inside.missing.update(missing)
        elif place == "mlp":
            _mlp(inside, block, branch)
    _stream(inside, between, parallel=chain is None)
    _lacks(inside, block, dict(zip(places, branches, strict=True)))
    return inside


def _places(block: Block, branches: Sequence[Branch], *, one_after_another: bool) -> list[Place]:
    """Which branch is which; empty when that cannot be said."""
    roles = [block.role(branch) for branch in branches]
    attends = roles.count("attention")
    if "several" in roles:
        return []
    if len(roles) == 1:
        return ["attn" if attends else "mixer" if roles[0] == "mixer" else "mlp"]
    if not one_after_another:
        if sorted(roles) == ["attention", "mixer"]:
            return ["attn" if role == "attention" else "mixer" for role in roles]
        if len(roles) == 2 and attends + roles.count("mixer") == 1:
            return ["mlp" if role == "mlp" else "attn" if role == "attention" else "mixer" for role in roles]
        return []
    if len(roles) == 2 and roles[1] != "attention":
        if roles[0] == "mlp" and not _may_mix(block, branches[0], branches[1]):
            return []
        return ["attn" if attends else "mixer", "mlp"]  # the first of two is the one that mixes positions, whatever it is called
    if len(roles) == 3 and roles[:2] == ["attention", "attention"] and attends == 2:
        return ["attn", "cross_attn", "mlp"]
    return []


def _may_mix(block: Block, first: Branch, second: Branch) -> bool:
    """Whether a branch of no known kind can be what mixes positions: not a lone layer, and not the like of the other branch."""
    simple = all(next(block.module(part).children(), None) is None for part in block.scope(first))
    return not simple and block.worker(first) != block.worker(second)


def _branch(inside: Inside, block: Block, name: str, branch: Branch) -> None:
    if branch.scaled:
        kind = type(block.module(branch.part)).__name__
        inside.missing[name] = f"the block multiplies what its {kind} returns by a constant before adding it; no module returns that"
        return
    after_norm = is_norm(block.module(branch.part))
    inside.add(name, branch.part, note="after the norm that follows the branch: what is added to the stream" if after_norm else "")


def _stream(inside: Inside, between: Sequence[Between], *, parallel: bool) -> None:
    """The stream between the branches."""
    if not between:
        inside.missing["resid_mid"] = (
            "attention and MLP both read the block's input, so there is no stream between them"
            if parallel
            else "the block adds one branch only, so there is no stream between two"
        )
    for name, place in zip(("resid_mid", "resid_mid_cross"), between, strict=False):
        note = "after the norm that follows attention (post-norm block)" if place.port == "out" else ""
        inside.add(name, place.part, place.port, note=note)


def _mlp(inside: Inside, block: Block, branch: Branch) -> None:
    """The hidden layer of an MLP; or of a mixture of experts the router and what the routed ones add."""
    counts = expert_counts(block, branch)
    router = router_of(block, branch, counts)
    if router is not None and router.given is not None:
        inside.missing["mlp_act"] = NO_HIDDEN
        inside.add("router", router, note=f"scores of {router.given.shape[-1]} experts, before they are normalized and the best chosen")
        routed = routed_of(block, branch, counts, router)
        if isinstance(routed, str):
            inside.untold["experts_out"] = routed
        else:
            inside.add("experts_out", routed, note="the routed experts' sum, without what else the MLP adds (a shared expert)")
        return
    down = output_projection(block, branch)
    if down is not None:
        inside.add("mlp_act", down, "in", note="what the down projection reads (after the gate, where there is one)")
        return
    inside.missing["mlp_act"] = (
        "the MLP has no single down projection whose output is what it adds (a mixture of experts, a later gate, or a fused kernel)"
    )
    if counts:
        inside.missing["router"] = "no module of this mixture of experts returns one score for each expert"


def _lacks(inside: Inside, block: Block, branches: dict[Place, Branch]) -> None:
    """Reasons for the names that a block without attention, or without an MLP, cannot have."""
    mixer = branches.get("mixer")
    if "attn" not in branches:
        kind = block.worker(mixer) if mixer is not None else ""
        reason = f"no attention: {kind} mixes the positions of this block; read mixer_out" if kind else "this block is an MLP only"
        inside.missing.update(dict.fromkeys(("q", "k", "v", "z", "attn_out"), reason))
        if not kind:
            inside.untold["mixer_out"] = reason
    if "mlp" not in branches:
        what = block.worker(mixer) if mixer is not None else "attention"
        inside.missing.update(dict.fromkeys(("mlp_act", "mlp_out"), f"no MLP: {what} is all that this block adds"))
    for name, reason in _RARE.items():
        if name not in inside.sites and name not in inside.missing:
            inside.untold.setdefault(name, reason)
