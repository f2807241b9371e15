"""A language model whose learning rate grows until its attention sticks to single tokens."""

from __future__ import annotations

from inscape.zoo.collapses.base import TrainingRun, collapsing
from inscape.zoo.collapses.language import ramped_gpt


@collapsing("attention")
def attention(healthy: bool, seed: int) -> TrainingRun:
    """A tiny GPT under a learning rate that grows a hundredfold: the entropy of attention collapses (Zhai et al. 2023)."""
    model, update, held_out, accuracy = ramped_gpt(None if healthy else 0.3, seed)
    sites = ("blocks.*.attn_pattern|entropy",)
    return TrainingRun(model, update, 400, held_out, sites, ("attention_entropy",), accuracy, "next-token accuracy")
