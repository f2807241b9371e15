"""Models that see."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.families.catalog import SIZES, TRANSFORMER, Family, images

_CONV = "a convolutional block has no attention"
PATCHES = {**SIZES, "image_size": 8, "patch_size": 4}
_DINO = {name: value for name, value in PATCHES.items() if name != "intermediate_size"}


def stages(*depths: int) -> tuple[str, ...]:
    """Input and output of every block of a network in stages."""
    return tuple(
        f"stages.{i}.blocks.{j}.{end}" for i, depth in enumerate(depths) for j in range(depth) for end in ("resid_pre", "resid_post")
    )


def _vit():
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig(**PATCHES), add_pooling_layer=False)


def _vit_classifier():
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**SIZES, image_size=[8, 12], patch_size=4, num_channels=1, num_labels=5))


def _dinov2():
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(**_DINO, mlp_ratio=2))


def _dinov2_registers():
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    return Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**_DINO, mlp_ratio=2, num_register_tokens=3))


def _convnext():
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(hidden_sizes=[4, 6, 8, 10], depths=[1, 2, 1, 1], patch_size=1, num_labels=5, image_size=16)
    return ConvNextForImageClassification(config)


def _resnet():
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6, 8], depths=[2, 1, 2], layer_type="basic", num_labels=5)
    return ResNetForImageClassification(config)


def _swin():
    from transformers import SwinConfig, SwinForImageClassification

    return SwinForImageClassification(SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=4))


class PlainConvolutions(nn.Module):
    """A network as one writes it oneself: convolutions, a pooled vector, a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.down = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.mix = nn.Linear(6, 6)  # over channels, which stand last here
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(self.stem(x).relu())
        x = x + self.mix(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


def _pixels(size: int = 8, channels: int = 3, width: int | None = None) -> Tensor:
    whole = images(size=max(size, width or size), channels=channels)
    return torch.from_numpy(whole[:1, :, :size, : width or size].copy())


FAMILIES = [
    Family(
        "ViT",
        _vit,
        images,
        sites=("embed", *TRANSFORMER, "final_norm"),
        lacks={"logits": "loaded without a head"},
        sides=(),
        by_hand=lambda module: module(pixel_values=_pixels()),
    ),
    Family(
        "ViT classifier",
        _vit_classifier,
        lambda: images(size=12, channels=1)[:, :, :8],
        sites=("embed", *TRANSFORMER, "final_norm", "logits"),
        sides=(),
        by_hand=lambda module: module(pixel_values=_pixels(8, 1, 12)),
        note="Pictures that are no squares, of one channel.",
    ),
    Family(
        "DINOv2",
        _dinov2,
        images,
        sites=("embed", *TRANSFORMER, "final_norm"),
        lacks={"logits": "loaded without a head"},
        sides=(),
        by_hand=lambda module: module(pixel_values=_pixels()),
        note="`attn_out` and `mlp_out` are behind the layer scale: what is added to the stream.",
    ),
    Family(
        "DINOv2 with registers",
        _dinov2_registers,
        images,
        sites=("embed", *TRANSFORMER, "final_norm"),
        lacks={"logits": "loaded without a head"},
        sides=(),
        by_hand=lambda module: module(pixel_values=_pixels()),
        note="The class token and the registers stand before the patches.",
    ),
    Family(
        "ConvNeXt",
        _convnext,
        lambda: images(size=16),
        sites=("embed", *stages(1, 2, 1, 1), "final_norm", "logits"),
        lacks={"stages.*.blocks.*.q": _CONV, "stages.*.blocks.*.mlp_out": _CONV},
        sides=(),
        by_hand=lambda module: module(pixel_values=_pixels(16)),
        note="Stages of different width: `stages.i.blocks.j`, rows are places of the map.",
    ),
    Family(
        "ResNet",
        _resnet,
        lambda: images(size=32),
        sites=("embed", *stages(2, 1, 2), "logits"),
        lacks={"stages.*.blocks.*.attn_out": _CONV, "final_norm": "no norm follows the last block"},
        sides=(),
        by_hand=lambda module: module(pixel_values=_pixels(32)),
        note="`resid_post` is behind the activation that follows the sum.",
    ),
    Family(
        "Swin",
        _swin,
        lambda: images(size=16),
        sites=(
            *("embed", "final_norm", "logits"),
            *(f"stages.{i}.blocks.1.{name}" for i in (0, 1) for name in "resid_pre attn_out resid_mid mlp_act mlp_out resid_post".split()),
        ),
        lacks={"stages.0.blocks.1.q": "within windows", "stages.0.blocks.1.attn_pattern": "within windows"},
        sides=(),
        by_hand=lambda module: module(pixel_values=_pixels(16)),
    ),
    Family(
        "a convolutional network by hand",
        PlainConvolutions,
        images,
        sites=("logits",),
        sides=(),
        by_hand=lambda module: module(_pixels()),
        note="No stack of equal blocks: modules are named by their paths.",
    ),
]
