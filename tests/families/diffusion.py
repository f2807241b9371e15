"""Models that take noise out of images, at the timestep that each row of the table states."""

from __future__ import annotations

from typing import Any

import torch

from tests.families.catalog import Family, images

# Of one block; the gates of a block that is modulated from outside stand between its branches and the stream.
GATED = "the block is not a sum"


def noised() -> dict[str, Any]:
    """Images at timesteps, two of them twice."""
    return {
        "image": [*images(4), *images(2)],
        "timestep": [10, 400, 900, 50, 700, 20],
        "class_labels": [0, 1, 2, 3, 0, 1],
        "id": ["a", "b", "c", "d", "a", "b"],
    }


def _dit() -> torch.nn.Module:
    from diffusers import DiTTransformer2DModel

    sizes = {"num_attention_heads": 4, "attention_head_dim": 4, "num_layers": 3, "sample_size": 8, "patch_size": 2, "norm_num_groups": 4}
    return DiTTransformer2DModel(in_channels=3, out_channels=3, num_embeds_ada_norm=10, **sizes)


def _unet() -> torch.nn.Module:
    from diffusers import UNet2DModel

    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    return UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        attention_head_dim=4, num_class_embeds=10, **blocks,
    )  # fmt: skip


def _zoo() -> torch.nn.Module:
    from inscape.zoo import DigitsDiT

    return DigitsDiT(d=16, layers=3)


def _digits() -> dict[str, Any]:
    return {"image": list(images(5, channels=1)), "timestep": [0, 30, 99, 60, 60], "label": [0, 1, 2, 3, 10]}


def _first(module: torch.nn.Module) -> object:
    """The first image, noise and all: without a scheduler images are taken as they are."""
    return module(torch.from_numpy(images(1)), torch.tensor([10]), torch.tensor([0]))


def _first_with_keywords(module: torch.nn.Module) -> object:
    return module(torch.from_numpy(images(1)), torch.tensor([10]), class_labels=torch.tensor([0]))


ENDS = ("embed", "blocks.1.resid_pre", "blocks.1.resid_post", "final_norm")

FAMILIES = [
    Family(
        "DiT",
        _dit,
        noised,
        sites=ENDS,
        lacks={"blocks.1.attn_out": GATED, "blocks.1.mlp_out": GATED, "logits": "without a head"},
        paths=("transformer_blocks.1.attn1", "transformer_blocks.1.ff", "transformer_blocks.1.attn1.to_q"),
        sides=(),
        by_hand=_first_with_keywords,
        note="Of diffusers. The column `timestep` says how far each image is noised, the scheduler (`processor=`) how.",
    ),
    Family(
        "U-Net",
        _unet,
        noised,
        paths=("conv_in", "down_blocks.0", "down_blocks.1.attentions.0", "mid_block", "up_blocks.0.resnets.1", "conv_out"),
        sides=(),
        by_hand=_first,
        note="Of diffusers; no stack of equal blocks, so modules are named by their paths.",
    ),
    Family(
        "diffusion transformer by hand",
        _zoo,
        _digits,
        sites=(*ENDS, *(f"blocks.1.{name}" for name in "q k v attn_out resid_mid mlp_out".split())),
        sides=(),
        note="`DigitsDiT` of the zoo, which makes its noise itself.",
    ),
]
