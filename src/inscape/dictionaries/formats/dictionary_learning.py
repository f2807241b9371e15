"""The library dictionary_learning: `ae.pt` and `config.json`. Its weights are a pickle, of which only tensors are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from inscape.dictionaries.base import Recipe
from inscape.dictionaries.exchange import Format, count_of, dictionary_format, provenance
from inscape.dictionaries.files import Files
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.kinds.batch_top_k import BatchTopK
from inscape.dictionaries.kinds.gated import Gated
from inscape.dictionaries.kinds.jump_relu import JumpReLU
from inscape.dictionaries.kinds.matryoshka import Matryoshka
from inscape.dictionaries.kinds.relu import ReLU
from inscape.dictionaries.kinds.top_k import TopK
from inscape.dictionaries.weights import Weights
from inscape.errors import DictionaryError


@dictionary_format
class DictionaryLearning(Format):
    """Standard, gated, JumpReLU, TopK, BatchTopK and Matryoshka autoencoders."""

    name = "dictionary_learning"
    source = "https://github.com/saprmarks/dictionary_learning"

    def fits(self, files: Files) -> bool:
        """A class that its configuration names, or tensors as one of its classes calls them."""
        return bool(_class(files))

    def read(self, files: Files, scale: float | None) -> Dictionary:
        """The dictionary, as the class that its configuration names encodes."""
        made = _class(files)
        if made == "AutoEncoderTopK or BatchTopKSAE":
            raise DictionaryError(
                f"{made} have the same tensors; their config.json tells which it is, and lies beside the weights. {files}"
            )
        if made not in _READERS:
            raise DictionaryError(f"dictionary_learning's {made} has no kind here; read are {', '.join(_READERS)}. {files}")
        told: Mapping[str, Any] = files.config.get("trainer", {})
        recipe, tensors = _READERS[made](files, told)
        system, layer = told.get("lm_name"), told.get("submodule_name")
        return Dictionary(recipe, tensors, provenance(self, files, system=system, site=layer, layer=told.get("layer")))


def _class(files: Files) -> str:
    """The class that wrote the tensors; empty where it was none of this library."""
    trainer = files.config.get("trainer")
    if isinstance(trainer, dict) and "dict_class" in trainer:
        return str(trainer["dict_class"])
    if files.weights.suffix not in (".pt", ".pth", ".bin"):
        return ""
    for name, wanted in _NAMES.items():
        if set(files.tensors) == wanted:
            return name
    return ""


_LINEAR = {"encoder.weight", "encoder.bias", "decoder.weight"}
_PLAIN = {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"}
_NAMES = {
    "AutoEncoder": {*_LINEAR, "bias"},
    "AutoEncoderNew": {*_LINEAR, "decoder.bias"},
    "AutoEncoderTopK or BatchTopKSAE": {*_LINEAR, "b_dec", "k", "threshold"},
    "GatedAutoEncoder": {"encoder.weight", "decoder.weight", "decoder_bias", "r_mag", "gate_bias", "mag_bias"},
    "JumpReluAutoEncoder": _PLAIN,
    "MatryoshkaBatchTopKSAE": {*_PLAIN, "k", "group_sizes"},
}


def _linear(files: Files, offset: Tensor) -> Weights:
    bias = files.tensors.get("encoder.bias")
    W_enc = files.tensor("encoder.weight").T
    b_enc = W_enc.new_zeros(W_enc.shape[1]) if bias is None else bias
    return Weights(W_enc, files.tensor("decoder.weight").T, b_enc, offset)


def _standard(files: Files, told: Mapping[str, Any]) -> tuple[Recipe, dict[str, Tensor]]:
    given = _linear(files, files.tensor("bias"))
    given = given.reading_less(given.b_dec).with_unit_directions().centered()  # as the library itself does when it loads one
    return ReLU(width=given.m, l1=_penalty(told)), given.tensors()


def _standard_new(files: Files, told: Mapping[str, Any]) -> tuple[Recipe, dict[str, Tensor]]:
    given = _linear(files, files.tensor("decoder.bias")).centered()
    return ReLU(width=given.m, l1=_penalty(told)), given.tensors()


def _top_k(files: Files, told: Mapping[str, Any]) -> tuple[Recipe, dict[str, Tensor]]:
    given = _linear(files, files.tensor("b_dec"))
    return TopK(width=given.m, k=count_of(_k(files, told), files)), given.tensors()


def _batch_top_k(files: Files, told: Mapping[str, Any]) -> tuple[Recipe, dict[str, Tensor]]:
    given = _linear(files, files.tensor("b_dec"))
    recipe = BatchTopK(width=given.m, k=count_of(_k(files, told), files))
    return recipe, {**given.tensors(), "threshold": _scalar(files)}


def _matryoshka(files: Files, told: Mapping[str, Any]) -> tuple[Recipe, dict[str, Tensor]]:
    given = Weights(files.tensor("W_enc"), files.tensor("W_dec"), files.tensor("b_enc"), files.tensor("b_dec"))
    sizes = torch.cumsum(files.tensor("group_sizes").long(), 0).tolist()
    recipe = Matryoshka(width=given.m, k=count_of(_k(files, told), files), prefixes=tuple(sizes))
    return recipe, {**given.tensors(), "threshold": _scalar(files)}


def _gated(files: Files, told: Mapping[str, Any]) -> tuple[Recipe, dict[str, Tensor]]:
    offset = files.tensor("decoder_bias")
    W_enc = files.tensor("encoder.weight").T
    gate, r_mag, b_mag = (files.tensor(name) for name in ("gate_bias", "r_mag", "mag_bias"))
    given = Weights(W_enc, files.tensor("decoder.weight").T, gate, offset, r_mag=r_mag, b_mag=b_mag)
    return Gated(width=given.m, l1=_penalty(told)), given.tensors(r_mag="r_mag", b_mag="b_mag")


def _jump_relu(files: Files, told: Mapping[str, Any]) -> tuple[Recipe, dict[str, Tensor]]:
    names = ("W_enc", "W_dec", "b_enc", "b_dec")
    W_enc, W_dec, b_enc, b_dec = (files.tensor(name) for name in names)
    given = Weights(W_enc, W_dec, b_enc, b_dec, threshold=files.tensor("threshold").clamp(min=0)).centered()
    wanted = told.get("target_l0")
    recipe = JumpReLU(width=given.m, l0=min(given.m, max(1, round(float(wanted)))) if wanted else min(32, given.m))
    return recipe, given.tensors(threshold="threshold")


def _k(files: Files, told: Mapping[str, Any]) -> Any:
    return files.tensors["k"].item() if "k" in files.tensors else told.get("k")


def _scalar(files: Files) -> Tensor:
    return files.tensor("threshold").float().clamp(min=0).reshape(())


def _penalty(told: Mapping[str, Any]) -> float:
    value = told.get("l1_penalty", 0.0)
    return float(value) if isinstance(value, (int, float)) else 0.0


_READERS = {
    "AutoEncoder": _standard,
    "AutoEncoderNew": _standard_new,
    "AutoEncoderTopK": _top_k,
    "BatchTopKSAE": _batch_top_k,
    "MatryoshkaBatchTopKSAE": _matryoshka,
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": _jump_relu,
}
