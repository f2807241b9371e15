"""Responses to repeated presentations: the mean and the covariance of every stimulus."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from inscape.arrays import as_tensor, check_finite
from inscape.errors import DegenerateInputError, TooFewStimuliError
from inscape.summaries.base import Summary


class Repeats(Summary):
    """Rows [m, r, d]: m stimuli, each presented r times; the distribution of responses around every stimulus.

    Cost: m r d² multiplications and 8 m d² bytes for the covariances, when they are asked for.

    Example:
        >>> Repeats.of(np.zeros((10, 3, 5)) + np.arange(5)).means.shape
        torch.Size([10, 5])
    """

    additive: ClassVar[bool] = False
    repeated: ClassVar[bool] = True

    def __init__(self, rows: Float[Tensor, "m r d"]) -> None:
        self.rows = rows

    @classmethod
    def of(cls, X: Any) -> Repeats:
        """The repeats of an array [m, r, d].

        Raises:
            DegenerateInputError: X is not [m, r, d], or holds NaN or infinity.
            TooFewStimuliError: fewer than two repeats.
        """
        rows = as_tensor(X)
        if rows.ndim != 3 or rows.shape[2] == 0:
            raise DegenerateInputError(
                f"repeats have shape {tuple(rows.shape)}; expected [m, r, d]: stimuli, presentations of each, units; or a view with repeats"
            )
        if rows.shape[1] < 2:
            raise TooFewStimuliError(f"repeats of shape {tuple(rows.shape)} show every stimulus once; at least 2 presentations are needed")
        check_finite(rows.flatten(0, 1), "X")
        return cls(rows.double())

    @property
    def n(self) -> int:
        """Number of stimuli."""
        return self.rows.shape[0]

    @property
    def d(self) -> int:
        """Number of units."""
        return self.rows.shape[2]

    @cached_property
    def means(self) -> Float[Tensor, "m d"]:
        """Mean response to every stimulus."""
        return self.rows.mean(1)

    @cached_property
    def covariances(self) -> Float[Tensor, "m d d"]:
        """Covariance of the responses to every stimulus, over r − 1."""
        noise = self.rows - self.means[:, None]
        return noise.transpose(1, 2) @ noise / (self.rows.shape[1] - 1)

    def take(self, idx: Any) -> Repeats:
        """The stimuli with these numbers, in this order."""
        return Repeats(self.rows[torch.as_tensor(np.asarray(idx))])

    def padded(self, d: int) -> Repeats:
        """The same in a space of d units, the further ones 0."""
        return self if d == self.d else Repeats(torch.nn.functional.pad(self.rows, (0, d - self.d)))
