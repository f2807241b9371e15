"""SAELens: `cfg.json` and `sae_weights.safetensors`, of version 6 and of the flat configurations before it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inscape.dictionaries.base import Recipe
from inscape.dictionaries.exchange import Format, count_of, dictionary_format, provenance, site_of
from inscape.dictionaries.files import Files
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.kinds.gated import Gated
from inscape.dictionaries.kinds.jump_relu import JumpReLU
from inscape.dictionaries.kinds.jump_relu_transcoder import JumpReLUTranscoder
from inscape.dictionaries.kinds.matching_pursuit import MatchingPursuit
from inscape.dictionaries.kinds.relu import ReLU
from inscape.dictionaries.kinds.top_k import TopK
from inscape.dictionaries.saving import write_tensors, write_text
from inscape.dictionaries.weights import Weights
from inscape.errors import DictionaryError
from inscape.models.names import to_alias

_PER_ROW = {"layer_norm": "layer_norm", "constant_norm_rescale": "length"}
_SCALED = "expected_average_only_in"
# The version whose layout is written; it is what tells SAELens that the configuration is nested.
_VERSION = "6.0.0"


@dictionary_format
class SaeLens(Format):
    """Standard, gated, JumpReLU, TopK and matching-pursuit autoencoders, and transcoders with ReLU or JumpReLU.

    BatchTopK and Matryoshka dictionaries are JumpReLU ones in its files, of which it keeps the threshold.
    """

    name = "sae_lens"
    source = "https://github.com/decoderesearch/SAELens"
    writes = ("BatchTopK", "Gated", "JumpReLU", "JumpReLUTranscoder", "MatchingPursuit", "Matryoshka", "ReLU", "TopK")
    stated = False

    def fits(self, files: Files) -> bool:
        """Its configuration counts units and features as d_in and d_sae."""
        return files.has("W_dec", "b_dec") and "d_in" in files.config and "d_sae" in files.config

    def read(self, files: Files, scale: float | None) -> Dictionary:
        """The dictionary."""
        told = _told(files.config)
        architecture = told["architecture"]
        if architecture not in _READERS:
            raise DictionaryError(f"SAELens's architecture {architecture!r} has no kind here; read are {', '.join(_READERS)}. {files}")
        normalized = told.get("normalize_activations") or "none"
        if normalized is True or normalized == _SCALED:
            if scale is None:
                raise DictionaryError(
                    f"these weights read rows of mean length √d (normalize_activations={normalized!r}), and {files.weights} does not say "
                    "by what rows are multiplied for it; give scale=√d / mean length of the rows that it was trained on"
                )
        elif normalized not in ("none", False, *_PER_ROW):
            raise DictionaryError(f"normalize_activations={normalized!r} is not known; read are none, {_SCALED}, {', '.join(_PER_ROW)}")
        elif scale is not None:
            raise DictionaryError(
                f"scale={scale!r} was given, but these weights read rows as they are (normalize_activations={normalized!r})"
            )
        recipe, tensors = _READERS[architecture](files, told, scale)
        sites = [told["hook_name"], told["hook_name_out"]] if told.get("hook_name_out") else None
        about = provenance(self, files, system=told.get("model_name"), site=None if sites else told.get("hook_name"), sites=sites)
        return Dictionary(recipe, tensors, about, per_row=_PER_ROW.get(str(normalized)))

    def write(self, dictionary: Dictionary, folder: Path) -> None:
        """`cfg.json` and `sae_weights.safetensors`."""
        recipe, t = dictionary.recipe, dict(dictionary.tensors)
        pair = isinstance(recipe, JumpReLUTranscoder)
        config: dict[str, Any] = {"d_in": dictionary.d, "d_sae": dictionary.m, "dtype": "float32", "device": "cpu"}
        config |= {"apply_b_dec_to_input": not pair, "normalize_activations": "none", "reshape_activations": "none"}
        if pair:
            config |= {"architecture": "jumprelu_skip_transcoder" if recipe.skip else "jumprelu_transcoder", "d_out": len(t["b_dec"])}
            if recipe.skip:
                t["W_skip"] = t["W_skip"].T
        elif isinstance(recipe, MatchingPursuit):
            config |= {"architecture": "matching_pursuit", "residual_threshold": 0.0, "stop_on_duplicate_support": False}
            config |= {"max_iterations": recipe.k}
            if recipe.tolerance:
                raise DictionaryError(
                    f"SAELens ends no row by its share of what is left, as tolerance={recipe.tolerance} does; use tolerance=0"
                )
        elif isinstance(recipe, Gated):
            config |= {"architecture": "gated"}
            t["b_gate"] = t.pop("b_enc")
        elif isinstance(recipe, (ReLU, TopK)):
            config |= {"architecture": "standard"} if isinstance(recipe, ReLU) else {"architecture": "topk", "k": recipe.k}
        else:
            config |= {"architecture": "jumprelu"}
            t["threshold"] = t["threshold"].expand(dictionary.m)
        site = site_of(dictionary)
        names = {"model_name": dictionary.info.get("system"), "hook_name": to_alias(site) or site, "sae_lens_version": _VERSION}
        config["metadata"] = {name: value for name, value in names.items() if value}
        write_tensors(folder / "sae_weights.safetensors", {name: value.float() for name, value in t.items()})
        write_text(folder / "cfg.json", json.dumps(config, indent=1) + "\n")


def _told(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the names of version 6, whatever its version; what describes the model stands beside the rest."""
    told = {**config, **(config.get("metadata") or {})}
    for old, new in (("hook_point", "hook_name"), ("activation_fn_str", "activation_fn")):
        if old in told:
            told.setdefault(new, told[old])
    given = (told.get("activation_fn_kwargs") or {}).get("k")
    if told.get("activation_fn") == "topk" and given is not None:
        told |= {"architecture": "topk", "k": given}
    told.setdefault("architecture", "standard")
    told.setdefault("apply_b_dec_to_input", "transcoder" not in told["architecture"])
    return told


