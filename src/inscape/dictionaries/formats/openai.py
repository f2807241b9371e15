"""OpenAI's sparse_autoencoder: one pickled state dict, of which only tensors, numbers and names are read."""

from __future__ import annotations

from typing import Any

from inscape.dictionaries.exchange import Format, count_of, dictionary_format, provenance
from inscape.dictionaries.files import Files
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.kinds.relu import ReLU
from inscape.dictionaries.kinds.top_k import TopK
from inscape.dictionaries.weights import Weights
from inscape.errors import DictionaryError


@dictionary_format
class OpenAI(Format):
    """ReLU autoencoders, and TopK ones that give each row a layer norm of its own."""

    name = "openai"
    source = "https://github.com/openai/sparse_autoencoder"

    def fits(self, files: Files) -> bool:
        """Two offsets with names that nobody else gives them."""
        return files.has("pre_bias", "latent_bias", "encoder.weight")

    def read(self, files: Files, scale: float | None) -> Dictionary:
        """The dictionary; a tied decoder is the encoder's transpose."""
        W_enc = files.tensor("encoder.weight").T
        W_dec = files.tensors["decoder.weight"].T if files.has("decoder.weight") else W_enc.T
        tensors = Weights(W_enc, W_dec, files.tensor("latent_bias"), files.tensor("pre_bias")).tensors()
        activation, m = str(files.words.get("activation", "ReLU")), W_enc.shape[1]
        if activation == "ReLU":
            return Dictionary(ReLU(width=m), tensors, provenance(self, files))
        if activation != "TopK":
            raise DictionaryError(f"the activation {activation!r} has no kind here; ReLU and TopK are read. {files}")
        state: dict[str, Any] = files.words.get("activation_state_dict", {})
        if state.get("postact_fn", "ReLU") != "ReLU":
            raise DictionaryError(f"TopK with {state['postact_fn']!r} after it has no kind here; ReLU is read. {files}")
        recipe = TopK(width=m, k=count_of(state.get("k"), files))
        return Dictionary(recipe, tensors, provenance(self, files), per_row="layer_norm")
