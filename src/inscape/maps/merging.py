"""Iterative feature merging: how many different units a layer has, found by joining those with alike weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inscape.errors import MapError
from inscape.maps.stitching import as_inputs
from inscape.models import Model
from inscape.results import Result

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 29))
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
Layer = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class MergedFeatures:
    """Layers whose units were joined step by step.

    Attributes:
        curves: `feature_complexity` (the share of units that are left, of each layer and of `all`) and `merged_score` over thresholds; the
            headline is the share at the largest threshold that loses no more than the tolerance.
        layers: the layers, each with those that read it.
    """

    curves: Result
    layers: tuple[tuple[str, str], ...]
    _module: nn.Module
    _joins: tuple[tuple[tuple[int, int, float], ...], ...]

    def network(self, threshold: float) -> nn.Module:
        """The smaller network at a threshold, in evaluation mode; the one that was given stays as it is."""
        return _shrunk(self._module, self.layers, [_groups(joins, threshold) for joins in self._sized()])

    def _sized(self) -> list[tuple[int, tuple[tuple[int, int, float], ...]]]:
        widths = [_width(self._module.get_submodule(layer)) for layer, _ in self.layers]
        return list(zip(widths, self._joins, strict=True))


def merge_features(
    model: Any,
    inputs: Any,
    labels: Any = None,
    *,
    layers: Sequence[tuple[str, str]] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    score: Callable[[nn.Module], float] | None = None,
    tolerance: float = 0.01,
) -> MergedFeatures:
    r"""Joins units of a layer with alike weights, the nearest pair first, and follows what the network can still do.

    Two units with the same incoming weights are one unit: their outgoing weights add up. The distance of two units is
    $\lVert w_i - w_j \rVert / \sqrt{(\lVert w_i \rVert^2 + \lVert w_j \rVert^2) / 2}$ of their incoming weights with the bias (a following
    batch norm is folded in). The nearest pair is replaced by its mean, weighted by the units in it, until all distances are above the
    threshold. No data decide what is joined.

    Args:
        model: a module of linear or convolutional layers (or a loaded model). It is not changed.
        inputs: some inputs of it, [n, …]: they tell which layers can be merged, and the score is taken on them.
        labels: the right class of each input; the score is the accuracy. Without them it is the share of outputs whose largest entry stays
            where it was.
        layers: pairs of paths, a layer and the one layer that reads it; by default all pairs of successive layers for which joining is
            exact, which is tried out.
        thresholds: distances at which the curves are read.
        score: takes a module, gives its score; in place of the accuracy.
        tolerance: loss of the score that the headline allows.

    Raises:
        MapError: no layer can be merged, a path is no linear or convolutional layer, or the layer has other readers too.

    Source:
        Chen, Qian, Lou & Zhang, "Going beyond neural network feature similarity: the network feature complexity and its interpretation
        using category theory", 2023. The relative distance and the weighted mean are choices of this library.

    Example:
        >>> ix.merge_features(net, images, digits).curves.value(site="all", measure="feature_complexity")      # doctest: +SKIP
        0.82
    """
    module = model.module if isinstance(model, Model) else model
    base = _folded(module)
    batch = as_inputs(inputs)
    chosen = _found(base, batch) if layers is None else [_checked(base, pair, batch) for pair in layers]
    if not chosen:
        raise MapError(
            "no two successive linear or convolutional layers were found of which the second alone reads the first; "
            "give layers=[(layer, reader)]"
        )
    joins = [_joined(_incoming(base.get_submodule(layer))) for layer, _ in chosen]
    widths = [_width(base.get_submodule(layer)) for layer, _ in chosen]
    rate = score if score is not None else _scorer(base, batch, labels)
    before = rate(base)
    rows: list[dict[str, Any]] = []
    headline, spent = 1.0, False
    last: list[int] = []
    value = before
    for threshold in sorted(thresholds):
        groups = [_groups(pair, threshold) for pair in zip(widths, joins, strict=True)]
        left = [int(group.max()) + 1 for group in groups]
        if left != last:
            value, last = rate(_shrunk(base, chosen, groups)), left
        share = sum(left) / sum(widths)
        spent = spent or value < before - tolerance
        headline = headline if spent else share
        at = {"axis": "threshold", "at": float(threshold)}
        for (layer, _), units, width in zip(chosen, left, widths, strict=True):
            rows.append({"site": layer, "measure": "feature_complexity", "value": units / width, "d": width, **at})
        rows += [{"site": "all", "measure": "feature_complexity", "value": share, "d": sum(widths), **at}]
        rows += [{"site": "all", "measure": "merged_score", "value": value, "n": len(batch), **at}]
    rows.append({"site": "all", "measure": "feature_complexity", "value": headline, "d": sum(widths)})
    rows.append({"site": "all", "measure": "merged_score", "value": before, "n": len(batch)})
    name = model.name if isinstance(model, Model) else type(module).__name__
    settings = {"result": "merge", "layers": [list(pair) for pair in chosen], "tolerance": tolerance}
    settings |= {"score": "given" if score is not None else "agreement" if labels is None else "accuracy"}
    curves = Result([{"system": name, **row} for row in rows], settings=settings)
    return MergedFeatures(curves, tuple(chosen), base, tuple(tuple(path) for path in joins))


# ---- inside ------------------------------------------------------------------------------------------------------


def _joined(weights: np.ndarray) -> list[tuple[int, int, float]]:
    """The joins of units [m, w] in order: kept unit, joined unit, and the largest distance so far; m³ at most."""
    W, size = weights.astype(np.float64), np.ones(len(weights))
    square = (W**2).sum(1)
    far = _distances(W, W, square, square)
    np.fill_diagonal(far, np.inf)
    joins: list[tuple[int, int, float]] = []
    height = 0.0
    for _ in range(len(W) - 1):
        i, j = np.unravel_index(int(far.argmin()), far.shape)
        i, j = (int(i), int(j)) if i < j else (int(j), int(i))
        height = max(height, float(far[i, j]))
        joins.append((i, j, height))
        W[i] = (size[i] * W[i] + size[j] * W[j]) / (size[i] + size[j])
        size[i], square[i] = size[i] + size[j], float(W[i] @ W[i])
        far[j], far[:, j] = np.inf, np.inf
        row = _distances(W[i : i + 1], W, square[i : i + 1], square)[0]
        row[i] = np.inf
        row[np.isinf(far[:, i]) & (np.arange(len(W)) != i)] = np.inf  # units that were joined already
        far[i], far[:, i] = row, row
    return joins


def _distances(A: np.ndarray, B: np.ndarray, square_a: np.ndarray, square_b: np.ndarray) -> np.ndarray:
    squares = square_a[:, None] + square_b
    apart = np.maximum(squares - 2 * A @ B.T, 0)
    return np.sqrt(np.divide(2 * apart, squares, out=np.zeros_like(squares), where=squares > 0))


def _groups(sized: tuple[int, Sequence[tuple[int, int, float]]], threshold: float) -> np.ndarray:
    """The group of each unit, numbered in order of first units, [m]."""
    width, joins = sized
    parent = np.arange(width)
    for kept, joined, height in joins:
        if height > threshold:
            break
        parent[parent == joined] = kept
    return np.unique(parent, return_inverse=True)[1]


def _shrunk(module: nn.Module, pairs: Sequence[tuple[str, str]], groups: Sequence[np.ndarray]) -> nn.Module:
    """The network with one unit for each group: means in, sums out."""
    small = copy.deepcopy(module)
    for (layer, reader), group in zip(pairs, groups, strict=True):
        first, second = small.get_submodule(layer), small.get_submodule(reader)
        assert isinstance(first, (nn.Linear, nn.Conv2d)) and isinstance(second, (nn.Linear, nn.Conv2d))
        member = torch.from_numpy(np.eye(int(group.max()) + 1)[group].T).to(first.weight)  # [groups, units]
        mean = member / member.sum(1, keepdim=True)
        with torch.no_grad():
            first.weight = nn.Parameter(torch.einsum("gu,u...->g...", mean, first.weight))
            if first.bias is not None:
                first.bias = nn.Parameter(mean @ first.bias)
            per = second.weight.shape[1] // len(group)  # places that a flattened map gives each channel
            columns = second.weight.unflatten(1, (len(group), per))
            summed = torch.einsum("gu,oup...->ogp...", member, columns).flatten(1, 2)
            second.weight = nn.Parameter(summed.contiguous())
        for part, wide in ((first, "out"), (second, "in")):
            kind = "features" if isinstance(part, nn.Linear) else "channels"
            setattr(part, f"{wide}_{kind}", part.weight.shape[0 if wide == "out" else 1])
    return small


def _found(module: nn.Module, batch: Tensor) -> list[tuple[str, str]]:
    """Pairs of successive layers whose joining is exact."""
    named = [(path, part) for path, part in module.named_modules() if isinstance(part, (nn.Linear, nn.Conv2d))]
    return [
        (path, after)
        for (path, part), (after, following) in pairwise(named)
        if _fits(part, following) and _private(module, (path, after), batch)
    ]


def _checked(module: nn.Module, pair: tuple[str, str], batch: Tensor) -> tuple[str, str]:
    parts = dict(module.named_modules())
    for path in pair:
        if not isinstance(parts.get(path), (nn.Linear, nn.Conv2d)):
            raise MapError(f"{path!r} is no linear or convolutional layer of {type(module).__name__}")
    layer, reader = pair
    if not _fits(parts[layer], parts[reader]) or not _private(module, (layer, reader), batch):
        raise MapError(f"{reader!r} is not the only layer that reads {layer!r}: turning the order of units in both changes the outputs")
    return layer, reader


def _fits(first: nn.Module, second: nn.Module) -> bool:
    grouped = any(isinstance(part, nn.Conv2d) and part.groups != 1 for part in (first, second))
    assert isinstance(first, (nn.Linear, nn.Conv2d)) and isinstance(second, (nn.Linear, nn.Conv2d))
    return not grouped and second.weight.shape[1] % first.weight.shape[0] == 0


def _private(module: nn.Module, pair: tuple[str, str], batch: Tensor) -> bool:
    """Whether the order of the units matters to the two layers alone: turned in both, the outputs stay."""
    width = _width(module.get_submodule(pair[0]))
    turned = _shrunk(module, [pair], [np.arange(width)])
    first, second = turned.get_submodule(pair[0]), turned.get_submodule(pair[1])
    assert isinstance(first, (nn.Linear, nn.Conv2d)) and isinstance(second, (nn.Linear, nn.Conv2d))
    order = torch.arange(width).roll(1)
    with torch.no_grad():
        first.weight.copy_(first.weight[order])
        if first.bias is not None:
            first.bias.copy_(first.bias[order])
        second.weight.copy_(second.weight.unflatten(1, (width, -1))[:, order].flatten(1, 2))
        expected, found = _run(module, batch[:16]), _run(turned, batch[:16])
    return bool((expected - found).abs().max() <= 1e-4 * expected.abs().max().clamp(min=1e-6))


def _folded(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode, with each batch norm folded into the linear or convolutional layer before it."""
    base = copy.deepcopy(module).eval()
    parts = list(base.named_modules())
    for (_, before), (path, norm) in pairwise(parts):
        if not isinstance(norm, _NORMS) or not isinstance(before, (nn.Linear, nn.Conv2d)) or norm.running_var is None:
            continue
        with torch.no_grad():
            assert norm.running_mean is not None
            gain = (norm.running_var + norm.eps).rsqrt() * (norm.weight if norm.affine else 1)
            offset = -norm.running_mean if before.bias is None else before.bias - norm.running_mean
            shift = offset * gain + (norm.bias if norm.affine else 0)
            before.weight = nn.Parameter(before.weight * gain.view(-1, *[1] * (before.weight.ndim - 1)))
            before.bias = nn.Parameter(shift)
        owner, _, name = path.rpartition(".")
        setattr(base.get_submodule(owner), name, nn.Identity())
    return base


def _incoming(layer: nn.Module) -> np.ndarray:
    assert isinstance(layer, (nn.Linear, nn.Conv2d))
    weight = layer.weight.detach().double().flatten(1)
    if layer.bias is not None:
        weight = torch.cat([weight, layer.bias.detach().double().unsqueeze(1)], 1)
    return weight.cpu().numpy()


def _width(layer: nn.Module) -> int:
    assert isinstance(layer, (nn.Linear, nn.Conv2d))
    return layer.weight.shape[0]


def _scorer(base: nn.Module, batch: Tensor, labels: Any) -> Callable[[nn.Module], float]:
    goal = _run(base, batch).argmax(-1) if labels is None else as_inputs(labels).long()
    if len(goal) != len(batch):
        raise MapError(f"labels have {len(goal)} entries for {len(batch)} inputs; give one class for each")
    return lambda network: float((_run(network, batch).argmax(-1) == goal).double().mean())


@torch.no_grad()
def _run(module: nn.Module, batch: Tensor) -> Tensor:
    parts = [module(batch[at : at + 512]) for at in range(0, len(batch), 512)]
    return torch.cat([getattr(part, "logits", part) for part in parts])
