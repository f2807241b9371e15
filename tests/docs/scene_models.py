"""Small local stand-ins for the models of several stacks that the pages name, saved as Hugging Face saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
ENDS = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}


def save_models(folder: Path, tokenizer: Any) -> None:
    """`google-t5/t5-small`, `openai/clip-vit-base-patch32`, `openai/whisper-tiny` and `llava-hf/llava-1.5-7b-hf`, with random weights."""
    import torch

    torch.manual_seed(0)
    # Their own tokenizer, which has a word for an image and a token to pad with.
    tokenizer.add_special_tokens({"pad_token": "<|endoftext|>", "additional_special_tokens": ["<image>"]})
    vocabulary = len(tokenizer)
    _t5(folder / "google-t5" / "t5-small", tokenizer, vocabulary)
    _clip(folder / "openai" / "clip-vit-base-patch32", tokenizer, vocabulary)
    _whisper(folder / "openai" / "whisper-tiny", tokenizer, vocabulary)
    _llava(folder / "llava-hf" / "llava-1.5-7b-hf", tokenizer, vocabulary)


def _t5(path: Path, tokenizer: Any, vocabulary: int) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4}
    T5ForConditionalGeneration(T5Config(vocab_size=vocabulary, decoder_start_token_id=0, **ENDS, **sizes)).save_pretrained(path)
    tokenizer.save_pretrained(path)


def _clip(path: Path, tokenizer: Any, vocabulary: int) -> None:
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor

    text = {**SIZES, **ENDS, "vocab_size": vocabulary, "max_position_embeddings": 64}
    CLIPModel(CLIPConfig(text_config=text, vision_config={**SIZES, "image_size": 8, "patch_size": 4}, projection_dim=12)).save_pretrained(
        path
    )
    CLIPProcessor(image_processor=_pictures(), tokenizer=tokenizer).save_pretrained(path)


def _whisper(path: Path, tokenizer: Any, vocabulary: int) -> None:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    both = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 32))}
    sizes = {"d_model": 16, "num_mel_bins": 8, "max_source_positions": 50, "max_target_positions": 32, "vocab_size": vocabulary}
    config = WhisperConfig(decoder_start_token_id=0, suppress_tokens=None, begin_suppress_tokens=None, **ENDS, **sizes, **both)
    WhisperForConditionalGeneration(config).save_pretrained(path)
    WhisperFeatureExtractor(feature_size=8, sampling_rate=16000, chunk_length=1).save_pretrained(path)
    tokenizer.save_pretrained(path)


def _llava(path: Path, tokenizer: Any, vocabulary: int) -> None:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    vision = CLIPVisionConfig(**SIZES, image_size=8, patch_size=4)
    text = LlamaConfig(**SIZES, **ENDS, vocab_size=vocabulary, max_position_embeddings=64)
    token = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=token, image_seq_length=4, vision_feature_layer=-2)
    LlavaForConditionalGeneration(config).save_pretrained(path)
    patches = {"patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    LlavaProcessor(image_processor=_pictures(), tokenizer=tokenizer, **patches).save_pretrained(path)


def _pictures() -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"height": 8, "width": 8}, crop_size={"height": 8, "width": 8}, do_center_crop=False)
