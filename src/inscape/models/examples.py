"""Tiny inputs for the dry run, made from a model's configuration."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from inscape.models.dryrun import guesses
from inscape.models.noised import noised_images
from inscape.models.placement import input_device
from inscape.models.values import children
from inscape.models.wrappers import core

AUDIO_FRAMES = 8
Pass = tuple[str, Any]


def parameters_of(part: Any) -> tuple[set[str], bool]:
    """Names of the arguments of a module's forward (or of a function), and whether it takes any others."""
    try:
        signature = inspect.signature(core(part).forward if isinstance(part, nn.Module) else part)
    except (TypeError, ValueError):
        return set(), True
    kinds = signature.parameters.values()
    return {p.name for p in kinds}, any(p.kind is p.VAR_KEYWORD for p in kinds)


def examples(module: nn.Module, modality: str, config: Any) -> Iterator[list[Pass]]:
    """Plans to try, each a list of passes that together run all of the model; a pass is an input with words that describe it."""
    accepted, _ = parameters_of(module)
    maker = _Maker(module, accepted, config)
    if config is None:
        modality = "text" if modality == "text" else "tensor"
    if modality == "multimodal":
        readers: list[tuple[str, Callable[[], Iterator[Pass]]]] = [("pixel_values", maker.images)]
        readers += [(name, maker.sounds) for name in ("input_features", "input_values")]
        others = [make for name, make in readers if name in accepted]
        text = next(maker.texts())
        for passes in zip(*(make() for make in others), strict=False):
            yield [text, *passes]
            words = " with ".join([text[0], *(words for words, _ in passes)])
            others_too = {key: value for _, batch in passes for key, value in batch.items()}
            yield [(words, {**maker.with_room(text[1]), **others_too})]
    elif modality == "image":
        yield from ([made] for made in maker.images())
    elif modality == "audio":
        yield from ([made] for made in maker.sounds())
    elif modality == "text" and "input_ids" in accepted:
        yield from ([made] for made in maker.texts())
    else:
        for words, batch in noised_images(module, config):
            yield [(words, {name: maker.placed(value) for name, value in batch.items()})]
        for words, value in guesses(module):
            yield [(words, {"x": maker.placed(value)})]


