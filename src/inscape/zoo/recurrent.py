"""A small recurrent language model with the same outside as `GPT`: the second architecture that comparisons need."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class RecurrentBlock(nn.Module):
    """One layer: a GRU reads the normalized residual stream and adds to it."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.gru = nn.GRU(d, d, batch_first=True)
        self.out = nn.Linear(d, d)

    def forward(self, x: Float[Tensor, "b t d"], order: Tensor | None = None) -> Float[Tensor, "b t d"]:
        """The residual stream after this layer; `order` [b, t] lists real tokens before padding ones."""
        h = self.norm(x)
        if order is not None:
            # A recurrent state must not pass through padding, so real tokens go first and come back to their places.
            where = order[..., None].expand_as(h)
            z, _ = self.gru(h.gather(1, where))
            z = torch.zeros_like(z).scatter(1, where, z)
        else:
            z, _ = self.gru(h)
        return x + self.out(z)


class RecurrentLM(nn.Module):
    """A stack of residual GRU layers as a language model; no positions, no attention.

    Args:
        vocab: number of token ids.
        d: width of the residual stream and of every state.
        layers: number of blocks.

    Example:
        >>> model = RecurrentLM(vocab=258, d=32, layers=2)
        >>> model(torch.zeros(1, 8, dtype=torch.long)).shape
        torch.Size([1, 8, 258])
    """

    def __init__(self, vocab: int, d: int = 64, layers: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, d)
        self.blocks = nn.ModuleList(RecurrentBlock(d) for _ in range(layers))
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, vocab, bias=False)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: Int[Tensor, "b t"], attention_mask: Int[Tensor, "b t"] | None = None) -> Float[Tensor, "b t v"]:
        """Logits of the next token at every position; `attention_mask` is 1 on real tokens, 0 on padding (either side)."""
        order = None if attention_mask is None else (1 - attention_mask.long()).argsort(dim=1, stable=True)
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x, order)
        return self.head(self.norm(x))
