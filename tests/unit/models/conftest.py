"""Tiny models with random weights, one per family; each is built once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 32}
TOKENS = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
SOUND = {
    **SMALL,
    "conv_dim": (8, 8),
    "conv_kernel": (4, 4),
    "conv_stride": (2, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}


def seeded(make: Any) -> nn.Module:
    """A module whose weights are all random, biases and norms included, so that no term vanishes by chance."""
    torch.manual_seed(0)
    module = make()
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module.eval()


@pytest.fixture(scope="session")
def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return seeded(lambda: GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=16, n_head=4, n_positions=32, **TOKENS)))


@pytest.fixture(scope="session")
def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return seeded(lambda: LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2, **TOKENS)))


@pytest.fixture(scope="session")
def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    return seeded(lambda: BertModel(BertConfig(**SMALL, vocab_size=50)))


@pytest.fixture(scope="session")
def vit() -> nn.Module:
    from transformers import ViTConfig, ViTModel

    return seeded(lambda: ViTModel(ViTConfig(**SMALL, image_size=8, patch_size=4)))


@pytest.fixture(scope="session")
def wav2vec2_layer() -> nn.Module:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    return seeded(lambda: Wav2Vec2Model(Wav2Vec2Config(**SOUND, feat_extract_norm="layer", do_stable_layer_norm=True)))


@pytest.fixture(scope="session")
def wav2vec2_group() -> nn.Module:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    return seeded(lambda: Wav2Vec2Model(Wav2Vec2Config(**SOUND, feat_extract_norm="group")))


class PlainBlock(nn.Module):
    """A hand-written pre-norm block with names of its own and a fused projection."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(d, 3 * d), "proj": nn.Linear(d, d)})
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.attn["qkv"](self.norm1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        z = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        x = x + self.attn["proj"](z)
        return x + self.mlp(self.norm2(x))


class PlainGPT(nn.Module):
    """A hand-written GPT in pure torch; `num_heads` is where many people put it."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.tokens, self.places = nn.Embedding(50, 16), nn.Embedding(32, 16)
        self.layers = nn.ModuleList(PlainBlock(16, 4) for _ in range(3))
        self.last = nn.LayerNorm(16)
        self.head = nn.Linear(16, 50)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.last(x))


@pytest.fixture(scope="session")
def plain_gpt() -> nn.Module:
    return seeded(PlainGPT)


@dataclass
class Answer:
    """A dataclass as a module may return one."""

    label: str
    states: torch.Tensor


def footprint(module: nn.Module) -> dict[str, Any]:
    """Everything that a hook or edit could have left on a module."""
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    hooks = {
        (path, name): len(table)
        for path, part in module.named_modules()
        for name, table in vars(part).items()
        if "hooks" in name and isinstance(table, dict)
    }
    names = {path: sorted(vars(part)) for path, part in module.named_modules()}
    training = {path: part.training for path, part in module.named_modules()}
    return {"state": state, "hooks": hooks, "names": names, "training": training}


def same_footprint(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether nothing differs between two footprints, bit for bit."""
    states = a["state"].keys() == b["state"].keys() and all(torch.equal(a["state"][name], b["state"][name]) for name in a["state"])
    return states and all(a[part] == b[part] for part in ("hooks", "names", "training"))