def resized(batch: Any) -> Any:
    """The same kind of input in another size: its pictures or sounds twice as large, or half where they are large."""
    if isinstance(batch, Tensor):
        if not batch.is_floating_point() or batch.ndim < 2:
            return batch
        axes = range(2, batch.ndim) if batch.ndim > 2 else range(1, 2)
        for axis in axes:
            size = batch.shape[axis]
            batch = batch.narrow(axis, 0, size // 2) if size >= 64 else torch.cat([batch, batch], axis)
        return batch
    if isinstance(batch, dict):
        whole: dict[str, Any] = batch
        return {key: resized(value) for key, value in whole.items()}
    return tuple(resized(value) for value in batch) if isinstance(batch, tuple) else batch


def form(batch: Any) -> tuple[tuple[tuple[int, ...], torch.dtype], ...]:
    """Shapes and dtypes of the tensors in a batch: two of one form show the same of a model."""
    if isinstance(batch, Tensor):
        return ((tuple(batch.shape), batch.dtype),)
    return tuple(each for _, child in children(batch) for each in form(child))


class _Maker:
    """Makes batches of two stimuli that a module's configuration allows."""

    def __init__(self, module: nn.Module, accepted: set[str], config: Any) -> None:
        self.module, self.accepted, self.config = module, accepted, config
        self.device = input_device(module)
        self.dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
        self.generator = torch.Generator().manual_seed(0)

    def placed(self, value: Tensor) -> Tensor:
        return value.to(self.device, self.dtype if value.is_floating_point() else None)

    def floats(self, *shape: int) -> Tensor:
        return self.placed(torch.randn(*shape, generator=self.generator))

    def setting(self, names: tuple[str, ...], inside: tuple[str, ...] = (), default: Any = None) -> Any:
        """The first of these that the configuration of a part (`inside`) or of the whole has."""
        for owner in (*(getattr(self.config, part, None) for part in inside), self.config):
            for name in names:
                value = getattr(owner, name, None)
                if value is not None:
                    return value
        return default

    def decoded(self, batch: dict[str, Any]) -> dict[str, Any]:
        """With inputs for the decoder, where there is one."""
        if "decoder_input_ids" in self.accepted:
            batch["decoder_input_ids"] = torch.ones(2, 2, dtype=torch.long, device=self.device)
        return batch

    def texts(self) -> Iterator[Pass]:
        table = next((m for m in self.module.modules() if isinstance(m, nn.Embedding)), None)
        known = self.setting(("vocab_size",), ("text_config", "encoder"))
        vocabulary = int(known or (table.num_embeddings if table is not None else 2))
        if table is not None and not hasattr(self.config, "text_config"):
            vocabulary = min(vocabulary, table.num_embeddings)
        ids = torch.randint(0, vocabulary, (2, 6), generator=self.generator)
        # A token that stands for an image would ask for one.
        special = [v for name, v in vars(self.config).items() if "token" in name and isinstance(v, int)] if self.config is not None else []
        if hasattr(self.config, "text_config"):
            free = next((i for i in range(vocabulary) if i not in special), 0)
            ids[torch.isin(ids, torch.tensor(special, dtype=torch.long))] = free
        ids = ids.to(self.device)
        batch = {"input_ids": ids}
        if "attention_mask" in self.accepted:
            batch["attention_mask"] = torch.ones_like(ids)
        if "decoder_input_ids" in self.accepted:
            batch["decoder_input_ids"] = ids[:, :2]
        yield f"token ids of shape {tuple(ids.shape)}", batch

    def with_room(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """With the tokens that stand for an image in front, where the configuration says which and how many."""
        token = self.setting(("image_token_id", "image_token_index"))
        count = self.setting(("num_query_tokens", "mm_tokens_per_image", "image_seq_length"))
        if not isinstance(token, int) or not isinstance(count, int):
            return batch
        front = {"input_ids": token, "attention_mask": 1}
        longer = {
            name: torch.cat([torch.full((2, count), front[name], device=self.device), batch[name]], 1) for name in front if name in batch
        }
        return {**batch, **longer}

    def images(self) -> Iterator[Pass]:
        inside = ("vision_config", "encoder", "backbone_config")
        channels = int(self.setting(("num_channels", "in_channels", "in_chans"), inside, 3))
        patch = self.setting(("patch_size",), inside)
        if "spatial_shapes" in self.accepted and isinstance(patch, int):  # pictures already cut into patches
            shape = (2, 4, channels * patch * patch)
            whole = torch.ones(2, 4, dtype=torch.long, device=self.device)
            batch = {"pixel_values": self.floats(*shape), "pixel_attention_mask": whole, "spatial_shapes": whole[:, :2] * 2}
            yield f"random image patches of shape {shape}", batch
        if "image_grid_thw" in self.accepted and isinstance(patch, int):  # those of all pictures one after the other
            side = 2 * int(self.setting(("spatial_merge_size",), inside, 1))
            depth = int(self.setting(("temporal_patch_size",), inside, 1))
            shape = (2 * side * side, channels * depth * patch * patch)
            grid = torch.tensor([[1, side, side]] * 2, device=self.device)
            yield f"random image patches of shape {shape}", {"pixel_values": self.floats(*shape), "image_grid_thw": grid}
        stated = self.setting(("image_size", "input_size"), inside)
        for size in (stated,) if stated is not None else (32, 64, 224):
            height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
            shape = (2, channels, height, width)
            yield f"random images of shape {shape}", self.decoded({"pixel_values": self.floats(*shape)})

    def sounds(self) -> Iterator[Pass]:
        inside = ("audio_config", "encoder")
        shapes: list[tuple[int, ...]]
        bins = int(self.setting(("num_mel_bins", "feature_projection_input_dim", "input_feat_per_channel"), inside, 80))
        if "input_features" in self.accepted:
            frames = 2 * int(self.setting(("max_source_positions",), inside, 1500))
            shapes = [(2, bins, frames), (2, 32, bins)]
            spectrogram = self.setting(("spec_size",), inside)  # a picture of the sound
            if isinstance(spectrogram, int):
                shapes.insert(0, (2, 1, 4 * spectrogram, spectrogram // 4))
            for shape in shapes:
                batch = {"input_features": self.floats(*shape)}
                if "feature_attention_mask" in self.accepted:
                    batch["feature_attention_mask"] = torch.ones(2, shape[-1], dtype=torch.long, device=self.device)
                yield f"random sound features of shape {shape}", self.decoded(batch)
            return
        cut = self.setting(("max_length",), inside)
        shapes = [(2, samples_for(AUDIO_FRAMES, self.config))]
        if hasattr(self.config, "num_mel_bins") and isinstance(cut, int):
            shapes.insert(0, (2, cut, bins))
        for shape in shapes:
            yield f"random sound of shape {shape}", self.decoded({"input_values": self.floats(*shape)})


def samples_for(frames: int, config: Any) -> int:
    """Samples of sound that give about `frames` frames in a wav2vec2-like network of strided convolutions."""
    strides, kernels = list(getattr(config, "conv_stride", [320])), list(getattr(config, "conv_kernel", [400]))
    count = frames
    for stride, kernel in zip(reversed(strides), reversed(kernels), strict=False):
        count = (count - 1) * stride + kernel
    return max(count, frames * math.prod(strides))
