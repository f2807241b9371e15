"""Two halves of networks joined by a layer: fitted on the activations themselves, or trained on the task."""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from inscape.arrays import as_tensor
from inscape.errors import DegenerateInputError, MapError
from inscape.maps.fitted import Map
from inscape.maps.fitting import align
from inscape.maps.scoring import ratio_row
from inscape.models import Model, load
from inscape.results import Result

BY = ("direct", "task")
_AT_ONCE = 512


@dataclass(frozen=True)
class Stitched:
    """The front half of one network, a layer, and the back half of another.

    Attributes:
        front: the network that reads the inputs.
        back: the network that gives the outputs.
        sites: where the front ends and where the back goes on.
        map: the layer between, as a map from one site to the other.
        scores: `stitch_accuracy`, `stitch_r2` and `stitch_cosine` of the stimuli that were held out, and `back_accuracy` of the whole back
            network on them.
    """

    front: Model
    back: Model
    sites: tuple[str, str]
    map: Map
    scores: Result

    def __call__(self, inputs: Any) -> Float[Tensor, "n classes"]:
        """Outputs of the back for inputs of the front.

        Raises:
            MapError: the two sites have different numbers of rows for one input.
        """
        found = [
            _outputs(self.back, self.sites[1], batch, _sent_through(self.map, _activations(self.front, self.sites[0], batch)))
            for batch in _batches(inputs)
        ]
        return torch.cat(found)


def stitch(
    front: Any,
    back: Any,
    inputs: Any,
    labels: Any,
    sites: str | tuple[str, str],
    by: str = "direct",
    *,
    holdout: float = 0.3,
    steps: int = 300,
    rate: float = 0.02,
    seed: int = 0,
) -> Stitched:
    """Joins the front of one network to the back of another by an affine layer, and scores it on held-out stimuli.

    Trained on the task (`by="task"`), the layer may send the back anything that it classifies well, whether or not the two sites are alike:
    even an untrained front then scores high. It tells what can be read out of the front, not how similar the two are. `by="direct"` fits
    the activations of the back, which is a similarity; `stitch_r2` says how well, whichever way the layer was found.

    Args:
        front: model or module that reads the inputs up to the first site.
        back: model or module that goes on from the second.
        inputs: what both read: a tensor or array [n, …], or a mapping of them by argument.
        labels: the right class of each input, [n].
        sites: where to cut the front and the back; one name for both.
        by: "direct" (ridge regression of the back's activations on the front's) or "task" (gradient descent on the back's loss).
        holdout: share of the inputs that the layer does not see.
        steps: of gradient descent, by="task".
        rate: its step size, in units of standard deviations.
        seed: which inputs are held out, and the order of batches.

    Raises:
        MapError: an unknown `by`; one input has other numbers of rows at the two sites; or what the back reads reaches its output around
            the site, so that cutting there cuts nothing.
        SiteNotFoundError: there is no such site.
        DegenerateInputError: as many labels as inputs are needed.

    Source:
        Lenc & Vedaldi, "Understanding image representations by measuring their equivariance and equivalence", CVPR 2015; Balogh &
        Jelasity, "How not to stitch representations to measure similarity: task loss matching versus direct matching", 2024, on why the
        task misleads.

    Example:
        >>> stitch(small, large, images, digits, "layers.2").scores.value(measure="stitch_accuracy")     # doctest: +SKIP
        0.93
    """
    if by not in BY:
        raise MapError(f"by={by!r} is unknown: 'direct' fits the activations, 'task' trains on the labels")
    pair = (sites, sites) if isinstance(sites, str) else (sites[0], sites[1])
    first, second = (one if isinstance(one, Model) else load(one) for one in (front, back))
    goal = as_tensor(labels).long()
    whole = list(_batches(inputs))
    n = sum(_length(batch) for batch in whole)
    if goal.shape != (n,):
        raise DegenerateInputError(f"labels have shape {tuple(goal.shape)} for {n} inputs; give one class for each")
    sent, real = (torch.cat([_activations(model, site, b) for b in whole]) for model, site in ((first, pair[0]), (second, pair[1])))
    if sent.shape[:-1] != real.shape[:-1]:
        raise MapError(
            f"{pair[0]!r} has shape {tuple(sent.shape)} and {pair[1]!r} {tuple(real.shape)}: a layer between them needs as many rows "
            "(tokens, places) for each input; cut where they agree, or after pooling"
        )
    _refuse_ways_around(second, pair[1], whole[0], real)
    order = np.random.default_rng(seed).permutation(n)
    test = np.sort(order[: min(n - 2, max(1, round(holdout * n)))])
    train = np.setdiff1d(order, test)
    per = int(np.prod(sent.shape[1:-1], dtype=np.int64))
    groups = np.repeat(np.arange(len(train)), per)
    made = align(_flat(sent[train]), _flat(real[train]), "ridge", holdout=0, groups=groups, seed=seed)
    if by == "task":
        made = _trained(made, second, pair[1], (inputs, sent, real, goal), train, steps=steps, rate=rate, seed=seed)
    made = Map(made.method, made.tensors, {**made.info, "a": f"{first.name}/{pair[0]}", "b": f"{second.name}/{pair[1]}", "by": by})
    places = [test[at : at + _AT_ONCE] for at in range(0, len(test), _AT_ONCE)]
    joined = torch.cat([_outputs(second, pair[1], _chosen(inputs, at), _sent_through(made, sent[at])) for at in places])
    plain = torch.cat([_outputs(second, pair[1], _chosen(inputs, at), None) for at in places])
    right, own = ((logits.argmax(1).cpu() == goal[test]).double().numpy() for logits in (joined, plain))
    rows = made.score(_flat(sent[test]), _flat(real[test]), groups=np.repeat(test, per)).rows()
    place = {key: rows[0][key] for key in ("system", "site", "system_b", "site_b", "d", "d_b")} | {"label": by, "n": len(test)}
    scores = [
        place | ratio_row(name, (values, np.ones(len(test))), lambda a, b: a / b, test, "auto", 0.95, seed, (0.0, 1.0))
        for name, values in (("stitch_accuracy", right), ("back_accuracy", own))
    ]
    scores += [{**row, "label": by, "measure": row["measure"].replace("map_", "stitch_")} for row in rows]
    settings = {"result": "map", "by": by, "holdout": holdout, "seed": seed}
    return Stitched(first, second, pair, made, Result(scores, settings=settings))


