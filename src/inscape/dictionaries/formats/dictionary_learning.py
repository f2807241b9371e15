"""The library dictionary_learning: `ae.pt` and `config.json`. Its weights are a pickle, of which only tensors are read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inscape.dictionaries.base import Recipe
from inscape.dictionaries.exchange import Format, count_of, dictionary_format, provenance, site_of
from inscape.dictionaries.files import Files
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.kinds.batch_top_k import BatchTopK
from inscape.dictionaries.kinds.gated import Gated
from inscape.dictionaries.kinds.jump_relu import JumpReLU
from inscape.dictionaries.kinds.matryoshka import Matryoshka
from inscape.dictionaries.kinds.relu import ReLU
from inscape.dictionaries.kinds.top_k import TopK
from inscape.dictionaries.saving import write_text
from inscape.dictionaries.weights import Weights
from inscape.errors import DictionaryError


@dictionary_format
class DictionaryLearning(Format):
    """Standard, gated, JumpReLU, TopK, BatchTopK and Matryoshka autoencoders."""

    name = "dictionary_learning"
    source = "https://github.com/saprmarks/dictionary_learning"
    writes = ("ReLU", "Gated", "JumpReLU", "TopK", "BatchTopK", "Matryoshka")

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

    def write(self, dictionary: Dictionary, folder: Path) -> None:
        """`config.json`, and `ae.pt`, a pickle of tensors, since the library reads no other weights."""
        recipe, site = dictionary.recipe, site_of(dictionary)
        made, tensors = _written(dictionary)
        trainer: dict[str, Any] = {"dict_class": made, "activation_dim": dictionary.d, "dict_size": dictionary.m}
        if isinstance(recipe, (TopK, BatchTopK)):
            trainer["k"] = recipe.k
        if isinstance(recipe, JumpReLU):
            trainer["target_l0"] = recipe.l0
        if isinstance(recipe, (ReLU, Gated)):
            trainer["l1_penalty"] = recipe.l1
        trainer |= {"layer": None, "lm_name": dictionary.info.get("system", ""), "submodule_name": site}
        part, held = folder / "ae.pt.part", {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        torch.save(held, part)  # noqa: TID251  the library reads no other weights; these are tensors alone
        os.replace(part, folder / "ae.pt")
        write_text(folder / "config.json", json.dumps({"trainer": trainer, "buffer": {}}, indent=1) + "\n")


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


def _written(dictionary: Dictionary) -> tuple[str, dict[str, Tensor]]:
    """The class that holds a dictionary, and its tensors by the class's names."""
    recipe, own = dictionary.recipe, dictionary.tensors
    less = Weights(own["W_enc"], own["W_dec"], own["b_enc"], own["b_dec"])  # reads x − b_dec, as some of the classes do
    plain = less.reading_less(less.b_dec)
    linear = {"encoder.weight": less.W_enc.T, "decoder.weight": less.W_dec.T}
    if isinstance(recipe, Matryoshka):
        sizes = torch.tensor(recipe.prefixes).diff(prepend=torch.zeros(1, dtype=torch.int64))
        counts = {"k": torch.tensor(recipe.k, dtype=torch.int32), "threshold": own["threshold"], "group_sizes": sizes}
        return "MatryoshkaBatchTopKSAE", {"W_enc": less.W_enc, "W_dec": less.W_dec, "b_enc": less.b_enc, "b_dec": less.b_dec, **counts}
    if isinstance(recipe, (TopK, BatchTopK)):
        counts = {"k": torch.tensor(recipe.k, dtype=torch.int32), "threshold": own.get("threshold", torch.tensor(-1.0))}
        made = "BatchTopKSAE" if isinstance(recipe, BatchTopK) else "AutoEncoderTopK"
        return made, {**linear, "encoder.bias": less.b_enc, "b_dec": less.b_dec, **counts}
    if isinstance(recipe, Gated):
        offsets = {"decoder_bias": less.b_dec, "gate_bias": less.b_enc, "r_mag": own["r_mag"], "mag_bias": own["b_mag"]}
        return "GatedAutoEncoder", {**linear, **offsets}
    if isinstance(recipe, JumpReLU):
        named = {"W_enc": plain.W_enc, "W_dec": plain.W_dec, "b_enc": plain.b_enc, "b_dec": plain.b_dec}
        return "JumpReluAutoEncoder", {**named, "threshold": own["threshold"]}
    return "AutoEncoderNew", {**linear, "encoder.bias": plain.b_enc, "decoder.bias": plain.b_dec}


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
