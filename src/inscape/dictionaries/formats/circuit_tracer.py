"""circuit-tracer: a transcoder in one safetensors file, one file for each layer."""

from __future__ import annotations

from pathlib import Path

from inscape.dictionaries.exchange import Format, count_of, dictionary_format, provenance
from inscape.dictionaries.files import Files
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.kinds.jump_relu_transcoder import JumpReLUTranscoder
from inscape.dictionaries.kinds.transcoder import Transcoder
from inscape.dictionaries.saving import write_tensors
from inscape.dictionaries.weights import Weights
from inscape.errors import DictionaryError

_THRESHOLD = "activation_function.threshold"


@dictionary_format
class CircuitTracer(Format):
    """Transcoders with ReLU or JumpReLU, with or without a linear path; and with TopK, where the file has k.

    Released versions up to 0.5.0 write TopK transcoders without k; such a file is the same as one with ReLU, as which the library itself
    reads it.
    """

    name = "circuit_tracer"
    source = "https://github.com/safety-research/circuit-tracer"
    writes = ("JumpReLUTranscoder",)

    def fits(self, files: Files) -> bool:
        """The four matrices in capital letters, one feature a row also in the encoder, and nothing else that is unknown."""
        names = {"W_enc", "W_dec", "b_enc", "b_dec"}
        if files.weights.suffix != ".safetensors" or not files.has(*names) or "d_sae" in files.config:
            return False
        return set(files.tensors) <= {*names, "W_skip", "k", _THRESHOLD} and len(files.tensor("W_enc")) == len(files.tensor("b_enc"))

    def read(self, files: Files, scale: float | None) -> Dictionary:
        """The dictionary."""
        skip = files.tensors.get("W_skip")
        given = Weights(
            files.tensor("W_enc").T,
            *(files.tensor(name) for name in ("W_dec", "b_enc", "b_dec")),
            threshold=files.tensors.get(_THRESHOLD),
            W_skip=None if skip is None else skip.T,
        )
        names = {} if skip is None else {"W_skip": "W_skip"}
        if files.has("k"):
            recipe = Transcoder(width=given.m, k=count_of(files.tensor("k").item(), files), skip=skip is not None)
            return Dictionary(recipe, given.tensors(**names), provenance(self, files))
        threshold = given.b_enc.new_zeros(given.m) if given.threshold is None else given.threshold
        if bool((threshold < 0).any()):
            raise DictionaryError(f"{int((threshold < 0).sum())} thresholds are below 0, so codes would be negative. {files}")
        recipe = JumpReLUTranscoder(width=given.m, l0=min(32, given.m), skip=skip is not None)
        return Dictionary(recipe, {**given.tensors(**names), "threshold": threshold.float()}, provenance(self, files))

    def write(self, dictionary: Dictionary, folder: Path) -> None:
        """`layer_0.safetensors`; rename it to the layer that it is of."""
        t = dictionary.tensors
        tensors = {"W_enc": t["W_enc"].T, "W_dec": t["W_dec"], "b_enc": t["b_enc"], "b_dec": t["b_dec"], _THRESHOLD: t["threshold"]}
        if "W_skip" in t:
            tensors["W_skip"] = t["W_skip"].T
        write_tensors(folder / "layer_0.safetensors", tensors)
