"""A linear layer whose largest stretch is a number of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from inscape.errors import DegenerateInputError
from inscape.training.objectives.base import objective


class _Sigma(nn.Module):
    """W becomes γ W / σ(W), with σ by one step of power iteration in every training pass."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones((), dtype=weight.dtype, device=weight.device))
        _, _, vectors = torch.linalg.svd(weight.detach().flatten(1).double(), full_matrices=False)
        self.register_buffer("direction", vectors[0].to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with the spectral norm γ."""
        matrix, held = weight.flatten(1), self.get_buffer("direction")
        with torch.no_grad():
            v = held.clone()
            u = nn.functional.normalize(matrix @ v, dim=0)
            if self.training:
                v = nn.functional.normalize(matrix.T @ u, dim=0)
                held.copy_(v)
                u = nn.functional.normalize(matrix @ v, dim=0)
        return self.gamma / (u @ (matrix @ v)) * weight


@objective("layer", source="Zhai et al. 2023, σReparam")
def sigma_reparam(module: nn.Module) -> nn.Module:
    r"""Gives every linear layer inside a module the weight $\frac{\gamma}{\sigma(W)} W$, in place; attention then keeps its entropy.

    σ(W) is the largest singular value, followed by one step of power iteration in every training pass, and γ a number that is learned and
    begins at 1. The entropy of attention has a lower bound that falls with the spectral norm of queries and keys, which can now grow by γ
    alone. Evaluation changes nothing.

    Args:
        module: any network; its `torch.nn.Linear` layers are changed.

    Returns:
        The same module.

    Raises:
        DegenerateInputError: no linear layer inside, or one whose weights are all zero.

    Source:
        Zhai et al., "Stabilizing transformer training by preventing attention entropy collapse", ICML 2023.

    Cost:
        Two products of the weight with a vector in every pass.

    Example:
        >>> layer = sigma_reparam(torch.nn.Linear(8, 4))
        >>> round(float(torch.linalg.matrix_norm(layer.weight, 2)), 4)
        1.0
    """
    linear = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    linear = [(name, part) for name, part in linear if not parametrize.is_parametrized(part)]
    if not linear:
        raise DegenerateInputError(f"{type(module).__name__} holds no linear layer whose weight could be reparametrized")
    for name, part in linear:
        if not bool(part.weight.detach().any()):
            raise DegenerateInputError(f"the weights of {name or 'the layer'} are all zero; they have no direction to normalize")
        parametrize.register_parametrization(part, "weight", _Sigma(part.weight))
    return module
