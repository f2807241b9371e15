"""Names of sites: what users of TransformerLens type, globs, and the nearest names when one is unknown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

# TransformerLens name -> canonical name, inside one block.
BLOCK_ALIASES = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "mlp.hook_post": "mlp_act",
    "attn.hook_q": "q",
    "attn.hook_k": "k",
    "attn.hook_v": "v",
    "attn.hook_z": "z",
    "attn.hook_pattern": "attn_pattern",
    "hook_cross_attn_out": "cross_attn_out",
    "hook_resid_mid_cross": "resid_mid_cross",
}
# In the order in which a block computes them.
CANONICAL_BLOCK = (
    *("resid_pre", "q", "k", "v", "attn_pattern", "z", "attn_out", "mixer_out", "resid_mid", "cross_attn_out", "resid_mid_cross"),
    *("router", "experts_out", "mlp_act", "mlp_out", "resid_post"),
)
_TO_ALIAS = {canonical: alias for alias, canonical in BLOCK_ALIASES.items()}
_ON_REQUEST = "attn_pattern"
_BLOCK = re.compile(r"^((?:.+\.)?)blocks\.([^.]+)\.(.+)$")
_STACK = re.compile(r"^(encoder|decoder)\.([^.]+)\.(.*hook_.+)$")  # as TransformerLens calls the blocks of an encoder-decoder


def to_canonical(name: str) -> str:
    """The canonical spelling of a TransformerLens name; any other name comes back as it is."""
    if name == "ln_final.hook_normalized":
        return "final_norm"
    match = _BLOCK.match(name)
    if match and match.group(3) in BLOCK_ALIASES:
        return f"{match.group(1)}blocks.{match.group(2)}.{BLOCK_ALIASES[match.group(3)]}"
    match = _STACK.match(name)
    if match and match.group(3) in BLOCK_ALIASES:
        return f"{match.group(1)}.blocks.{match.group(2)}.{BLOCK_ALIASES[match.group(3)]}"
    return name


def to_alias(name: str) -> str:
    """The TransformerLens name of a canonical site, or an empty string."""
    if name == "final_norm":
        return "ln_final.hook_normalized"
    match = _BLOCK.match(name)
    if match and match.group(3) in _TO_ALIAS and match.group(1) in ("", "decoder."):
        return f"{match.group(1) or 'blocks.'}{match.group(2)}.{_TO_ALIAS[match.group(3)]}"
    return ""


def in_order(name: str) -> tuple[int, int, int]:
    """Sorting key of a canonical name: from the embedding through the blocks to the logits."""
    match = _BLOCK.match(name)
    if match:
        return 1, int(match.group(2)), CANONICAL_BLOCK.index(match.group(3))
    return {"embed": 0, "final_norm": 2}.get(name, 3), 0, 0


def is_glob(name: str) -> bool:
    """Whether a name stands for several."""
    return any(sign in name for sign in "*?[")


def matches(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a glob selects, in their order; `*` stays within one dotted part, `**` crosses dots.

    Attention patterns are large and cost time, so a glob selects them only where its own last part is their name.
    """
    parts = pattern.split(".")
    found = [name for name in names if _match(parts, name.split("."))]
    return found if parts[-1] == _ON_REQUEST else [name for name in found if not name.endswith(f".{_ON_REQUEST}")]


def _match(pattern: list[str], parts: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_match(pattern[1:], parts[i:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _match(pattern[1:], parts[1:])
