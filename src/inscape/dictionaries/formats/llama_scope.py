"""Llama Scope: `hyperparams.json` and `checkpoints/final.safetensors`, with one threshold and rows scaled over the data set."""

from __future__ import annotations

import math
from typing import Any

import torch

from inscape.dictionaries.exchange import Format, count_of, dictionary_format, provenance
from inscape.dictionaries.files import Files
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.kinds.jump_relu import JumpReLU
from inscape.dictionaries.kinds.jump_relu_transcoder import JumpReLUTranscoder
from inscape.dictionaries.weights import Weights
from inscape.errors import DictionaryError


@dictionary_format
class LlamaScope(Format):
    """JumpReLU autoencoders and transcoders that were trained on rows of mean length √d.

    As their library does for inference: the scale is folded so that codes are in units of the rows as they are, decoder lengths are moved
    into the codes where the training counted them, and the threshold applies to what comes out.
    """

    name = "llama_scope"
    source = "https://github.com/OpenMOSS/Language-Model-SAEs, the published fnlp/Llama3_1-8B-Base-* files"

    def fits(self, files: Files) -> bool:
        """Linear layers, and a configuration with its own words."""
        told = "dataset_average_activation_norm" in files.config or "jump_relu_threshold" in files.config
        return told and files.has("encoder.weight", "decoder.weight")

    def read(self, files: Files, scale: float | None) -> Dictionary:
        """The dictionary."""
        config = files.config
        W_enc, W_dec = files.tensor("encoder.weight").T, files.tensor("decoder.weight").T
        b_enc = files.tensors.get("encoder.bias", W_enc.new_zeros(W_enc.shape[1]))
        b_dec = files.tensors.get("decoder.bias", W_dec.new_zeros(W_dec.shape[1]))
        given = Weights(W_enc.float(), W_dec.float(), b_enc.float(), b_dec.float())
        if config.get("apply_decoder_bias_to_pre_encoder"):
            given = given.reading_less(given.b_dec)
        if config.get("act_fn", "jumprelu") not in ("jumprelu", "topk", "relu"):
            raise DictionaryError(f"the activation {config['act_fn']!r} has no kind here. {files}")
        norms: dict[str, Any] = config.get("dataset_average_activation_norm") or {}
        normalized = str(config.get("norm_activation", "dataset-wise" if norms else "inference"))
        if normalized == "dataset-wise":
            inward, outward = (math.sqrt(n) / float(norms[side]) for n, side in ((W_enc.shape[0], "in"), (W_dec.shape[1], "out")))
            given = given.of_scaled_rows(inward, outward).with_codes_in(1 / inward)
        elif normalized not in ("inference", "none"):
            raise DictionaryError(f"rows normalized {normalized!r} have no place here; 'dataset-wise' is read. {files}")
        if config.get("sparsity_include_decoder_norm", True):
            given = given.with_unit_directions()
        threshold = torch.full((given.m,), float(config.get("jump_relu_threshold", 0.0)))
        reads, writes = config.get("hook_point_in"), config.get("hook_point_out")
        extra = {"threshold": threshold}
        l0 = min(count_of(config.get("top_k") or 32, files, "top_k"), given.m)
        if reads != writes or given.W_enc.shape[0] != given.W_dec.shape[1]:
            told = provenance(self, files, sites=[str(reads), str(writes)])
            return Dictionary(JumpReLUTranscoder(width=given.m, l0=l0), {**given.tensors(), **extra}, told)
        return Dictionary(JumpReLU(width=given.m, l0=l0), {**given.centered().tensors(), **extra}, provenance(self, files, site=reads))
