"""Tiny models of two stacks, with all weights random."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from tests.families.catalog import SIZES, seeded
from tests.families.tokenizer import VOCABULARY

ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BOTH = {
    f"{side}_{name}": count for side in ("encoder", "decoder") for name, count in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 32))
}


def pictures(count: int = 4) -> list[np.ndarray]:
    """Images [3, 8, 8]."""
    return list(np.random.default_rng(0).normal(size=(count, 3, 8, 8)).astype(np.float32))


def _t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4}
    return T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, pad_token_id=0, eos_token_id=2, **sizes))


def _whisper() -> Any:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sizes = {"d_model": 16, "num_mel_bins": 8, "max_source_positions": 50, "max_target_positions": 32, "vocab_size": VOCABULARY}
    return WhisperForConditionalGeneration(
        WhisperConfig(decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None, **sizes, **BOTH, **ENDS)
    )


def _clip() -> Any:
    from transformers import CLIPConfig, CLIPModel

    text = {**SIZES, **ENDS, "vocab_size": VOCABULARY, "max_position_embeddings": 64}
    return CLIPModel(CLIPConfig(text_config=text, vision_config={**SIZES, "image_size": 8, "patch_size": 4}, projection_dim=12))


def _siglip() -> Any:
    from transformers import SiglipConfig, SiglipModel

    text = {**SIZES, **ENDS, "vocab_size": VOCABULARY, "max_position_embeddings": 24, "projection_size": 16}
    return SiglipModel(SiglipConfig(text_config=text, vision_config={**SIZES, "image_size": 8, "patch_size": 4}))


def _llava() -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(**SIZES, image_size=8, patch_size=4)
    text = LlamaConfig(**SIZES, **ENDS, vocab_size=VOCABULARY, max_position_embeddings=64)
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_id=3, vision_feature_layer=-2))


@cache
def module(name: str) -> Any:
    """One of "t5", "whisper", "clip", "siglip", "llava"; the same every time."""
    return seeded({"t5": _t5, "whisper": _whisper, "clip": _clip, "siglip": _siglip, "llava": _llava}[name])


def hooked(part: Any, run: Any) -> torch.Tensor:
    """What a hook on `part` sees while `run` runs."""
    seen: list[Any] = []
    handle = part.register_forward_hook(lambda m, args, out: seen.append((out if torch.is_tensor(out) else out[0]).clone()))
    with torch.no_grad():
        run()
    handle.remove()
    return seen[-1]
