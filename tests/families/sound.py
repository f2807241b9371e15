"""Models that hear."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from tests.families.catalog import SIZES, TRANSFORMER, Family, waves
from tests.families.encoder_decoder import DECODER, SMALL

CONVOLUTIONS = {
    **SIZES,
    "conv_dim": (8, 8),
    "conv_kernel": (4, 4),
    "conv_stride": (2, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
NO_HEAD = {"logits": "loaded without a head"}
NO_NORM = {"final_norm": "no norm follows the last block", **NO_HEAD}
LENGTHS = (90, 60, 120, 75)
SECONDS = (32_000, 9_600, 19_200, 12_000)  # the first is as long as the model reads at a time


def _wav2vec2():
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    return Wav2Vec2Model(Wav2Vec2Config(**CONVOLUTIONS, **LAYER_NORM))


def _hubert():
    from transformers import HubertConfig, HubertModel

    return HubertModel(HubertConfig(**CONVOLUTIONS))


def _hubert_layer_norm():
    from transformers import HubertConfig, HubertModel

    return HubertModel(HubertConfig(**CONVOLUTIONS, **LAYER_NORM))


def _whisper():
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sizes = {"layers": 3, "attention_heads": 4, "ffn_dim": 32}
    layers = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()}
    ends = {"max_source_positions": 10, "max_target_positions": 20, "num_mel_bins": 8, "bos_token_id": 1, "eos_token_id": 2}
    return WhisperForConditionalGeneration(WhisperConfig(**SMALL, **layers, **ends))


@cache
def _spectra() -> Any:
    """What makes Whisper's features: 20 frames of 8 bands, of sounds of up to two seconds."""
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=8, sampling_rate=16000, hop_length=1600, chunk_length=2, n_fft=512)


def _hear(module: torch.nn.Module) -> object:
    return module(input_values=torch.from_numpy(waves(*LENGTHS)[0])[None])


def _listen(module: torch.nn.Module) -> object:
    features = _spectra()(waves(*SECONDS)[0], sampling_rate=16_000, return_tensors="np")["input_features"]
    return module(input_features=torch.from_numpy(features).float(), decoder_input_ids=torch.zeros(1, 1, dtype=torch.long))


FAMILIES = [
    Family(
        "wav2vec 2.0",
        _wav2vec2,
        lambda: waves(*LENGTHS),
        sites=("embed", *TRANSFORMER, "final_norm"),
        lacks=NO_HEAD,
        sides=(),
        by_hand=_hear,
        note="Rows are frames; with layer norms, sounds of different length share a batch.",
    ),
    Family(
        "HuBERT",
        _hubert,
        lambda: waves(*LENGTHS),
        sites=("embed", *TRANSFORMER),
        lacks=NO_NORM,
        sides=(),
        by_hand=_hear,
        note="Its group norm runs over time and would see padding, so that only sounds of one length share a batch.",
    ),
    Family(
        "HuBERT with layer norms",
        _hubert_layer_norm,
        lambda: waves(*LENGTHS),
        sites=("embed", *TRANSFORMER, "final_norm"),
        lacks=NO_HEAD,
        sides=(),
        by_hand=_hear,
    ),
    Family(
        "Whisper",
        _whisper,
        lambda: waves(*SECONDS),
        load={"processor": _spectra()},
        sites=("embed", *TRANSFORMER, "final_norm", "decoder.embed", *DECODER, "decoder.final_norm", "logits"),
        sides=(),
        by_hand=_listen,
        note="`blocks.*` is the encoder over frames; without a target the decoder reads its start token alone.",
    ),
]