def stitching_checks(
    front: Any,
    back: Any,
    inputs: Any,
    labels: Any,
    sites: Sequence[str],
    *,
    holdout: float = 0.3,
    steps: int = 300,
    rate: float = 0.02,
    seed: int = 0,
) -> Result:
    """Stitches every site of the front to every site of the back, both ways of fitting, also from an untrained front.

    A similarity must put a layer next to itself, must see that distant layers differ, and must not find the layers of an untrained network
    like those of a trained one. In the result (`label`: "direct", "task", "direct, untrained front", "task, untrained front") each of the
    three can be read off.

    Args:
        front: model or module.
        back: model or module; the same one for the first check.
        inputs: what both read, as for `stitch`.
        labels: the right class of each input, [n].
        sites: the layers, in order.
        holdout: share of the inputs that no layer sees.
        steps: of gradient descent.
        rate: its step size.
        seed: of held-out inputs, batches and the untrained weights.

    Returns:
        The scores of `stitch` for all pairs of sites.

    Raises:
        MapError: as `stitch`.

    Example:
        >>> stitching_checks(net, net, images, digits, ["layers.0", "layers.3"])      # doctest: +SKIP
    """
    model = front if isinstance(front, Model) else load(front)
    found: list[Result] = []
    for name, one in (("", model), (", untrained front", load(untrained(model.module, seed=seed)))):
        for first in sites:
            for second in sites:
                for by in BY:
                    made = stitch(one, back, inputs, labels, (first, second), by, holdout=holdout, steps=steps, rate=rate, seed=seed)
                    rows = [{**row, "label": f"{by}{name}"} for row in made.scores.rows()]
                    found.append(Result(rows, settings={"result": "map", "checks": True, "holdout": holdout, "seed": seed}))
    return Result.merge(found)


def untrained(module: nn.Module, *, seed: int = 0) -> nn.Module:
    """A copy of a network with fresh weights: every part draws its own anew.

    Raises:
        MapError: a part has weights and does not know how to start (it has no `reset_parameters`).
    """
    fresh = copy.deepcopy(module)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for path, part in fresh.named_modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            own = list(part.parameters(recurse=False))
            for weight in own:  # bare parameters, such as embeddings of positions: noise of the same size
                spread = float(weight.detach().std()) if weight.numel() > 1 else 0.0
                with torch.no_grad():
                    weight.normal_(0, spread or 1.0)
            if own and any(weight.is_complex() for weight in own):
                raise MapError(f"{path!r} has complex weights and no reset_parameters; give an untrained network of your own")
    return fresh


# ---- inside ------------------------------------------------------------------------------------------------------


