"""Direct logit weights: which tokens a direction makes more or less likely if nothing came between."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inscape.dictionaries.base import unit_rows
from inscape.dictionaries.reading.words import readable
from inscape.errors import DictionaryError, SiteNotFoundError
from inscape.models import Model, load

_BLOCK = 256


def output_map(model: Any) -> tuple[Tensor, list[str]]:
    """What turns a direction of the residual stream into logits, [v, d], with the words of the vocabulary.

    The final norm's weights are folded in, and its centering where it centers; its division by the length is left out, which is the same
    for all tokens of a row. Rows have mean 0 over the vocabulary, as probabilities do not see a common offset.

    Args:
        model: a language model, or a pair: a matrix [v, d] and v words.

    Raises:
        DictionaryError: the model has no head that is one matrix.
    """
    if isinstance(model, tuple):
        weights, words = model
        matrix = torch.as_tensor(weights).detach().double()
        if matrix.ndim != 2 or len(matrix) != len(words):
            raise DictionaryError(f"the unembedding has shape {tuple(matrix.shape)} and {len(words)} words; expected [v, d] and v words")
        return (matrix - matrix.mean(0)).float(), [str(word) for word in words]
    loaded: Model = load(model)
    try:
        head = loaded.module.get_submodule(loaded.resolve("logits")[0].path)
    except SiteNotFoundError as error:
        raise DictionaryError(f"{loaded.name} gives no logits, so there are no logit weights: {error}") from error
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise DictionaryError(f"the logits of {loaded.name} come from {type(head).__name__}, not from one matrix; give (matrix, words)")
    matrix = weight.detach().cpu().double()
    try:
        norm: Any = loaded.module.get_submodule(loaded.resolve("final_norm")[0].path)
    except SiteNotFoundError:
        norm = None
    scale = getattr(norm, "weight", None)
    if isinstance(scale, Tensor) and scale.shape == matrix.shape[1:]:
        # Gemma's norms multiply by one plus their weight.
        matrix = matrix * ((1 if "Gemma" in type(norm).__name__ else 0) + scale.detach().cpu().double())
        if "RMS" not in type(norm).__name__:
            matrix = matrix - matrix.mean(1, keepdim=True)
    matrix = (matrix - matrix.mean(0)).float()
    if loaded.tokenizer is None:
        return matrix, [str(i) for i in range(len(matrix))]
    known = len(loaded.tokenizer)
    names = loaded.tokenizer.convert_ids_to_tokens(list(range(min(known, len(matrix)))))
    return matrix, readable([*names, *(str(i) for i in range(known, len(matrix)))])


def extremes(directions: Tensor, matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each direction [m, d] the tokens that it favors most and least: places and weights of both, [m, count] each.

    Raises:
        DictionaryError: the directions have another number of units than the map.
    """
    if directions.shape[1] != matrix.shape[1]:
        raise DictionaryError(f"the directions have {directions.shape[1]} units, the map to the logits {matrix.shape[1]}")
    count = min(count, len(matrix))
    found: list[tuple[Tensor, ...]] = []
    for at in range(0, len(directions), _BLOCK):
        weights = directions[at : at + _BLOCK].float() @ matrix.T
        high, low = weights.topk(count, 1), weights.topk(count, 1, largest=False)
        found.append((high.indices, high.values, low.indices, low.values))
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))  # pyright: ignore[reportReturnType]


def neighbors(directions: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """For each direction [m, d] the others with the largest cosine: places and cosines, [m, count]."""
    unit = unit_rows(directions.detach().cpu().float())
    count = min(count, len(unit) - 1)
    found: list[tuple[Tensor, Tensor]] = []
    for at in range(0, len(unit), _BLOCK):
        cosines = unit[at : at + _BLOCK] @ unit.T
        own = torch.arange(len(cosines))
        cosines[own, own + at] = -2.0
        best = cosines.topk(count, 1)
        found.append((best.indices, best.values))
    places, values = zip(*found, strict=True)
    return torch.cat(places), torch.cat(values)
