"""A small GPT, written to be read: pre-norm blocks, learned positions, tied input and output embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention with separate query, key, value and output projections."""

    def __init__(self, d: int, heads: int, causal: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.q = nn.Linear(d, d)
        self.k = nn.Linear(d, d)
        self.v = nn.Linear(d, d)
        self.out = nn.Linear(d, d)

    def forward(self, x: Float[Tensor, "b t d"], allowed: Tensor | None = None) -> Float[Tensor, "b t d"]:
        """Mixes tokens; `allowed` [b, 1, t, t] marks what a position may look at; `None` means the past, or all if not causal."""
        b, t, d = x.shape
        q, k, v = (part(x).view(b, t, self.heads, d // self.heads).transpose(1, 2) for part in (self.q, self.k, self.v))
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=self.causal and allowed is None)
        return self.out(z.transpose(1, 2).reshape(b, t, d))


class MLP(nn.Module):
    """Two linear maps around a GELU, four times as wide inside."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.up = nn.Linear(d, 4 * d)
        self.act = nn.GELU()
        self.down = nn.Linear(4 * d, d)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Works on each token by itself."""
        return self.down(self.act(self.up(x)))


class Block(nn.Module):
    """One layer: both parts read a normalized residual stream and add to it."""

    def __init__(self, d: int, heads: int, causal: bool = True) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(d)
        self.attn = Attention(d, heads, causal)
        self.norm2 = nn.LayerNorm(d)
        self.mlp = MLP(d)

    def forward(self, x: Float[Tensor, "b t d"], allowed: Tensor | None = None) -> Float[Tensor, "b t d"]:
        """The residual stream after this layer."""
        x = x + self.attn(self.norm1(x), allowed)
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """A decoder-only transformer language model.

    Args:
        vocab: number of token ids.
        d: width of the residual stream.
        layers: number of blocks.
        heads: attention heads per block; must divide `d`.
        context: longest sequence, in tokens.

    Example:
        >>> model = GPT(vocab=259, d=32, layers=2, heads=2, context=16)
        >>> model(torch.zeros(1, 8, dtype=torch.long)).shape
        torch.Size([1, 8, 259])
    """

    def __init__(self, vocab: int, d: int = 64, layers: int = 4, heads: int = 4, context: int = 64) -> None:
        super().__init__()
        if d % heads:
            raise ValueError(f"the width d={d} cannot be cut into {heads} heads; choose a d that is a multiple of heads")
        self.context = context
        self.embed = nn.Embedding(vocab, d)
        self.pos = nn.Embedding(context, d)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, vocab, bias=False)
        self.apply(_start_small)
        for block in self.blocks:
            # Every block adds twice to the stream, so its share shrinks with depth and the sum keeps its size.
            for layer in (block.attn.out, block.mlp.down):  # type: ignore[union-attr]
                nn.init.normal_(layer.weight, std=0.02 / (2 * layers) ** 0.5)  # type: ignore[union-attr]
        self.head.weight = self.embed.weight

    def forward(
        self,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Int[Tensor, "b t"] | None = None,
        position_ids: Int[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t v"]:
        """Logits of the next token at every position.

        Args:
            input_ids: token ids.
            attention_mask: 1 on real tokens, 0 on padding (either side); `None` when all tokens are real.
            position_ids: position of each token; by default counted over the real tokens.
        """
        if input_ids.shape[1] > self.context:
            raise ValueError(f"the input has {input_ids.shape[1]} tokens; this model was built for at most {self.context}")
        allowed = None
        if position_ids is None:
            real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            position_ids = (real.cumsum(1) - 1).clamp(min=0)
        if attention_mask is not None:
            t = input_ids.shape[1]
            causal = torch.ones(t, t, dtype=torch.bool, device=input_ids.device).tril()
            # The diagonal stays open, so a padding row attends to itself and never divides by zero.
            seen = attention_mask.bool()[:, None, None, :] | torch.eye(t, dtype=torch.bool, device=input_ids.device)
            allowed = causal & seen
        x = self.embed(input_ids) + self.pos(position_ids)
        for block in self.blocks:
            x = block(x, allowed)
        return self.head(self.norm(x))


def _start_small(layer: nn.Module) -> None:
    """GPT-2's start: small normal weights, zero biases."""
    if isinstance(layer, (nn.Linear, nn.Embedding)):
        nn.init.normal_(layer.weight, std=0.02)
    if isinstance(layer, nn.Linear) and layer.bias is not None:  # type: ignore[redundant-expr]
        nn.init.zeros_(layer.bias)
