"""A map of a space into itself, run again and again: the dynamics that an autoencoder or a recurrent network defines."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, eigs
from torch import Tensor

from inscape.arrays import as_rows, check_finite
from inscape.errors import DegenerateInputError
from inscape.summaries.base import Summary

# Up to so many units the whole Jacobian is formed; above, only products with it.
_WHOLE = 256


class Runner(Summary):
    """Starting rows [n, d] and a map f from rows [b, d] to rows [b, d], which may be any function of a tensor.

    Example:
        >>> Runner.of(starts, lambda z: encode(decode(z))).step(starts)     # [n, d] -> [n, d]
    """

    additive: ClassVar[bool] = False
    beside: ClassVar[str] = "map"

    def __init__(self, starts: Float[Tensor, "n d"], map: Callable[[Tensor], Any]) -> None:
        self.starts = starts
        self.map = map

    @classmethod
    def of(cls, X: Any, map: Any) -> Runner:
        """The runner of starting rows X [n, d] under a map.

        Raises:
            DegenerateInputError: X is not [n, d] or holds NaN or infinity, or the map does not give rows of the same shape.
        """
        starts = as_rows(X)
        if isinstance(map, torch.nn.Module) and (weights := list(map.parameters())):
            starts = starts.to(weights[0].device, weights[0].dtype)
        if not callable(map):
            raise DegenerateInputError(f"the map is of type {type(map).__name__}; expected a function from rows [b, d] to rows [b, d]")
        made = cls(starts, map)
        check_finite(made.step(starts[:1]), "the image of the first start")
        return made

    @property
    def n(self) -> int:
        """Number of starts."""
        return self.starts.shape[0]

    @property
    def d(self) -> int:
        """Number of units."""
        return self.starts.shape[1]

    @property
    def size(self) -> float:
        """Root mean square of the starts about their mean; of a single place its length, or 1."""
        wide = self.starts.double()
        spread = float((wide - wide.mean(0)).square().sum(1).mean().sqrt())
        return spread if math.isfinite(spread) and spread > 0 else float(wide.norm(dim=1).max()) or 1.0

    def step(self, Z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """The image of rows, without a record for gradients.

        Raises:
            DegenerateInputError: the map fails on these rows, or its image has another shape.
        """
        with torch.no_grad():
            return self._image(Z)

    def radius(self, z: Float[Tensor, " d"]) -> float:
        """The spectral radius of the map's Jacobian at z: below 1 where the map draws nearby points together.

        Derivatives are those of torch where the map is differentiable, else central differences.
        """
        row = z[None]
        try:
            with torch.enable_grad():
                differentiable = self._image(row.detach().clone().requires_grad_()).requires_grad
        except DegenerateInputError:  # a map that leaves torch refuses tensors that record gradients
            differentiable = False

        def product(v: Tensor) -> Tensor:
            """Jᵀ v for rows v [b, d], or J v by differences: both have the same eigenvalues."""
            if differentiable:
                points = row.expand(len(v), -1).detach().clone().requires_grad_()
                with torch.enable_grad():
                    out = self._image(points)
                return torch.autograd.grad(out, points, v)[0]
            size = float(torch.finfo(z.dtype).eps ** (1 / 3)) * max(1.0, float(row.abs().max()))
            return (self.step(row + size * v) - self.step(row - size * v)) / (2 * size)

        if self.d <= _WHOLE:
            J = product(torch.eye(self.d, dtype=z.dtype, device=z.device))
            return float(torch.linalg.eigvals(J.double().cpu()).abs().max())

        def applied(v: np.ndarray) -> np.ndarray:
            return product(torch.from_numpy(v.reshape(1, -1)).to(z))[0].double().cpu().numpy()

        operator: Any = LinearOperator
        found = eigs(
            operator((self.d, self.d), matvec=applied, dtype=np.float64),
            k=1,
            which="LM",
            v0=np.ones(self.d),
            return_eigenvectors=False,
            maxiter=50 * self.d,
        )
        return float(np.abs(found).max())

    def take(self, idx: Any) -> Runner:
        """The starts with these numbers, in this order."""
        return Runner(self.starts[torch.as_tensor(np.asarray(idx))], self.map)

    def _image(self, Z: Tensor) -> Tensor:
        try:
            image = torch.as_tensor(self.map(Z))
        except Exception as error:  # what a stranger's function raises is not ours to foresee
            raise DegenerateInputError(
                f"the map fails on rows of shape {tuple(Z.shape)}, {Z.dtype}: {error}; give starts in the dtype that it takes"
            ) from error
        if image.shape != Z.shape:
            raise DegenerateInputError(f"the map takes rows {tuple(Z.shape)} to {tuple(image.shape)}; it must keep the shape")
        return image.to(Z.dtype)


class TokenRunner(Runner):
    """The vectors [t, d] of the tokens of one sequence, in order, and a map from [t, d] to [t, d] that reads any number of them together.

    Example:
        >>> TokenRunner.of(embed(ids), lambda E: blocks(E[None])[0]).last(embed(ids))     # [t, d] -> [d]
    """

    def last(self, tokens: Float[Tensor, "t d"]) -> Float[Tensor, " d"]:
        """What the map makes of the last of these tokens, in fp64.

        Raises:
            DegenerateInputError: the map fails on these tokens, its image has another shape, or that of the last token is not finite.
        """
        image = self.step(tokens)[-1:]
        check_finite(image, f"the image of the last of {len(tokens)} tokens")
        return image[0].double()
