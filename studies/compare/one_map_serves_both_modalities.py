"""Two dual encoders of images and texts, trained apart: one rotation, found on images, carries texts as well."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import inscape as ix

PAPER = '"Canonicalizing multimodal contrastive representation learning", 2026'
CLAIM = (
    "Contrastive models of images and texts that were trained independently differ by a rotation and a shift, and the rotation that "
    "is found on "
    "images alone carries the texts as well."
)
SCALE = (
    "Small perceptrons on simulated pairs with 12 shared factors, widths 64 and 96, in place of CLIP, SigLIP and FLAVA on photographs "
    "with captions."
)
FACTORS, EMBEDDING, IMAGE, TEXT = 12, 16, 40, 30


class World:
    """Pairs of an image and a text that show the same factors, each in a nonlinear way with a noise of its own."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.views = [(rng.standard_normal((FACTORS, d)) / FACTORS**0.5, rng.standard_normal((d, d)) / d**0.5) for d in (IMAGE, TEXT)]

    def pairs(self, n: int) -> tuple[Tensor, Tensor]:
        z = self.rng.standard_normal((n, FACTORS))
        found = [np.tanh(1.5 * z @ A) @ B + 0.15 * self.rng.standard_normal((n, B.shape[1])) for A, B in self.views]
        return torch.tensor(found[0], dtype=torch.float32), torch.tensor(found[1], dtype=torch.float32)


def dual_encoder(world: World, width: int, steps: int, seed: int) -> tuple[nn.Module, nn.Module]:
    """Both towers, trained to tell pairs from other pairs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        towers = [nn.Sequential(nn.Linear(d, width), nn.GELU(), nn.Linear(width, EMBEDDING)) for d in (IMAGE, TEXT)]
        temperature = nn.Parameter(torch.tensor(2.0))
        optimizer = torch.optim.Adam([*towers[0].parameters(), *towers[1].parameters(), temperature], lr=2e-3)
        for _ in range(steps):
            f, g = (nn.functional.normalize(tower(x), dim=1) for tower, x in zip(towers, world.pairs(256), strict=True))
            logits = temperature.exp() * f @ g.T
            target = torch.arange(len(f))
            loss = nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return towers[0], towers[1]


@torch.no_grad()
def embedded(tower: nn.Module, x: Tensor) -> np.ndarray:
    return nn.functional.normalize(tower(x), dim=1).double().numpy()


def measured(seed: int, small: bool, *, coupled: bool) -> dict[str, float]:
    world, steps = World(seed), 250 if small else 500
    f_a, g_a = dual_encoder(world, 64, steps, 2 * seed)
    f_b, g_b = dual_encoder(world, 96, steps, 2 * seed + 1)
    images, texts = world.pairs(800)
    new_images, new_texts = world.pairs(300)
    turn = np.eye(EMBEDDING) if coupled else np.linalg.qr(np.random.default_rng(seed).standard_normal((EMBEDDING, EMBEDDING)))[0]
    image_a, image_b = embedded(f_a, images), embedded(f_b, images)
    text_a, text_b = embedded(g_a, texts), embedded(g_b, texts) @ turn
    test_a, test_b = embedded(g_a, new_texts), embedded(g_b, new_texts) @ turn
    fitted = ix.align(image_a, image_b, holdout=0)
    moved = fitted.recentered(text_a, text_b)
    own = ix.align(text_a, text_b, holdout=0)
    shown = fitted.score(embedded(f_a, new_images), embedded(f_b, new_images), interval=None)
    found = moved.retrieval(1, test_a, test_b, csls=False, interval=None)
    straight = np.mean((test_a - test_a.mean(0)) * (test_b - test_b.mean(0))) / np.sqrt(
        np.var(test_a - test_a.mean(0)) * np.var(test_b - test_b.mean(0))
    )
    return {
        "images_cosine": shown.value(measure="map_cosine"),
        "texts_cosine": moved.score(test_a, test_b, interval=None).value(measure="map_cosine"),
        "texts_cosine_own_map": own.score(test_a, test_b, interval=None).value(measure="map_cosine"),
        "texts_cosine_unmapped": float(straight),
        "texts_found": found.value(at=1),
        "chance": found.column("null_mean")[0],
    }


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    return measured(seed, small, coupled=True)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The texts of the second model are turned against its images: its coupling is lost, each modality keeps its shape."""
    return measured(seed, small, coupled=False)


CHECKS = {
    "a rotation carries images of one model to the other": lambda v: v["images_cosine"] > 0.8,
    "the same rotation carries texts": lambda v: v["texts_cosine"] > 0.9 * v["texts_cosine_own_map"],
    "texts find their partner through it": lambda v: v["texts_found"] > 0.5 > 20 * v["chance"],
    "without a map the two models share nothing": lambda v: abs(v["texts_cosine_unmapped"]) < 0.3,
}
CONTROL_FAILS = "the same rotation carries texts"


def figure(values: dict[str, float]) -> Figure:
    drawn = Figure(figsize=(5.6, 3.2), layout="constrained")
    ax = drawn.subplots()
    names = {
        "images_cosine": "images,\nmap of images",
        "texts_cosine": "texts,\nmap of images",
        "texts_cosine_own_map": "texts,\nmap of texts",
        "texts_cosine_unmapped": "texts,\nno map",
    }
    bars = ax.bar(list(names.values()), [values[name] for name in names], color=["#8c8b85", "#0072B2", "#56B4E9", "#D55E00"], width=0.62)
    ax.bar_label(bars, fmt="%.2f")
    ax.set_ylabel("cosine in new pairs")
    ax.margins(y=0.12)
    ax.spines[["top", "right"]].set_visible(False)
    return drawn
