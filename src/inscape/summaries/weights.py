"""Matrices of parameters: as the input itself, or as the layer that reads the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, linalg, nn

from inscape.arrays import as_rows, as_tensor, check_finite
from inscape.errors import DegenerateInputError, StoreMismatchError
from inscape.summaries.base import Summary


class Weights(Summary):
    """One matrix of parameters in fp64, a row per output.

    Cost: 8 rows × columns bytes, and the cube of the smaller side for the singular values when they are asked for.

    Example:
        >>> layer = torch.nn.Linear(8, 3)
        >>> Weights.of(layer.weight).singular_values        # [out, in]
    """

    additive: ClassVar[bool] = False
    parameters: ClassVar[str] = "input"

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    @classmethod
    def of(cls, X: Any) -> Weights:
        """The weights of a matrix [out, in].

        Raises:
            DegenerateInputError: X has not two axes, or holds NaN or infinity.
        """
        return cls(as_rows(X, "the matrix").cpu().double())

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.matrix.shape[0]

    @property
    def d(self) -> int:
        """Number of columns."""
        return self.matrix.shape[1]

    @cached_property
    def singular_values(self) -> Tensor:
        """Singular values, descending, [min(n, d)]."""
        return linalg.svdvals(self.matrix)

    def take(self, idx: Any) -> Weights:
        """The rows with these numbers, in this order."""
        return type(self)(self.matrix[torch.as_tensor(idx)])


class Head(Summary):
    """The linear layer that reads the rows of a site: a classifier, or the next projection; weight [out, d] and bias [out] in fp64.

    Example:
        >>> Head.of(torch.nn.Linear(8, 3)).logits(torch.ones(5, 8))     # or a pair: weight [out, d], bias [out]
    """

    additive: ClassVar[bool] = False
    parameters: ClassVar[str] = "beside"

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight = weight
        self.bias = bias

    @classmethod
    def of(cls, given: Any, d: int | None = None) -> Head:
        """The layer behind a matrix [out, d], a pair (matrix, bias), a linear layer, or a model (its classifier).

        Args:
            given: the layer.
            d: the width of the rows that it reads.

        Raises:
            DegenerateInputError: nothing with a matrix of weights, or numbers that are not finite.
            StoreMismatchError: the layer reads another number of units, or weight and bias do not fit.
        """
        weight, bias = _parts(given)
        matrix = as_tensor(weight).cpu().double()
        if matrix.ndim != 2:
            raise DegenerateInputError(f"the weights have shape {tuple(matrix.shape)}; expected [out, d], a row per output")
        check_finite(matrix, "the weights")
        offset = matrix.new_zeros(matrix.shape[0]) if bias is None else as_tensor(bias).cpu().double()
        if offset.shape != matrix.shape[:1]:
            raise StoreMismatchError(f"a bias of shape {tuple(offset.shape)} does not fit weights of shape {tuple(matrix.shape)}")
        if d is not None and matrix.shape[1] != d:
            raise StoreMismatchError(
                f"the weights have shape {tuple(matrix.shape)}, so they read {matrix.shape[1]} units, but the rows have {d}; "
                "give the layer that reads this site, or a dictionary from site to layer"
            )
        return cls(matrix, offset)

    @property
    def n(self) -> int:
        """Number of outputs."""
        return self.weight.shape[0]

    @property
    def d(self) -> int:
        """Number of units that it reads."""
        return self.weight.shape[1]

    @cached_property
    def leading_direction(self) -> Tensor:
        """The input direction that the layer stretches most, [d]; its sign is arbitrary."""
        _, vectors = linalg.eigh(self.weight.T @ self.weight)
        return vectors[:, -1]

    def logits(self, rows: Tensor) -> Tensor:
        """W x + b for rows [m, d], [m, out]."""
        return rows.to(self.weight.dtype) @ self.weight.T + self.bias

    def take(self, idx: Any) -> Head:
        """Itself: the layer does not depend on which rows are looked at."""
        return self


def classifier(module: nn.Module) -> nn.Module | None:
    """The layer that makes a network's last decision: the output embedding where it names one, else its last linear layer."""
    named = getattr(module, "get_output_embeddings", None)
    found = named() if callable(named) else None
    if isinstance(found, nn.Module):
        return found
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    return linear[-1] if linear else None


def matrices(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter with at least two axes by name, as a matrix [out, rest]; shared ones once."""
    for name, parameter in module.named_parameters():
        if parameter.ndim >= 2 and parameter.is_floating_point() and min(parameter.flatten(1).shape) > 1:
            yield name, parameter.detach().flatten(1)


def for_site(given: Any, site: str) -> Any:
    """What of `weights=` belongs to a site: the entry of a dictionary, else the one layer for all."""
    if isinstance(given, Mapping):
        entries: Mapping[str, Any] = given
        return entries.get(site)
    return given


def _parts(given: Any) -> tuple[Any, Any]:
    """Weight and bias of whatever stands for a layer."""
    if isinstance(given, tuple) and len(given) == 2:  # pyright: ignore[reportUnknownArgumentType]
        pair: tuple[Any, Any] = given
        return pair
    module = given if isinstance(given, nn.Module) else getattr(given, "module", None)
    if isinstance(module, nn.Module):
        layer = module if isinstance(getattr(module, "weight", None), Tensor) else classifier(module)
        if layer is None:
            raise DegenerateInputError(f"{type(module).__name__} has no linear layer; give the layer itself, or (matrix, bias)")
        weight: Any = layer.weight
        return weight, getattr(layer, "bias", None)
    return given, None
