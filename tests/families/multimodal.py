"""Models that read texts and images."""

from __future__ import annotations

from typing import Any

import torch

from tests.families.catalog import SIZES, TRANSFORMER, Family, images
from tests.families.tokenizer import VOCABULARY, make_tokenizer, texts
from tests.families.vision import PATCHES

ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
WORDS = {**SIZES, "vocab_size": VOCABULARY, "max_position_embeddings": 24, **ENDS}
TEXT = tuple(f"text.{name}" for name in ("embed", *TRANSFORMER, "final_norm", "embedding"))
VISION = tuple(f"vision.{name}" for name in ("embed", *TRANSFORMER, "final_norm"))
COUNT = 4
WIDTH = 12  # tokens of the first caption, and of every text that SigLIP reads
NO_SCORES = {"logits": "a dual encoder scores every text against every image"}
IMAGE = VOCABULARY - 1  # the token that stands for an image


def _clip():
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(CLIPConfig(text_config=WORDS, vision_config=PATCHES, projection_dim=12))


def _siglip():
    from transformers import SiglipConfig, SiglipModel

    return SiglipModel(SiglipConfig(text_config={**WORDS, "projection_size": 16, "max_position_embeddings": WIDTH}, vision_config=PATCHES))


def _llava():
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**PATCHES),
        text_config=LlamaConfig(**{**WORDS, "num_key_value_heads": 2, "max_position_embeddings": 64}),
        image_token_index=IMAGE,
    )
    return LlavaForConditionalGeneration(config)


def _qwen2_vl():
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    rotary = {"rope_type": "default", "mrope_section": [1, 1, 0], "rope_theta": 1e4}
    config = Qwen2VLConfig(
        text_config={**WORDS, "num_key_value_heads": 2, "max_position_embeddings": 64, "rope_parameters": rotary},
        vision_config={"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 4, "patch_size": 4, "mlp_ratio": 2},
        image_token_id=IMAGE,
        video_token_id=IMAGE - 1,
        vision_start_token_id=IMAGE - 2,
        vision_end_token_id=IMAGE - 3,
    )
    return Qwen2VLForConditionalGeneration(config)


def captions() -> list[str]:
    """Texts that none of the tokens for images is in."""
    return texts((WIDTH - 2, 2, 9, 3))[:COUNT]


def pairs() -> dict[str, Any]:
    """Images, each with a text."""
    return {"text": captions(), "image": list(images(COUNT))}


def _ids() -> torch.Tensor:
    return make_tokenizer(special=True)(captions()[0], return_tensors="pt")["input_ids"]


def _pixels() -> torch.Tensor:
    return torch.from_numpy(images(COUNT)[:1])


def _llava_reads(module: torch.nn.Module) -> object:
    """The image's four positions stand behind the token that opens the text."""
    ids = _ids()
    return module(input_ids=torch.cat([ids[:, :1], torch.full((1, 4), IMAGE), ids[:, 1:]], 1), pixel_values=_pixels())


FAMILIES = [
    Family(
        "CLIP",
        _clip,
        pairs,
        load={"tokenizer": make_tokenizer(special=True)},
        sites=(*TEXT, *VISION, "vision.embedding"),
        lacks=NO_SCORES,
        sides=("right",),
        by_hand=lambda module: module(input_ids=_ids(), pixel_values=_pixels()),
        note="Texts alone run the text tower alone, images the other; `vision.final_norm` is that of the class token.",
    ),
    Family(
        "SigLIP",
        _siglip,
        pairs,
        load={"tokenizer": make_tokenizer(special=True)},
        sites=(*TEXT, *VISION, "vision.embedding"),
        lacks=NO_SCORES,
        sides=("right",),
        by_hand=lambda module: module(input_ids=_ids(), pixel_values=_pixels()),
        note="Every text is padded to the length of its training, and read without a mask, as it was trained.",
    ),
    Family(
        "LLaVA",
        _llava,
        pairs,
        load={"tokenizer": make_tokenizer(special=True)},
        sites=("embed", *TRANSFORMER, "final_norm", "logits", *VISION),
        sides=("right", "left"),
        by_hand=_llava_reads,
        note="`blocks.*` is the language model, over text and the image's tokens among it.",
    ),
    Family(
        "Qwen2-VL",
        _qwen2_vl,
        captions,
        load={"tokenizer": make_tokenizer(special=False)},
        sites=("embed", *TRANSFORMER, "final_norm", "logits"),
        note="Its vision tower lays the patches of all images in one row, so that they have no axis of stimuli: name its modules by path.",
    ),
]
