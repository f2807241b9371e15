"""A linear layer whose largest stretch is a number of its own."""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from inscape.errors import DegenerateInputError
from inscape.training.objectives.base import objective

_OF_ATTENTION = {"in_proj_weight": 3, "q_proj_weight": 1, "k_proj_weight": 1, "v_proj_weight": 1}  # matrices in each, on top of one another


class _Sigma(nn.Module):
    """W becomes γ W / σ(W), with σ by one step of power iteration in every training pass; of several matrices in W each by itself."""

    def __init__(self, weight: Tensor, count: int) -> None:
        super().__init__()
        own = (count,) if count > 1 else ()
        self.gamma = nn.Parameter(torch.ones(own, dtype=weight.dtype, device=weight.device))
        _, _, vectors = torch.linalg.svd(_matrices(weight.detach(), count).double(), full_matrices=False)
        self.register_buffer("direction", vectors[:, 0].reshape(*own, -1).to(weight))
        self.count = count

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with the spectral norm γ."""
        matrices, held = _matrices(weight, self.count), self.get_buffer("direction").view(self.count, -1, 1)
        with torch.no_grad():
            v = held.clone()
            u = nn.functional.normalize(matrices @ v, dim=1)
            if self.training:
                v = nn.functional.normalize(matrices.mT @ u, dim=1)
                held.copy_(v)
                u = nn.functional.normalize(matrices @ v, dim=1)
        norms = u.mT @ (matrices @ v)
        return (self.gamma.view(-1, 1, 1) / norms * matrices).view_as(weight)


def _matrices(weight: Tensor, count: int) -> Tensor:
    return weight.flatten(1).unflatten(0, (count, -1))


@objective("layer", source="Zhai et al. 2023, σReparam")
def sigma_reparam(module: nn.Module) -> nn.Module:
    r"""Gives every linear map inside a module the weight $\frac{\gamma}{\sigma(W)} W$, in place; attention then keeps its entropy.

    σ(W) is the largest singular value, followed by one step of power iteration in every training pass, and γ a number that is learned and
    begins at 1. The entropy of attention has a lower bound that falls with the spectral norm of queries and keys, which can now grow by γ
    alone. Evaluation changes nothing.

    Linear maps are `torch.nn.Linear`, the projections in `torch.nn.MultiheadAttention` (queries, keys and values each with a γ of their
    own, also where torch keeps them in one weight) and `Conv1D` of transformers (GPT-2). Where a network makes queries, keys and values by
    one layer of these kinds, that layer is one matrix with one γ.

    Args:
        module: any network.

    Returns:
        The same module.

    Raises:
        DegenerateInputError: no linear layer inside, one whose weights are all zero, or one that shares its weight with another module (an
            output layer tied to the embedding): pass the part without it. Nothing is changed then.

    Source:
        Zhai et al., "Stabilizing transformer training by preventing attention entropy collapse", ICML 2023, for all linear layers. That
        queries, keys and values in one weight of torch count as three is a choice of this library.

    Cost:
        Two products of the weight with a vector in every pass.

    Example:
        >>> layer = sigma_reparam(torch.nn.Linear(8, 4))
        >>> round(torch.linalg.matrix_norm(layer.weight, 2).item(), 4)
        1.0
    """
    chosen = [(name, part, key, count) for name, part in module.named_modules() for key, count in _weights_of(part).items()]
    if not chosen:
        raise DegenerateInputError(f"{type(module).__name__} holds no linear layer whose weight could be reparametrized")
    owners: dict[int, list[str]] = {}
    for name, part in module.named_modules():
        for key, parameter in part.named_parameters(name, recurse=False):
            owners.setdefault(id(parameter), []).append(key)
    for name, part, key, count in chosen:
        weight = part.get_parameter(key)
        if len(shared := owners[id(weight)]) > 1:
            raise DegenerateInputError(
                f"{' and '.join(shared)} are one tied weight, which would be normalized in one place alone; untie them, or pass the "
                "part of the network without one of them"
            )
        if not bool(_matrices(weight.detach(), count).flatten(1).any(1).all()):
            raise DegenerateInputError(f"the weights of {name or 'the layer'} are all zero; they have no direction to normalize")
    for _, part, key, count in chosen:
        parametrize.register_parametrization(part, key, _Sigma(part.get_parameter(key), count))
    return module


def _weights_of(part: nn.Module) -> dict[str, int]:
    """The weights of a linear map by name, with how many matrices each holds; without those that are parametrized already."""
    conv1d = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)  # who has one has imported it
    if isinstance(part, nn.MultiheadAttention):
        weights = _OF_ATTENTION
    elif isinstance(part, nn.Linear) or (conv1d is not None and isinstance(part, conv1d)):
        weights = {"weight": 1}
    else:
        return {}
    # A weight that is parametrized is no parameter of the layer itself any more.
    return {name: count for name, count in weights.items() if part._parameters.get(name) is not None}
