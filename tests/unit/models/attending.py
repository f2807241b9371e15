"""Models that attend in every way, their own weights, and what the tests of attention patterns share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from .conftest import SMALL, SOUND, TOKENS, seeded

T = 7
IDS = torch.randint(3, 50, (2, T), generator=torch.Generator().manual_seed(3))
RIGHT, LEFT = torch.ones(2, T, dtype=torch.long), torch.ones(2, T, dtype=torch.long)
RIGHT[1, 4:] = 0
LEFT[1, :3] = 0


def make_gpt2() -> Any:
    from transformers import GPT2Config, GPT2Model

    return GPT2Model(GPT2Config(n_layer=2, n_embd=16, n_head=4, n_positions=32, **TOKENS))


def make_llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2, **TOKENS))


def make_mistral() -> Any:
    from transformers import MistralConfig, MistralModel

    return MistralModel(MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=3, **TOKENS))


def make_qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3Model

    return Qwen3Model(Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8, **TOKENS))


def make_gpt_neox() -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXModel

    return GPTNeoXModel(GPTNeoXConfig(**{**SMALL, "hidden_size": 32}, rotary_pct=0.5, **TOKENS))


def make_gemma2() -> Any:
    from transformers import Gemma2Config, Gemma2Model

    sizes = {**SMALL, "num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 4, "sliding_window": 3}
    return Gemma2Model(Gemma2Config(**sizes, attn_logit_softcapping=0.5, query_pre_attn_scalar=4, **TOKENS))


def make_bert() -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**SMALL, vocab_size=50))


def make_deberta() -> Any:
    from transformers import DebertaV2Config, DebertaV2Model

    positions = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_position_embeddings": 32, "position_buckets": 4}
    return DebertaV2Model(DebertaV2Config(**{**SMALL, "num_hidden_layers": 2}, **positions, vocab_size=50, pad_token_id=0))


def make_t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4, "relative_attention_num_buckets": 8}
    return T5EncoderModel(T5Config(**sizes, vocab_size=50, pad_token_id=0))


def make_vit() -> Any:
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig(**SMALL, image_size=8, patch_size=4))


def make_wav2vec2() -> Any:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    return Wav2Vec2Model(Wav2Vec2Config(**SOUND, feat_extract_norm="layer", do_stable_layer_norm=True))


def make_gpt_oss() -> Any:
    from transformers import GptOssConfig, GptOssModel

    sizes = {**SMALL, "num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 4, "sliding_window": 3, "num_local_experts": 2}
    return GptOssModel(GptOssConfig(**sizes, num_experts_per_tok=1, **TOKENS))


def make_whisper() -> Any:
    from transformers import WhisperConfig, WhisperModel

    sizes = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 2}
    rest = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 8, "max_source_positions": 6, "max_target_positions": 12}
    ends = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    return WhisperModel(WhisperConfig(**sizes, **rest, **ends, vocab_size=50))


TEXT: dict[str, Callable[[], Any]] = {
    "gpt2": make_gpt2,
    "llama": make_llama,
    "mistral": make_mistral,
    "qwen3": make_qwen3,
    "gpt_neox": make_gpt_neox,
    "gemma2": make_gemma2,
    "bert": make_bert,
    "deberta": make_deberta,
    "t5": make_t5,
    "gpt_oss": make_gpt_oss,
}
SINGLE = ("bert", "deberta", "t5")  # left padding is nothing that these are made for


def patterns(model: Any, batch: Any, sites: Any = "blocks.*.attn_pattern") -> dict[str, Tensor]:
    """What the asked sites give for one batch."""
    got: dict[str, Tensor] = {}
    with model.hooked(sites, lambda name, x: got.__setitem__(name, x)):
        model.run(batch)
    return got


def eager_weights(make: Callable[[], Any], batch: dict[str, Tensor], name: str = "attentions") -> list[Tensor]:
    """What a twin with eager attention returns for `output_attentions=True`."""
    twin = seeded(make)
    twin.set_attn_implementation("eager")
    with torch.no_grad():
        return list(getattr(twin(**batch, output_attentions=True), name))


def clean() -> bool:
    """Whether no function mode is pushed."""
    return _get_current_function_mode_stack() == []


class Rows(nn.Module):
    """Attention written by hand, in one of the ways in which people write it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.heads = how, 2
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.soft = nn.Softmax(dim=-1)
        self.weights: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)  # [b, h, t, d] each
        scores = q @ k.mT / 2 + torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1)
        if self.how == "matmul":
            self.weights = torch.softmax(scores, -1)
            z = self.weights @ v
        elif self.how == "module":
            self.weights = self.soft(scores)
            z = torch.matmul(self.weights, v)
        elif self.how == "einsum":
            self.weights = scores.softmax(dim=3)
            z = torch.einsum("bhqk,bhkd->bhqd", self.weights, v)
        elif self.how == "folded":
            folded = F.softmax(scores.flatten(0, 1), dim=-1)
            self.weights = folded.unflatten(0, (-1, 2))
            z = torch.bmm(folded, v.flatten(0, 1)).unflatten(0, (-1, 2))
        elif self.how == "in place":
            gone = scores.softmax(-1)
            self.weights = gone.clone()
            gone.mul_(0.5)
            z = 2 * gone @ v
        elif self.how == "sdpa folded":
            z = F.scaled_dot_product_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), is_causal=True).unflatten(0, (-1, 2))
            self.weights = scores.softmax(-1)
        elif self.how == "sum":  # no product at all
            self.weights = scores.softmax(-1)
            z = (self.weights[..., None] * v[:, :, None]).sum(-2)
        else:  # a gate of its own beside attention
            gate = (x @ x.mT).softmax(-1).mean(-1)
            self.weights = scores.softmax(-1)
            z = (self.weights @ v) * gate[:, None, :, None]
        return self.out(z.transpose(1, 2).flatten(-2))