def _trained(
    start: Map, back: Model, site: str, data: tuple[Any, Tensor, Tensor, Tensor], train: np.ndarray, *, steps: int, rate: float, seed: int
) -> Map:
    """Gradient descent on the loss of the back, from the mean of its activations on; the networks stay as they are."""
    inputs, sent, real, goal = data
    kept, mean, middle = _flat(sent[train]).double(), start.tensors["mean_a"], start.tensors["mean_b"]
    spread = (kept - mean).square().mean(0).sqrt()
    spread = torch.where(spread > 0, spread, 1.0)
    # In these units every step of Adam moves the output by about `rate` standard deviations of what the back is used to.
    reach = float((_flat(real[train]).double() - middle).square().mean().sqrt())
    V, c = (torch.zeros(shape, requires_grad=True) for shape in ((len(mean), len(middle)), (len(middle),)))
    optimizer = torch.optim.Adam([V, c], lr=rate)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        rows = np.sort(rng.choice(train, min(128, len(train)), replace=False))
        x = ((sent[rows].double() - mean) / spread).float()
        with torch.enable_grad():
            y = (x @ V / len(mean) ** 0.5 + c) * reach + middle.float()
            logits = _outputs(back, site, _chosen(inputs, rows), y, grad=True)
            V.grad, c.grad = torch.autograd.grad(F.cross_entropy(logits.float(), goal[rows].to(logits.device)), [V, c])
        optimizer.step()
    weight = V.detach().double() / len(mean) ** 0.5 / spread.unsqueeze(1) * reach
    tensors = {"weight": weight, "back": torch.linalg.pinv(weight), "mean_a": mean, "mean_b": middle + c.detach().double() * reach}
    return Map("affine", tensors, {**start.info, "steps": steps, "rate": rate})


def _refuse_ways_around(back: Model, site: str, batch: Any, real: Tensor) -> None:
    """Other inputs with the same activations at the site must give the same outputs."""
    n = _length(batch)
    if n < 2:
        return
    here, turned = real[:n], _chosen(batch, np.arange(n)[::-1].copy())
    expected, found = _outputs(back, site, batch, here), _outputs(back, site, turned, here)
    if float((expected - found).abs().max()) > 1e-3 * max(1e-6, float(expected.abs().max())):
        raise MapError(
            f"{site!r} of {back.name} does not carry all that its outputs depend on: the inputs reach them around it, so a stitched "
            "network would still see them. Cut at a site through which everything goes, such as blocks.3.resid_post"
        )


def _activations(model: Model, name: str, batch: Any) -> Tensor:
    """What a site holds for a batch, [n, (rows,) d], on the CPU."""
    found: list[Tensor] = []
    site = _site(model, name, batch)
    with model.hooked([site], lambda _, x: found.append(x.detach().float().cpu().clone()), stop_after_last=True):
        model.run(batch, stop=True)
    if len(found) != 1:
        raise MapError(f"{name!r} of {model.name} ran {len(found)} times in one pass; choose one of its calls, such as {name}#0")
    return found[0]


def _outputs(model: Model, name: str, batch: Any, sent: Tensor | None, *, grad: bool = False) -> Tensor:
    """Outputs [n, classes] for a batch, with other activations at a site where `sent` gives them."""

    def write(x: Tensor, _: Any) -> Tensor:
        assert sent is not None
        if sent.shape != x.shape:
            raise MapError(f"{name!r} of {model.name} holds shape {tuple(x.shape)} here, but {tuple(sent.shape)} was sent to it")
        return sent.to(x)

    pairs = [] if sent is None else [(_site(model, name, batch), write)]
    with model.evaluating(), model.written(pairs), torch.set_grad_enabled(grad):
        out = model._caller(model.module, batch)
    out = getattr(out, "logits", out)
    if not isinstance(out, Tensor) or out.ndim != 2:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise MapError(f"{model.name} gives {shape}; stitching needs one row of class scores for each input, [n, classes]")
    return out if grad else out.detach()


def _site(model: Model, name: str, batch: Any) -> Any:
    sites = model.resolve(name, example=batch)
    if len(sites) != 1:
        raise MapError(f"{name!r} stands for {len(sites)} sites of {model.name}; name one")
    return sites[0]


def _sent_through(made: Map, rows: Tensor) -> Tensor:
    """Activations [n, (rows,) p] after the layer, [n, (rows,) q]."""
    return made.transform(_flat(rows)).reshape(*rows.shape[:-1], made.d_b)


def _flat(rows: Tensor) -> Tensor:
    return rows.reshape(-1, rows.shape[-1])


def _chosen(inputs: Any, rows: np.ndarray) -> Any:
    index = torch.from_numpy(rows)
    return {key: as_inputs(value)[index] for key, value in inputs.items()} if isinstance(inputs, Mapping) else as_inputs(inputs)[index]


def _batches(inputs: Any) -> Generator[Any]:
    n = _length(inputs)
    for at in range(0, n, _AT_ONCE):
        yield _chosen(inputs, np.arange(at, min(at + _AT_ONCE, n)))


def _length(inputs: Any) -> int:
    return len(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)


def as_inputs(value: Any) -> Tensor:
    """A tensor that keeps its dtype: whole numbers may be tokens."""
    return value if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))
