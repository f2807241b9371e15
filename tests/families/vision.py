"""Models that see."""

from __future__ import annotations

import torch

from tests.families.catalog import SIZES, TRANSFORMER, Family, images


def _vit():
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig(**SIZES, image_size=8, patch_size=4), add_pooling_layer=False)


FAMILIES = [
    Family(
        "ViT",
        _vit,
        images,
        sites=("embed", *TRANSFORMER, "final_norm"),
        lacks={"logits": "loaded without a head"},
        sides=(),
        by_hand=lambda module: module(pixel_values=torch.from_numpy(images()[:1])),
    ),
]
