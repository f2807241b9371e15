"""Curvature of image manifolds along the layers of trained and untrained networks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

import inscape as ix

PAPER = "Kaufman & Azencot, Data Representations' Study of Latent Image Manifolds, ICML 2023"
CLAIM = "Along the layers of a trained network curvature rises steeply, stays, and rises again at the end; in an untrained one it is flat."
SCALE = (
    "A fully connected network of six layers on 1,797 digits of 8 × 8 pixels in place of ResNets, VGG and DenseNet on CIFAR and ImageNet. "
    "As in the paper a neighborhood is one image and perturbations of it, here along four straight lines toward other images; curvature is "
    "in units of the size of each layer's cloud. The size of the perturbations, .1, was fixed after .05, .2 and .5 had been looked at."
)
VERDICT = (
    "Held in part. The steep rise and the plateau of a trained network and the flat profile of an untrained one hold. The last rise is "
    "small in two of three seeds, and no sign of training: from the last layer to the logits it is larger in the untrained network. With "
    "nearest images for neighborhoods in place of perturbations, curvature falls along the trained network (values named nearest_)."
)

LAYERS = 6
NAMES = ["pixels", *[f"layers.{i}" for i in range(LAYERS)], "head"]
DIRECTIONS, COPIES, REACH = 4, 25, 0.1


def patches(images: torch.Tensor, seed: int) -> torch.Tensor:
    """Each image with copies moved by at most `REACH` along each of four directions toward other images: flat sheets of pixels."""
    generator = torch.Generator().manual_seed(seed)
    flat = images.flatten(1)
    others = flat[torch.randint(len(flat), (len(flat), DIRECTIONS), generator=generator)]
    along = torch.linalg.qr((others - flat.unsqueeze(1)).mT).Q
    steps = (2 * torch.rand(len(flat), COPIES, DIRECTIONS, generator=generator) - 1) * REACH
    return (flat.unsqueeze(1) + steps @ along.mT).reshape(-1, *images.shape[1:])


def profile(module: Any, images: torch.Tensor, centers: int) -> list[float]:
    """Curvature of the pixels, of every layer and of the logits."""
    store = ix.capture(ix.load(module), images, sites=NAMES[1:])
    one = ix.measures.manifold_curvature.with_options(k=COPIES - 1, dimension=DIRECTIONS, centers=centers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # copies that a dead layer makes equal count once
        return [float(one(images.flatten(1))), *(ix.measure(store[site], one, interval=None).value() for site in NAMES[1:])]


def _values(trained: Any, untrained: Any, data: Any, seed: int, small: bool) -> dict[str, float]:
    values: dict[str, float] = {}
    images = {"": patches(data.images[: 60 if small else 200], seed), "nearest_": data.images}
    for kind, inputs in images.items():
        for name, module in (("trained", trained), ("untrained", untrained)):
            curvature = profile(module, inputs, 100 if small else 400)
            values |= {f"{kind}{name} {place}": value for place, value in zip(NAMES, curvature, strict=True)}
            values |= {f"{kind}{name} rise": curvature[-2] / curvature[1], f"{kind}{name} last step": curvature[-1] / curvature[-2]}
    return values


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    """Profiles of one network before and after training."""
    data = ix.zoo.digits(seed=seed)
    found = ix.zoo.train_digits(lambda: ix.zoo.DigitsMLP(layers=LAYERS), data, epochs=15 if small else 40, seed=seed)
    return _values(found.module, found.untrained, data, seed, small) | {"accuracy": found.accuracy}


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The untrained network in both places."""
    data = ix.zoo.digits(seed=seed)
    torch.manual_seed(seed)
    untrained = ix.zoo.DigitsMLP(layers=LAYERS).eval()
    return _values(untrained, untrained, data, seed, small) | {"accuracy": 0.1}


CHECKS = {
    "curvature rises along the layers of the trained network": lambda v: v["trained rise"] > 1.2,
    "it rises more than in the untrained one": lambda v: v["trained rise"] > 1.2 * v["untrained rise"],
    "the untrained profile is flat": lambda v: 1 / 1.5 < v["untrained rise"] < 1.5,
    "it rises again at the end of the trained one": lambda v: v["trained last step"] > 1.2,
}
CONTROL_FAILS = "it rises more than in the untrained one"


def figure(values: Mapping[str, float]) -> Any:
    """Both profiles over depth."""
    rows = [
        {"system": name, "site": place, "measure": "manifold_curvature", "value": values[f"{name} {place}"]}
        for name in ("trained", "untrained")
        for place in NAMES
    ]
    return ix.Result(rows).plot()
