"""A language model whose loss explodes, after the inputs of its layers have all come to lie on one side of what these stretch most."""

from __future__ import annotations

from inscape.zoo.collapses.base import TrainingRun, collapsing
from inscape.zoo.collapses.language import ramped_gpt


@collapsing("explosion")
def explosion(healthy: bool, seed: int) -> TrainingRun:
    """A tiny GPT under a learning rate that grows a thousandfold: signs of spectral alignment agree first (Qiu et al. 2025)."""
    model, update, held_out, accuracy = ramped_gpt(None if healthy else 3.0, seed)
    linear = {name: layer for name, layer in model.named_modules() if name.endswith(("attn.q", "attn.out", "mlp.up", "mlp.down"))}
    weights = {f"{name}:in": layer for name, layer in linear.items()}
    watched = (tuple(weights), ("spectral_alignment",))
    return TrainingRun(model, update, 400, held_out, *watched, accuracy, "next-token accuracy", weights=weights, pooled=True)
