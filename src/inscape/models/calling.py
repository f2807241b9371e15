"""How a model is called: the inputs that a batch holds decide which part of it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inscape.models.examples import parameters_of
from inscape.models.hooks import CACHES
from inscape.models.values import get, locate
from inscape.models.wrappers import core, trunk_of

Forward = Callable[[nn.Module, Any], Any]

# What a model reads under each of these names.
READS = {
    **dict.fromkeys(("input_ids", "inputs_embeds"), "text"),
    "pixel_values": "image",
    **dict.fromkeys(("input_features", "input_values"), "audio"),
}
_FEATURES = {"text": "get_text_features", "image": "get_image_features", "audio": "get_audio_features"}
_DECODER = ("decoder_input_ids", "decoder_inputs_embeds", "labels")


def is_dual(module: nn.Module) -> bool:
    """Whether a model compares texts with something else, each read by an encoder of its own (CLIP and its kin)."""
    return hasattr(module, "get_text_features") and any(hasattr(module, _FEATURES[kind]) for kind in ("image", "audio"))


class Caller:
    """Runs a module on a batch: as a whole, without its head, or only the part that reads what is there.

    Args:
        module: the model.
        forward: the user's own way to run it, if any.
        modality: what its stimuli are.
        config: its configuration, or `None`.

    Attributes:
        trunk: the part without the head; the module itself where there is no such part.
        starts_itself: an encoder-decoder that makes decoder inputs from the encoder's; `None` until it was tried.
    """

    def __init__(self, module: nn.Module, forward: Forward | None, modality: str, config: Any) -> None:
        self.module, self.forward, self.modality, self.config = module, forward, modality, config
        self.trunk: nn.Module = trunk_of(module) if forward is None else module
        self._accepts = {part: parameters_of(part) for part in (module, self.trunk)}
        self._dual = is_dual(core(module))
        self._decodes = forward is None and config is not None and "decoder_input_ids" in self._accepts[module][0]
        reads_text_first = self._decodes and modality == "text"
        self.starts_itself: bool | None = None if reads_text_first else False

    @property
    def has_trunk(self) -> bool:
        """Whether a pass without the head is possible."""
        return self.trunk is not self.module

    def undecided(self, batch: Any) -> bool:
        """Whether it must first be tried what the model does without decoder inputs, as this batch has none."""
        return self._decodes and self.starts_itself is None and isinstance(batch, Mapping) and not any(key in batch for key in _DECODER)

    def try_without_decoder_inputs(self, batch: Mapping[str, Any]) -> None:
        """Finds out, on an example, whether the model makes its decoder inputs itself (as BART does, by shifting its text)."""
        if self.starts_itself is None:
            try:
                with torch.no_grad():
                    self.module(**{key: value for key, value in batch.items() if key not in _DECODER})
                self.starts_itself = True
            except Exception:  # each family says in its own way that it needs decoder inputs
                self.starts_itself = False

    def __call__(self, part: nn.Module, batch: Any) -> Any:
        """Runs `part` (the module or its trunk) on a batch.

        A mapping gives keyword arguments. Where only the inputs of one tower are in it, that tower runs alone.
        """
        if self.forward is not None:
            return self.forward(self.module, batch)
        if not isinstance(batch, Mapping):
            return part(*batch) if isinstance(batch, tuple) else part(batch)
        names, anything = self._accepts[part]
        if self.config is None and not anything and not set(batch) <= names:
            return part(*batch.values())  # a plain module: its argument's name is its own affair
        inputs: dict[str, Any] = dict(batch)
        run, names, anything = self._choose(part, inputs, names, anything)
        if not anything and (run is not part or (self.has_trunk and part is self.trunk)):
            inputs = {key: value for key, value in inputs.items() if key in names}
        if self.config is not None:
            self._complete(part, names, inputs)
        return run(**inputs)

    def _choose(self, part: nn.Module, inputs: Mapping[str, Any], names: set[str], anything: bool) -> tuple[Any, set[str], bool]:
        """What runs: the part, or its method for the one thing that the batch holds."""
        kinds = {READS[key] for key in inputs if key in READS}
        if self.modality == "multimodal" and len(kinds) == 1:
            kind = kinds.pop()
            method = getattr(part, _FEATURES[kind], None)
            if method is not None and (kind != "text" or self._dual):
                return method, *parameters_of(method)
        return part, names, anything

    def _complete(self, part: nn.Module, names: set[str], inputs: dict[str, Any]) -> None:
        """Adds what a pass needs and a batch need not hold: positions under left padding, no cache, a start for the decoder."""
        if "use_cache" in names and "use_cache" not in inputs and not set(CACHES) & set(inputs):
            inputs["use_cache"] = False  # one pass needs no cache, and filling one costs time
        mask = inputs.get("attention_mask")
        reads_text = self.modality == "text" or (self.modality == "multimodal" and not hasattr(self.trunk, "get_rope_index"))
        if (
            reads_text
            and "position_ids" in names
            and "position_ids" not in inputs
            and isinstance(mask, Tensor)
            and mask.ndim == 2
            and not bool(mask[:, 0].all())
        ):
            # Left padding: positions count real tokens, which models do not see to by themselves.
            inputs["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)
        if self._decodes and "decoder_input_ids" in names and not self.starts_itself and not any(key in inputs for key in _DECODER):
            start = self._start_token()
            pick = locate(inputs, floating=False)
            if start is not None and pick is not None:
                first = get(inputs, pick)
                inputs["decoder_input_ids"] = torch.full((first.shape[0], 1), start, dtype=torch.long, device=first.device)

    def _start_token(self) -> int | None:
        owners = (self.config, getattr(self.module, "generation_config", None), getattr(self.config, "decoder", None))
        for name in ("decoder_start_token_id", "bos_token_id"):
            for owner in owners:
                value = getattr(owner, name, None)
                if isinstance(value, int):
                    return value
        return None
