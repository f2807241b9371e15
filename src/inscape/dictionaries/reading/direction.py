"""What the tensors of a dictionary tell of a feature before any rows were read."""

from __future__ import annotations

from typing import Any

import torch

from inscape.dictionaries.base import unit_rows
from inscape.dictionaries.reading.features import Feature

HINT = "For examples, words and a description: dictionary.features(view), best on rows captured with tokens='all'."
_NEIGHBORS = 6


def known(dictionary: Any, index: int) -> Feature:
    """The length of the direction, its neighbors, and how far what activates it is what it writes."""
    written = dictionary.W_dec.detach().cpu().double()
    own = written[index]
    unit = unit_rows(written)
    cosines = unit @ unit[index]
    cosines[index] = -2.0
    best = cosines.topk(min(_NEIGHBORS, len(unit) - 1))
    facts: dict[str, Any] = {
        "feature": index,
        "norm": float(torch.linalg.vector_norm(own)),
        "neighbors": best.indices.tolist(),
        "neighbor_cosines": best.values.tolist(),
    }
    if "W_enc" in dictionary.tensors and dictionary.W_enc.shape[0] == written.shape[1]:
        read = dictionary.W_enc[:, index].detach().cpu().double()
        facts["encoder_decoder_cosine"] = float(torch.nn.functional.cosine_similarity(read, own, dim=0))
    return Feature(index, facts, {}, where=repr(dictionary.recipe), hint=HINT)