def _plain(files: Files, told: Mapping[str, Any], scale: float | None, b_enc: str = "b_enc", **extra: Tensor) -> Weights:
    """The matrices, for rows as they are unless something normalizes each row."""
    given = Weights(*(files.tensor(name) for name in ("W_enc", "W_dec", b_enc, "b_dec")), **extra)
    if told["apply_b_dec_to_input"]:
        given = given.reading_less(given.b_dec)
    if files.has("scaling_factor"):  # of old versions: codes are multiplied before they are decoded
        given = given.with_codes_times(files.tensor("scaling_factor"))
    if told.get("rescale_acts_by_decoder_norm"):
        given = given.with_unit_directions()
    return given if scale is None else given.of_scaled_rows(scale)


Read = tuple[Recipe, dict[str, Tensor]]


def _standard(files: Files, told: Mapping[str, Any], scale: float | None) -> Read:
    given = _plain(files, told, scale).centered()
    penalty = told.get("l1_coefficient")
    return ReLU(width=given.m, l1=float(penalty) if penalty else 0.0), given.tensors()


def _top_k(files: Files, told: Mapping[str, Any], scale: float | None) -> Read:
    given = _plain(files, told, scale).centered()
    return TopK(width=given.m, k=count_of(told.get("k"), files)), given.tensors()


def _jump_relu(files: Files, told: Mapping[str, Any], scale: float | None) -> Read:
    given = _plain(files, told, scale, threshold=files.tensor("threshold").clamp(min=0)).centered()
    return JumpReLU(width=given.m, l0=min(32, given.m)), given.tensors(threshold="threshold")


def _gated(files: Files, told: Mapping[str, Any], scale: float | None) -> Read:
    given = _plain(files, told, scale, "b_gate", r_mag=files.tensor("r_mag"), b_mag=files.tensor("b_mag")).centered()
    return Gated(width=given.m, l1=0.0), given.tensors(r_mag="r_mag", b_mag="b_mag")


def _transcoder(files: Files, told: Mapping[str, Any], scale: float | None) -> Read:
    # b_dec is of the site that is written: it is never taken from the rows that are read, and rows are scaled on that side alone.
    skip = files.tensors.get("W_skip")
    given = Weights(*(files.tensor(name) for name in ("W_enc", "W_dec", "b_enc", "b_dec")), W_skip=None if skip is None else skip.T)
    if scale is not None:
        given = Weights(given.W_enc * scale, given.W_dec, given.b_enc, given.b_dec, W_skip=given.W_skip)
    threshold = files.tensors.get("threshold", torch.zeros(given.m)).float().clamp(min=0)
    names = {} if skip is None else {"W_skip": "W_skip"}
    recipe = JumpReLUTranscoder(width=given.m, l0=min(32, given.m), skip=skip is not None)
    return recipe, {**given.tensors(**names), "threshold": threshold}


def _pursuit(files: Files, told: Mapping[str, Any], scale: float | None) -> Read:
    if told.get("residual_threshold", 1e-2) or told.get("stop_on_duplicate_support", True):
        raise DictionaryError(
            "this matching pursuit ends rows by a length of what is left (residual_threshold) or when a direction comes again "
            "(stop_on_duplicate_support), which MatchingPursuit here does not; set both to 0 and false in cfg.json to read it with all its "
            f"steps. {files}"
        )
    W_dec, b_dec = files.tensor("W_dec").float(), files.tensor("b_dec").float()
    if not told["apply_b_dec_to_input"]:
        b_dec = torch.zeros_like(b_dec)
    if scale is not None:
        raise DictionaryError("directions of a matching pursuit have length 1, so rows cannot be scaled; divide the rows by 1 / scale")
    k = count_of(told.get("max_iterations") or len(b_dec), files, "max_iterations")
    return MatchingPursuit(width=len(W_dec), k=min(k, len(W_dec))), {"W_dec": W_dec, "b_dec": b_dec}


_READERS: dict[str, Callable[[Files, Mapping[str, Any], float | None], Read]] = {
    "standard": _standard,
    "topk": _top_k,
    "jumprelu": _jump_relu,
    "gated": _gated,
    "matching_pursuit": _pursuit,
    "transcoder": _transcoder,
    "skip_transcoder": _transcoder,
    "jumprelu_transcoder": _transcoder,
    "jumprelu_skip_transcoder": _transcoder,
}
