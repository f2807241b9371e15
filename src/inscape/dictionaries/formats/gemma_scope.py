"""Gemma Scope: `params.npz` (and, of its second release, `params.safetensors`) with a threshold for each feature."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from inscape.dictionaries.exchange import Format, dictionary_format, provenance
from inscape.dictionaries.files import Files
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.kinds.jump_relu import JumpReLU
from inscape.dictionaries.kinds.jump_relu_transcoder import JumpReLUTranscoder
from inscape.dictionaries.weights import Weights
from inscape.errors import DictionaryError


@dictionary_format
class GemmaScope(Format):
    """JumpReLU autoencoders and transcoders that read rows as they are, without b_dec.

    Files do not say which of the two they are; encoding and decoding is the same. One between sites of different widths, or with a linear
    path, can only be a transcoder. Those of the embedding were trained on rows times 1/√d, which the files do not say either: `scale=`.
    """

    name = "gemma_scope"
    source = "https://huggingface.co/google/gemma-scope (its README and tutorial)"
    writes = ("JumpReLU", "JumpReLUTranscoder")
    stated = False

    def fits(self, files: Files) -> bool:
        """NumPy arrays with its names; in safetensors, its names in lower case."""
        names = {name.lower() for name in files.tensors}
        wanted = {"w_enc", "w_dec", "b_enc", "b_dec", "threshold"} <= names
        return wanted and (files.weights.suffix == ".npz" or "w_enc" in files.tensors)

    def read(self, files: Files, scale: float | None) -> Dictionary:
        """The dictionary."""
        found = {name.lower(): value for name, value in files.tensors.items()}
        skip = found.get("affine_skip_connection")
        given = Weights(
            *(found[name] for name in ("w_enc", "w_dec", "b_enc", "b_dec")),
            threshold=found["threshold"].clamp(min=0),
            W_skip=skip,
        )
        given = given if scale is None else given.of_scaled_rows(scale)
        told, l0 = provenance(self, files), min(32, given.m)
        if skip is not None or given.W_enc.shape[0] != given.W_dec.shape[1]:
            extra = {"threshold": "threshold", **({} if skip is None else {"W_skip": "W_skip"})}
            return Dictionary(JumpReLUTranscoder(width=given.m, l0=l0, skip=skip is not None), given.tensors(**extra), told)
        return Dictionary(JumpReLU(width=given.m, l0=l0), given.centered().tensors(threshold="threshold"), told)

    def write(self, dictionary: Dictionary, folder: Path) -> None:
        """`params.npz`."""
        t = dictionary.tensors
        if "W_skip" in t:
            raise DictionaryError("params.npz has no place for a linear path; circuit_tracer has")
        given = Weights(t["W_enc"], t["W_dec"], t["b_enc"], t["b_dec"], threshold=t["threshold"])
        given = given.reading_less(given.b_dec) if dictionary.recipe.centers else given
        part = folder / "params.npz.part"
        with part.open("wb") as file:
            arrays: dict[str, Any] = {name: value.cpu().numpy() for name, value in given.tensors(threshold="threshold").items()}
            np.savez(file, **arrays)
        os.replace(part, folder / "params.npz")
