"""EleutherAI's sparsify: `cfg.json` and `sae.safetensors`, a folder for each hook point."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from inscape.dictionaries.exchange import Format, count_of, dictionary_format, provenance, site_of
from inscape.dictionaries.files import Files
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.kinds.top_k import TopK
from inscape.dictionaries.kinds.transcoder import Transcoder
from inscape.dictionaries.saving import write_tensors, write_text
from inscape.dictionaries.weights import Weights
from inscape.errors import DictionaryError


@dictionary_format
class Sparsify(Format):
    """TopK autoencoders and transcoders, the latter with or without a linear path."""

    name = "sparsify"
    source = "https://github.com/EleutherAI/sparsify"
    writes = ("TopK", "Transcoder")

    def fits(self, files: Files) -> bool:
        """Encoder as a linear layer, decoder as a matrix."""
        return files.has("encoder.weight", "encoder.bias", "W_dec", "b_dec")

    def read(self, files: Files, scale: float | None) -> Dictionary:
        """The dictionary."""
        config = files.config
        if config.get("activation", "topk") != "topk":
            raise DictionaryError(f"sparsify's activation {config['activation']!r} has no kind here; TopK is read. {files}")
        given = Weights(
            W_enc=files.tensor("encoder.weight").T,
            W_dec=files.tensor("W_dec"),
            b_enc=files.tensor("encoder.bias"),
            b_dec=files.tensor("b_dec"),
            W_skip=files.tensor("W_skip").T if files.has("W_skip") else None,
        )
        k, own = count_of(config.get("k"), files), config.get("inscape", {})
        if config.get("transcode") or given.W_skip is not None:
            if not config.get("transcode"):
                given = given.reading_less(given.b_dec)
            recipe = Transcoder(width=given.m, k=k, skip=given.W_skip is not None)
            names = {"W_skip": "W_skip"} if recipe.skip else {}
            return Dictionary(recipe, given.tensors(**names), provenance(self, files, system=own.get("system")))
        # The library names folders after the modules that it hooks; a folder may have any other name, too.
        site = own.get("site") or (files.weights.parent.name if "." in files.weights.parent.name else None)
        return Dictionary(TopK(width=given.m, k=k), given.tensors(), provenance(self, files, system=own.get("system"), site=site))

    def write(self, dictionary: Dictionary, folder: Path) -> None:
        """`cfg.json` and `sae.safetensors`."""
        recipe = dictionary.recipe
        assert isinstance(recipe, TopK)
        transcode = isinstance(recipe, Transcoder)
        if transcode and dictionary.d != dictionary.b_dec.shape[0]:
            raise DictionaryError(
                f"sparsify holds transcoders between sites of one width; this one reads {dictionary.d} and writes {len(dictionary.b_dec)}"
            )
        tensors = {"encoder.weight": dictionary.W_enc.T, "encoder.bias": dictionary.b_enc}
        tensors |= {"W_dec": dictionary.W_dec, "b_dec": dictionary.b_dec}
        if "W_skip" in dictionary.tensors:
            tensors["W_skip"] = dictionary.tensors["W_skip"].T
        lengths = torch.linalg.vector_norm(dictionary.W_dec, dim=1)
        config = {
            "activation": "topk",
            "expansion_factor": max(1, dictionary.m // dictionary.d),
            "normalize_decoder": bool((lengths - 1).abs().max() < 1e-3),
            "num_latents": dictionary.m,
            "k": recipe.k,
            "multi_topk": False,
            "skip_connection": "W_skip" in tensors,
            "transcode": transcode,
            "d_in": dictionary.d,
            "inscape": {"site": site_of(dictionary), "system": dictionary.info.get("system", "")},
        }
        write_tensors(folder / "sae.safetensors", tensors)
        write_text(folder / "cfg.json", json.dumps(config, indent=1) + "\n")
