"""Tiny random models of every kind, and a tokenizer whose ids can be counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.families.tokenizer import WORDS, make_tokenizer, words  # noqa: F401


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=16, n_head=2, vocab_size=44, n_positions=64, **ends))


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=44, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes))


def _bert() -> Any:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    return BertModel(BertConfig(vocab_size=44, max_position_embeddings=64, **sizes))


def _roberta() -> Any:
    from transformers import RobertaConfig, RobertaModel

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return RobertaModel(RobertaConfig(vocab_size=44, max_position_embeddings=66, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes))


def _vit() -> Any:
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return ViTModel(ViTConfig(image_size=8, patch_size=4, **sizes), add_pooling_layer=False)


def _wav2vec2(norm: str) -> Any:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    conv = {"conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    return Wav2Vec2Model(
        Wav2Vec2Config(feat_extract_norm=norm, do_stable_layer_norm=norm == "layer", vocab_size=8, **sizes, **conv, **positions)
    )


@pytest.fixture(scope="session")
def make() -> Callable[[str], Any]:
    """Makes a tiny random module by name; the same one every time."""
    makers: dict[str, Callable[[], Any]] = {
        "gpt2": _gpt2,
        "llama": _llama,
        "bert": _bert,
        "roberta": _roberta,
        "vit": _vit,
        "wav2vec2-layer": lambda: _wav2vec2("layer"),
        "wav2vec2-group": lambda: _wav2vec2("group"),
    }
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            torch.manual_seed(7)
            made[name] = makers[name]().eval()
        return made[name]

    return get


@pytest.fixture(scope="session")
def plain_tokenizer() -> Any:
    """Adds no special token."""
    return make_tokenizer(special=False)


@pytest.fixture(scope="session")
def bert_tokenizer() -> Any:
    """Puts [CLS] and [SEP] around a text."""
    return make_tokenizer(special=True)
